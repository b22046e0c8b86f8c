"""Experiments: what is run, what is run again, and what stays of failures."""

import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from deeplax import atomic
from deeplax import errors
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import jobs as jobs_lib
from deeplax.ablation import results as results_lib
from experiments import run
from tests.ablation import test_experiment

# What the commands of a job do here in place of training and evaluating.
TRAIN = """
import json, pathlib, sys
workdir, config = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
print("training", flush=True)
(workdir / "eval").mkdir(parents=True, exist_ok=True)
(workdir / "config.json").write_text(sys.argv[2])
(workdir / "env.json").write_text(
  '{"commit": "abc", "devices": ["TFRT_CPU_0"]}')
step = config["train"]["total_steps"]
lines = [dict(step=s, loss=1 / s, images_per_second=4.0) for s in (1, 2, 3)]
lines.append(dict(step=3, miou=0.25))
(workdir / "metrics.jsonl").write_text(
  "".join(json.dumps(line) + chr(10) for line in lines))
"""
EVALUATE = """
miou = float(sys.argv[3])
for stride, scales, flip, crf in json.loads(sys.argv[4]):
  name = f"val-os{stride}-s{scales}-{flip}-{crf}.json"
  classes = {"car": miou, "road": 2 * miou}
  result = dict(miou=miou, iou=classes, pixel_accuracy=miou, step=step,
    output_stride=stride, scales=scales, flip=flip, images=4, split_images=4,
    split=config["data"]["eval_split"], init="random", crf={"w1": 1} if crf
    else None, trimap_kind="void", trimap={"1": miou, "5": miou},
    trimap_accuracy={"1": miou, "5": miou}, boundary_f=miou)
  (workdir / "eval" / name).write_text(json.dumps(result))
  miou += 0.01
"""
FAIL = """
print("deeplax: no luck today")
raise SystemExit(2)
"""
PLAIN = (16, (1.0,), False, False)


def fake(monkeypatch, failing=()):
  """Make jobs' commands take no time; return the names of what was run."""
  ran = []

  def commands(self, *, all_of_them=True):
    how = [row.evaluation for row in self.rows]
    if not all_of_them:
      ran.append(self.name)
    code = TRAIN + EVALUATE
    if self.cell.name in failing:
      code = TRAIN + FAIL
    miou = 0.5 + 0.02 * self.seed
    return [
      [sys.executable, "-c", code, str(self.workdir)]
      + [self.config_json(), str(miou), json.dumps(how)]
    ]

  def config_json(self):
    config = json.loads(self.cell.config.to_json())
    return json.dumps(config | {"seed": self.seed})

  monkeypatch.setattr(jobs_lib.Job, "commands", commands)
  monkeypatch.setattr(jobs_lib.Job, "config_json", config_json, raising=False)
  return ran


def started(name, out, seeds=(0, 1), **settings):
  experiment = experiment_lib.load(name, **settings)
  return experiment, results_lib.jobs(experiment, out, seeds=seeds)


def test_a_failed_run_keeps_its_last_lines_and_the_others_still_run(
  monkeypatch, tmp_path, capsys
):
  fake(monkeypatch, failing=("low_level_channels=16",))
  experiment, jobs = started("v3plus_table1", tmp_path, seeds=(0,))
  lines = run.run(experiment, jobs, tmp_path)
  assert [line["status"] for line in lines] == [
    *("finished", "failed", "finished", "finished", "finished"),
  ]
  assert [line.get("miou") for line in lines] == [0.5, None, 0.5, 0.5, 0.5]
  assert lines[1]["log_tail"][-1] == "deeplax: no luck today"
  assert lines[0]["log_tail"] == []
  assert results_lib.read(tmp_path) == lines
  assert (lines[0]["commit"], lines[0]["paper"]) == ("abc", 77.61)
  assert lines[0]["workdir"] == "runs/low_level_channels=8-seed0"
  assert lines[0]["train_images_per_second"] == 4.0
  assert lines[0]["host_memory"] > 1e6
  assert lines[0]["curve"]["loss"][0] == [1, 1.0]
  said = capsys.readouterr().out
  assert "[2/5]" in said and "no luck today" in said


