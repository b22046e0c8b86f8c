"""results.jsonl: which lines are made anew, and which stay."""

import shutil

import pytest

from deeplax import atomic
from deeplax import errors
from deeplax.ablation import results as results_lib
from deeplax.ablation import running
from tests.ablation import fake_jobs


def test_the_first_seed_of_all_rows_comes_before_the_second(tmp_path):
  _, jobs = fake_jobs.started("v3plus_table1", tmp_path)
  assert [job.seed for job in jobs] == [0] * 5 + [1] * 5


def test_shards_may_write_at_the_same_time(monkeypatch, tmp_path):
  write = atomic.write_text

  def while_another_does(path, text):
    monkeypatch.setattr(atomic, "write_text", write)
    write(path, text)
    with monkeypatch.context() as other:
      other.setattr(results_lib.os, "getpid", lambda: 1)
      results_lib.write(tmp_path, [{"row": "another's"}])

  monkeypatch.setattr(atomic, "write_text", while_another_does)
  results_lib.write(tmp_path, [{"row": "one's"}])
  assert results_lib.read(tmp_path) == [{"row": "one's"}]
  assert [path.name for path in tmp_path.iterdir()] == [results_lib.FILE]


def test_shards_on_one_disk_keep_each_others_results(monkeypatch, tmp_path):
  fake_jobs.fake(monkeypatch)
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path, seeds=(0,))
  running.run(experiment, jobs[0::2], tmp_path, others=jobs)
  lines = running.run(experiment, jobs[1::2], tmp_path, others=jobs)
  assert [line["status"] for line in lines] == ["finished"] * 5


def test_results_stay_when_the_workdirs_are_gone(monkeypatch, tmp_path):
  fake_jobs.fake(monkeypatch)
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path)
  lines = running.run(experiment, jobs, tmp_path)
  (tmp_path / "runs").rename(tmp_path / "elsewhere")
  assert results_lib.collect(experiment, jobs, tmp_path) == lines
  # Nor when fewer seeds are asked for.
  assert results_lib.collect(experiment, jobs[:5], tmp_path) == lines


def test_results_stay_when_only_records_are_left(monkeypatch, tmp_path):
  fake_jobs.fake(monkeypatch)
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path, seeds=(0,))
  lines = running.run(experiment, jobs, tmp_path)
  for job in jobs:
    shutil.rmtree(job.workdir)
  assert results_lib.collect(experiment, jobs, tmp_path) == lines
  (tmp_path / results_lib.FILE).unlink()
  lines = results_lib.collect(experiment, jobs, tmp_path)
  assert {line["status"] for line in lines} == {"not run"}


def test_results_of_another_length_are_not_mixed(monkeypatch, tmp_path):
  fake_jobs.fake(monkeypatch)
  experiment, jobs = fake_jobs.started(
    "v3plus_table1", tmp_path, (0,), steps=20
  )
  running.run(experiment, jobs, tmp_path)
  (tmp_path / "runs").rename(tmp_path / "elsewhere")
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path, (0,))
  with pytest.raises(errors.InputError, match="20 steps, this .* of 30000"):
    results_lib.collect(experiment, jobs, tmp_path)


def test_mean_and_deviation_of_seeds_are_the_plain_ones():
  mean, deviation = results_lib.mean_std([1.0, 2.0, 4.0])
  assert mean == pytest.approx(7 / 3)
  assert deviation == pytest.approx((14 / 9 * 3 / 2) ** 0.5)
  assert str(results_lib.mean_std([])) == "(nan, nan)"
