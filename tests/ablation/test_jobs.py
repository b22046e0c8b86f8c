"""A job: its commands, and what it reads from its workdir."""

import dataclasses
import json
import re
import subprocess

import pytest

from deeplax import errors
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import jobs as jobs_lib
from deeplax.ablation import load
from deeplax.ablation import results as results_lib
from deeplax.ablation import running
from tests.ablation import fake_jobs

PLAIN = experiment_lib.Evaluation(16, (1.0,), False, False)


SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def test_evaluations_are_few_commands_that_cover_all_rows():
  several = PLAIN._replace(scales=SIX)
  flipped = several._replace(flip=True)
  six = "--scales=0.5,0.75,1.0,1.25,1.5,1.75"
  assert jobs_lib.evaluations([]) == []
  # One scale is beside several in a sweep.
  assert jobs_lib.evaluations([PLAIN, several, flipped]) == [
    ["--sweep", "--output_strides=16", six]
  ]
  assert jobs_lib.evaluations([several]) == [
    ["--sweep", "--output_strides=16", six, "--no-flip"]
  ]
  assert jobs_lib.evaluations(
    [PLAIN._replace(output_stride=8), PLAIN._replace(crf=True)]
  ) == [
    ["--no-sweep", "--output_strides=8", "--scales=1.0", "--no-flip"],
    ["--no-sweep", "--output_strides=16", "--scales=1.0", "--no-flip",
     "--crf"],
  ]  # fmt: skip


def test_flips_that_a_configurations_table_leaves_out_are_evaluated_alone():
  flipped = PLAIN._replace(flip=True)
  assert jobs_lib.evaluations([PLAIN, flipped], (False,)) == [
    ["--sweep", "--output_strides=16", "--scales=1.0", "--no-flip"],
    ["--no-sweep", "--output_strides=16", "--scales=1.0", "--flip"],
  ]


def job(experiment, tmp_path, place=0, **settings):
  return results_lib.jobs(experiment, tmp_path, **settings)[place]


def test_a_job_trains_with_its_seed_and_evaluates_what_training_does_not(
  tmp_path,
):
  train, evaluate = job(
    load.load("v3plus_table3"), tmp_path, 1, seeds=(3,)
  ).commands()
  assert train[1:3] == ["-m", "deeplax.main"]
  assert "--config=configs/v3plus_resnet101.py" in train
  assert "--config.seed=3" in train
  assert "--config.model.decoder.kind=concat" in train
  assert evaluate[1:3] == ["-m", "deeplax.evaluate"]
  assert "--output_strides=16,8" in evaluate


def test_weights_are_converted_for_each_network_but_not_for_cocos(tmp_path):
  experiment = load.load("v3_table6")
  plain, coco = (
    job(experiment, tmp_path, i, weights="tf_deeplab:a.ckpt") for i in (0, 1)
  )
  convert, train, _ = plain.commands()
  assert "--source=tf_deeplab" in convert and "--checkpoint=a.ckpt" in convert
  (start,) = [word for word in train if "init.checkpoint" in word]
  assert f"--workdir={start.partition('=')[2]}" in convert
  assert len(coco.commands()) == 2


def test_only_what_is_missing_is_run(monkeypatch, tmp_path):
  experiment, (job, *_) = fake_jobs.started(
    "v3plus_table3", tmp_path, seeds=(0,)
  )
  whole = job.commands(missing_only=True)
  assert len(whole) == 2
  fake_jobs.fake(monkeypatch)
  own = jobs_lib.own_evaluation(job.cell)
  command = job.commands()[0]
  command[-1] = json.dumps([own])
  subprocess.run(command, check=True)
  monkeypatch.undo()
  # Stopped between its last evaluation and its last checkpoint.
  assert job.commands(missing_only=True) == whole
  (job.workdir / "checkpoints" / "30000").mkdir(parents=True)
  # The training is done: the evaluations alone are left.
  assert job.commands(missing_only=True) == whole[1:]
  assert job.commands() == whole


def test_an_evaluation_without_what_is_measured_is_made_again(tmp_path):
  _, (job, *_) = fake_jobs.started("crf_on_off", tmp_path, seeds=(0,))
  train, first, second = job.commands()
  assert "--trimap=1,2,5,10,20,30,40" in first and "--crf" not in first
  assert "--boundary" in second and "--crf" in second