def test_a_second_run_leaves_what_is_done_alone(monkeypatch, tmp_path):
  ran = fake(monkeypatch, failing=("low_level_channels=16",))
  experiment, jobs = started("v3plus_table1", tmp_path)
  first = run.run(experiment, jobs, tmp_path)
  assert len(ran) == 10
  ran.clear()
  fake(monkeypatch)
  again = fake(monkeypatch)
  second = run.run(experiment, jobs, tmp_path)
  assert again == [f"low_level_channels=16-seed{seed}" for seed in (0, 1)]
  assert {line["status"] for line in second} == {"finished"}
  kept = [line for line in first if line["status"] == "finished"]
  assert [line for line in second if line in kept] == kept


def test_the_first_seed_of_all_rows_comes_before_the_second(tmp_path):
  _, jobs = started("v3plus_table1", tmp_path)
  assert [job.seed for job in jobs] == [0] * 5 + [1] * 5


def test_one_training_gives_all_its_rows(monkeypatch, tmp_path):
  ran = fake(monkeypatch)
  experiment, jobs = started("v3plus_table3", tmp_path, seeds=(0,))
  lines = run.run(experiment, jobs, tmp_path)
  assert len(ran) == 4
  assert len(lines) == 14
  assert {line["status"] for line in lines} == {"finished"}


def test_only_what_is_missing_is_run(monkeypatch, tmp_path):
  experiment, (job, *_) = started("v3plus_table3", tmp_path, seeds=(0,))
  whole = job.commands(all_of_them=False)
  assert len(whole) == 2
  fake(monkeypatch)
  own = jobs_lib.own_evaluation(job.cell)
  command = job.commands()[0]
  command[-1] = json.dumps([own])
  subprocess.run(command, check=True)
  monkeypatch.undo()
  # Stopped between its last evaluation and its last checkpoint.
  assert job.commands(all_of_them=False) == whole
  (job.workdir / "checkpoints" / "30000").mkdir(parents=True)
  # The training is done: the evaluations alone are left.
  assert job.commands(all_of_them=False) == whole[1:]
  assert job.commands() == whole


def test_an_evaluation_without_what_is_measured_is_made_again(tmp_path):
  _, (job, *_) = started("crf_on_off", tmp_path, seeds=(0,))
  train, first, second = job.commands()
  assert "--trimap=1,2,5,10,20,30,40" in first and "--crf" not in first
  assert "--boundary" in second and "--crf" in second


def test_a_workdir_of_other_settings_is_not_taken_for_a_result(
  monkeypatch, tmp_path
):
  fake(monkeypatch)
  experiment, jobs = started("v3plus_table1", tmp_path, seeds=(0,))
  run.run(experiment, jobs[:1], tmp_path)
  path = jobs[0].workdir / "config.json"
  config = json.loads(path.read_text())
  config["model"]["decoder"]["convs"] = 2
  path.write_text(json.dumps(config))
  with pytest.raises(errors.InputError, match="convs=2"):
    run.run(experiment, jobs[:1], tmp_path)


def test_a_workdir_of_settings_that_are_no_longer_asked_for_is_refused(
  monkeypatch, tmp_path
):
  fake(monkeypatch)
  flags = ("optim.base_lr=0.2", "log.every=7")
  experiment, jobs = started("v3plus_table1", tmp_path, (0,), flags=flags)
  run.run(experiment, jobs[:1], tmp_path)
  experiment, jobs = started("v3plus_table1", tmp_path, (0,), flags=flags[:1])
  assert jobs[0].trained()  # how often it logs is no matter
  experiment, jobs = started("v3plus_table1", tmp_path, (0,))
  with pytest.raises(errors.InputError, match="base_lr=0.2, this .* has 0.007"):
    run.run(experiment, jobs[:1], tmp_path)


@pytest.mark.parametrize(
  "other",
  [{"sizes": "exact"}, {"window": [513, 128]}, {"trimap": {"3": 0.5}},
   {"boundary_f": None}],
)  # fmt: skip
def test_what_someone_has_evaluated_otherwise_is_no_result(
  other, monkeypatch, tmp_path
):
  fake(monkeypatch)
  measure = ("--trimap=5,1", "--boundary")
  _, (job, *_) = started("v3plus_table1", tmp_path, seeds=(0,))
  job = dataclasses.replace(job, measure=measure)
  run.run_job(job)
  assert job.result(job.rows[0])
  (path,) = (job.workdir / "eval").iterdir()
  result = json.loads(path.read_text()) | other
  path.write_text(json.dumps({k: v for k, v in result.items() if v}))
  assert job.result(job.rows[0]) is None


def test_part_of_a_split_is_evaluated_alike_by_all_rows(monkeypatch, tmp_path):
  flags = ("eval.max_images=2",)
  _, (job, *_) = started("v3plus_table3", tmp_path, (0,), flags=flags)
  assert job.commands()[1][-1] == "--max_images=2"


def test_weights_are_converted_once_for_a_seed_and_known_to_a_report(
  monkeypatch, tmp_path
):
  experiment = experiment_lib.load("v3plus_table1")
  first, *_, last = results_lib.jobs(
    experiment, tmp_path, seeds=(0, 1), weights="tf_deeplab:a.ckpt"
  )
  convert, train = first.commands(all_of_them=False)
  assert "--config.seed=0" in convert
  # Layers that the weights lack are drawn, by the seed.
  assert convert[-1].endswith("low_level_channels=8-seed0-start")
  assert last.commands()[0][-1].endswith("low_level_channels=64-seed1-start")
  monkeypatch.setattr(run, "start", lambda *_, env: (1, 0))
  run.run_job(first)
  (first.beside("-start") / "checkpoints" / "0").mkdir(parents=True)
  assert first.commands(all_of_them=False) == [train]
  line, *_ = results_lib.collect(
    experiment, results_lib.jobs(experiment, tmp_path, seeds=(0,)), tmp_path
  )
  assert "deeplax.convert --source=tf_deeplab" in line["commands"][0]


def test_a_report_meanwhile_knows_what_is_running(monkeypatch, tmp_path):
  experiment, (job, *_) = started("v3plus_table1", tmp_path, seeds=(0,))
  seen = []

  def look(*_, env):
    seen.extend(results_lib.collect(experiment, [job], tmp_path))
    return 1, 0

  monkeypatch.setattr(run, "start", look)
  run.run_job(job)
  assert seen[0]["status"] == "running"


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
  fake(monkeypatch)
  experiment, jobs = started("v3plus_table1", tmp_path, seeds=(0,))
  run.run(experiment, jobs[0::2], tmp_path, others=jobs)
  lines = run.run(experiment, jobs[1::2], tmp_path, others=jobs)
  assert [line["status"] for line in lines] == ["finished"] * 5


def test_results_stay_when_the_workdirs_are_gone(monkeypatch, tmp_path):
  fake(monkeypatch)
  experiment, jobs = started("v3plus_table1", tmp_path)
  lines = run.run(experiment, jobs, tmp_path)
  (tmp_path / "runs").rename(tmp_path / "elsewhere")
  assert results_lib.collect(experiment, jobs, tmp_path) == lines
  # Nor when fewer seeds are asked for.
  assert results_lib.collect(experiment, jobs[:5], tmp_path) == lines


def test_results_stay_when_only_records_are_left(monkeypatch, tmp_path):
  fake(monkeypatch)
  experiment, jobs = started("v3plus_table1", tmp_path, seeds=(0,))
  lines = run.run(experiment, jobs, tmp_path)
  for job in jobs:
    shutil.rmtree(job.workdir)
  assert results_lib.collect(experiment, jobs, tmp_path) == lines
  (tmp_path / results_lib.FILE).unlink()
  lines = results_lib.collect(experiment, jobs, tmp_path)
  assert {line["status"] for line in lines} == {"not run"}


def test_results_of_another_length_are_not_mixed(monkeypatch, tmp_path):
  fake(monkeypatch)
  experiment, jobs = started("v3plus_table1", tmp_path, (0,), steps=20)
  run.run(experiment, jobs, tmp_path)
  (tmp_path / "runs").rename(tmp_path / "elsewhere")
  experiment, jobs = started("v3plus_table1", tmp_path, (0,))
  with pytest.raises(errors.InputError, match="20 steps, this .* of 30000"):
    results_lib.collect(experiment, jobs, tmp_path)


def test_time_of_earlier_attempts_counts(monkeypatch, tmp_path):
  fake(monkeypatch)
  experiment, jobs = started("v3plus_table1", tmp_path, seeds=(0,))
  jobs[0].workdir.parent.mkdir(parents=True)
  jobs[0].beside(".json").write_text('{"seconds": 100.0, "status": "stopped"}')
  (line, *_) = run.run(experiment, jobs[:1], tmp_path)
  assert 100 < line["seconds"] < 160


def test_a_long_curve_is_thinned_by_means():
  points = [[step, float(step % 2)] for step in range(1, 601)]
  thin = jobs_lib.thinned(points)
  assert len(thin) == jobs_lib.POINTS
  assert thin[-1] == [600, 0.5]
  assert jobs_lib.thinned([]) == []