def test_a_workdir_of_other_settings_is_not_taken_for_a_result(
  monkeypatch, tmp_path
):
  fake_jobs.fake(monkeypatch)
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path, seeds=(0,))
  running.run(experiment, jobs[:1], tmp_path)
  path = jobs[0].workdir / "config.json"
  config = json.loads(path.read_text())
  config["model"]["decoder"]["convs"] = 2
  path.write_text(json.dumps(config))
  with pytest.raises(errors.InputError, match="convs=2"):
    running.run(experiment, jobs[:1], tmp_path)


def test_a_workdir_of_settings_that_are_no_longer_asked_for_is_refused(
  monkeypatch, tmp_path
):
  fake_jobs.fake(monkeypatch)
  flags = ("optim.base_lr=0.2", "log.every=7")
  experiment, jobs = fake_jobs.started(
    "v3plus_table1", tmp_path, (0,), flags=flags
  )
  running.run(experiment, jobs[:1], tmp_path)
  experiment, jobs = fake_jobs.started(
    "v3plus_table1", tmp_path, (0,), flags=flags[:1]
  )
  assert jobs[0].trained()  # how often it logs is no matter
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path, (0,))
  with pytest.raises(errors.InputError, match="base_lr=0.2, this .* has 0.007"):
    running.run(experiment, jobs[:1], tmp_path)


@pytest.mark.parametrize(
  "other",
  [{"sizes": "exact"}, {"window": [513, 128]}, {"trimap": {"3": 0.5}},
   {"boundary_f": None}],
)  # fmt: skip
def test_what_someone_has_evaluated_otherwise_is_no_result(
  other, monkeypatch, tmp_path
):
  fake_jobs.fake(monkeypatch)
  measure = ("--trimap=5,1", "--boundary")
  _, (job, *_) = fake_jobs.started("v3plus_table1", tmp_path, seeds=(0,))
  job = dataclasses.replace(job, measure=measure)
  running.run_job(job)
  assert job.result(job.rows[0])
  (path,) = (job.workdir / "eval").iterdir()
  result = json.loads(path.read_text()) | other
  path.write_text(json.dumps({k: v for k, v in result.items() if v}))
  assert job.result(job.rows[0]) is None


def test_part_of_a_split_is_evaluated_alike_by_all_rows(monkeypatch, tmp_path):
  flags = ("eval.max_images=2",)
  _, (job, *_) = fake_jobs.started("v3plus_table3", tmp_path, (0,), flags=flags)
  assert job.commands()[1][-1] == "--max_images=2"


def test_weights_are_converted_once_for_a_seed_and_known_to_a_report(
  monkeypatch, tmp_path
):
  experiment = load.load("v3plus_table1")
  first, *_, last = results_lib.jobs(
    experiment, tmp_path, seeds=(0, 1), weights="tf_deeplab:a.ckpt"
  )
  convert, train = first.commands(missing_only=True)
  assert "--config.seed=0" in convert
  # Layers that the weights lack are drawn, by the seed.
  assert convert[-1].endswith("low_level_channels=8-seed0-start")
  assert last.commands()[0][-1].endswith("low_level_channels=64-seed1-start")
  monkeypatch.setattr(running, "start", lambda *_, env: (1, 0))
  running.run_job(first)
  (first.sibling("-start") / "checkpoints" / "0").mkdir(parents=True)
  assert first.commands(missing_only=True) == [train]
  line, *_ = results_lib.collect(
    experiment, results_lib.jobs(experiment, tmp_path, seeds=(0,)), tmp_path
  )
  assert "deeplax.convert --source=tf_deeplab" in line["commands"][0]


def test_a_long_curve_is_thinned_by_means():
  points = [[step, float(step % 2)] for step in range(1, 601)]
  thin = jobs_lib.thinned(points)
  assert len(thin) == jobs_lib.POINTS
  assert thin[-1] == [600, 0.5]
  assert jobs_lib.thinned([]) == []


def test_memory_of_a_step_is_read_from_the_log(tmp_path):
  _, (job, *_) = fake_jobs.started("v3plus_table1", tmp_path, seeds=(0,))
  log = job.sibling(".log")
  log.parent.mkdir()
  log.write_text("  memory            0.4 GB needed per device, 8.0 GB free\n")
  assert job.training()["step_memory"] == 0.4e9


def test_the_hardware_is_what_the_training_says(tmp_path):
  experiment = load.load("v3plus_table1")
  job, *_ = results_lib.jobs(experiment, tmp_path)
  assert job.hardware() is None
  job.sibling(".log").parent.mkdir()
  job.sibling(".log").write_text("  devices           8 x NVIDIA H200\n")
  assert job.hardware() == "8 x NVIDIA H200"
  job.sibling(".log").write_text("  devices           1 x cpu\n")
  assert re.fullmatch(r"\d+ x .*\w{3}.*", job.hardware() or "")