def test_memory_of_a_step_is_read_from_the_log(tmp_path):
  _, (job, *_) = started("v3plus_table1", tmp_path, seeds=(0,))
  log = job.beside(".log")
  log.parent.mkdir()
  log.write_text("  memory            0.4 GB needed per device, 8.0 GB free\n")
  assert job.training()["step_memory"] == 0.4e9


COMPILED = """
import os
print("programs in", os.environ["JAX_COMPILATION_CACHE_DIR"])
"""


@pytest.fixture(params=[None, "elsewhere"])
def given(request):
  """Where JAX has been told to keep compiled programs, if anywhere."""
  before = jax.config.values["jax_compilation_cache_dir"]
  jax.config.update("jax_compilation_cache_dir", request.param)
  yield request.param
  jax.config.update("jax_compilation_cache_dir", before)


def test_all_trainings_share_compiled_programs_where_jax_has_no_other_place(
  given, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  log = tmp_path / "log"
  out = pathlib.Path("results")
  run.start([sys.executable, "-c", COMPILED], log, env=run.environment(out))
  wanted = given or tmp_path / "results" / "runs" / "compiled"
  assert log.read_text().splitlines()[-1] == f"programs in {wanted}"
  used = []
  monkeypatch.setattr(run, "start", lambda *_, env: used.append(env) or (1, 0))
  _, (job, *_) = started("v3plus_table1", tmp_path / "results", seeds=(0,))
  run.run_job(job)
  assert used == [run.environment(out)]


def test_mean_and_deviation_of_seeds_are_the_plain_ones():
  mean, deviation = results_lib.mean_std([1.0, 2.0, 4.0])
  assert mean == pytest.approx(7 / 3)
  assert deviation == pytest.approx((14 / 9 * 3 / 2) ** 0.5)
  assert str(results_lib.mean_std([])) == "(nan, nan)"


@pytest.mark.slow  # 90 s: three networks are compiled, two evaluations run
def test_a_users_own_ablation_runs_from_end_to_end(tmp_path):
  path = tmp_path / "my_ablation.py"
  path.write_text(test_experiment.OWN)
  arguments = [f"{path}:debug", "--seeds=0", f"--out={tmp_path}"]
  for module in ("experiments.run", "experiments.report"):
    subprocess.run(
      [sys.executable, "-m", module, *arguments],
      cwd=experiment_lib.ROOT,
      check=True,
    )
  lines = results_lib.read(tmp_path)
  assert [line["status"] for line in lines] == ["finished"] * 4
  assert all(0 <= line["miou"] <= 1 for line in lines)
  for file in ("report.html", "table.md", "report.csv"):
    assert (tmp_path / file).stat().st_size > 300


@pytest.mark.slow  # 15 minutes: one cell of every experiment
@pytest.mark.parametrize("name", experiment_lib.names())
def test_every_experiment_runs_with_debug(name, tmp_path):
  experiment = experiment_lib.load(f"{name}:debug")
  row = next(
    row
    for row in experiment.rows
    if row.cell and row.cell.config.init.checkpoint is None
  )
  assert row.cell
  done = subprocess.run(
    [sys.executable, "-m", "experiments.run", f"{name}:debug", "--seeds=0",
     f"--out={tmp_path}", "--only", row.cell.name],
    cwd=experiment_lib.ROOT, check=False, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout
  finished = [
    line["row"]
    for line in results_lib.read(tmp_path)
    if line["status"] == "finished"
  ]
  assert {r.name for r in experiment.rows_of(row.cell)} <= set(finished)


@pytest.mark.slow  # 40 s: a real command is stopped, by Ctrl-C or a scheduler
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_experiment_goes_on(how, tmp_path):
  command = [
    *(sys.executable, "-m", "experiments.run", "v3plus_table1:debug"),
    *("--seeds=0", "--only", "*=8", f"--out={tmp_path}"),
  ]
  process = subprocess.Popen(
    command,
    cwd=experiment_lib.ROOT,
    stdout=subprocess.PIPE,
    text=True,
    # A shell's background jobs, which tests may be, ignore Ctrl-C.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  record = pathlib.Path(tmp_path) / "runs" / "low_level_channels=8-seed0.json"
  log = record.with_suffix(".log")
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    if log.exists() and "compiling" in log.read_text():
      break
    time.sleep(0.2)
  process.send_signal(how)
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 130
  assert "goes on" in said
  assert json.loads(record.read_text())["status"] == "stopped"
  subprocess.run(command, cwd=experiment_lib.ROOT, check=True)
  assert results_lib.read(tmp_path)[0]["status"] == "finished"
