"""Running experiments: commands, failures, and what is run again."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import load
from deeplax.ablation import results as results_lib
from deeplax.ablation import running
from experiments import run as run_door
from tests import commands
from tests.ablation import fake_jobs
from tests.ablation import test_load


def dry_run(capsys, *arguments):
  with pytest.raises(SystemExit) as ended:
    run_door.main([*arguments, "--dry_run"])
  assert ended.value.code == 0
  return capsys.readouterr().out.splitlines()


def test_a_dry_run_shows_every_command_and_writes_nothing(capsys, tmp_path):
  lines = dry_run(capsys, "v3plus_table1", f"--out={tmp_path}")
  assert len(lines) == 15  # three seeds
  assert all(
    line.startswith("python -m deeplax.main --config=configs/v3plus_resnet101")
    for line in lines
  )
  assert not list(tmp_path.iterdir())


def test_shards_share_the_trainings_without_overlap(capsys, tmp_path):
  whole = dry_run(capsys, "v3plus_table1", f"--out={tmp_path}")
  shards = [
    dry_run(capsys, "v3plus_table1", f"--out={tmp_path}", f"--shard={i}/4")
    for i in (1, 2, 3, 4)
  ]
  assert sorted(sum(shards, [])) == sorted(whole)


def test_only_some_rows_and_settings_of_all(capsys, tmp_path):
  lines = dry_run(
    capsys, "v3plus_table1", f"--out={tmp_path}", "--seeds=1", "--only",
    "*=8", "*=64", "--set", "data.root=/data", "--steps=50",
  )  # fmt: skip
  assert len(lines) == 2
  assert all("--config.data.root=/data" in line for line in lines)
  assert all("--config.train.total_steps=50" in line for line in lines)


def test_of_a_training_only_the_rows_that_are_asked_for_are_evaluated(
  capsys, tmp_path
):
  given = ("v3plus_table3", f"--out={tmp_path}", "--seeds=0", "--only")
  (train,) = dry_run(capsys, *given, "16-16-decoder")
  assert "deeplax.main" in train
  _, evaluate = dry_run(capsys, *given, "16-16-decoder", "16-8-decoder")
  assert "--output_strides=8 --scales=1.0" in evaluate
  _, evaluate = dry_run(capsys, *given, "output_stride=16,kind=concat")
  assert "--sweep --output_strides=16,8" in evaluate
  moved = ("--set", "data.root=/data")  # since it was trained
  _, evaluate = dry_run(capsys, *given, "output_stride=16,kind=concat", *moved)
  assert evaluate.endswith(" --data_root=/data")


def test_rows_that_cannot_run_are_said(capsys, tmp_path):
  lines = dry_run(capsys, "v3plus_table5", "--data=camvid", f"--out={tmp_path}")
  said = [line for line in lines if line.startswith("#")]
  assert len(said) == 8
  assert sum("JFT-300M" in line for line in said) == 4


def test_a_failed_run_keeps_its_last_lines_and_the_others_still_run(
  monkeypatch, tmp_path, capsys
):
  fake_jobs.fake(monkeypatch, failing=("low_level_channels=16",))
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path, seeds=(0,))
  lines = running.run(experiment, jobs, tmp_path)
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
  ran = fake_jobs.fake(monkeypatch, failing=("low_level_channels=16",))
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path, seeds=(0,))
  first = running.run(experiment, jobs, tmp_path)
  assert len(ran) == 5
  ran.clear()
  again = fake_jobs.fake(monkeypatch)
  second = running.run(experiment, jobs, tmp_path)
  assert again == ["low_level_channels=16-seed0"]
  assert {line["status"] for line in second} == {"finished"}
  kept = [line for line in first if line["status"] == "finished"]
  assert [line for line in second if line in kept] == kept


def test_one_training_gives_all_its_rows(monkeypatch, tmp_path):
  ran = fake_jobs.fake(monkeypatch)
  experiment, jobs = fake_jobs.started("v3plus_table3", tmp_path, seeds=(0,))
  lines = running.run(experiment, jobs, tmp_path)
  assert len(ran) == 4
  assert len(lines) == 14
  assert {line["status"] for line in lines} == {"finished"}


def test_a_report_meanwhile_knows_what_is_running(monkeypatch, tmp_path):
  experiment, (job, *_) = fake_jobs.started(
    "v3plus_table1", tmp_path, seeds=(0,)
  )
  seen = []

  def look(*_, env):
    seen.extend(results_lib.collect(experiment, [job], tmp_path))
    return 1, 0

  monkeypatch.setattr(running, "start", look)
  running.run_job(job)
  assert seen[0]["status"] == "running"


def test_time_of_earlier_attempts_counts(monkeypatch, tmp_path):
  fake_jobs.fake(monkeypatch)
  experiment, jobs = fake_jobs.started("v3plus_table1", tmp_path, seeds=(0,))
  jobs[0].workdir.parent.mkdir(parents=True)
  jobs[0].sibling(".json").write_text('{"seconds": 100.0, "status": "stopped"}')
  (line, *_) = running.run(experiment, jobs[:1], tmp_path)
  assert 100 <= line["seconds"] < 160


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
  running.start(
    [sys.executable, "-c", COMPILED], log, env=running.environment(out)
  )
  wanted = given or tmp_path / "results" / "runs" / "compiled"
  assert log.read_text().splitlines()[-1] == f"programs in {wanted}"
  used = []
  monkeypatch.setattr(
    running, "start", lambda *_, env: used.append(env) or (1, 0)
  )
  _, (job, *_) = fake_jobs.started(
    "v3plus_table1", tmp_path / "results", seeds=(0,)
  )
  running.run_job(job)
  assert used == [running.environment(out)]


@pytest.mark.slow  # 90 s: three networks are compiled, two evaluations run
def test_a_users_own_ablation_runs_from_end_to_end(tmp_path):
  path = tmp_path / "my_ablation.py"
  path.write_text(test_load.OWN)
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


def start_short(command, log, *, env):
  """Run a command with backbones of few layers, as `running.start` does."""
  _, _, module, *arguments = command
  done = commands.command(
    module.removeprefix("deeplax."),
    *arguments,
    short=True,
    JAX_COMPILATION_CACHE_DIR=env["JAX_COMPILATION_CACHE_DIR"],
  )
  with log.open("a") as file:
    file.write(done.stdout + done.stderr)
  return done.returncode, 0


@pytest.mark.slow  # 5 minutes: one cell of every experiment
@pytest.mark.parametrize("name", load.names())
def test_every_experiment_runs_with_debug(name, monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(running, "start", start_short)
  experiment = load.load(f"{name}:debug")
  row = next(
    row
    for row in experiment.rows
    if row.cell and row.cell.config.init.checkpoint is None
  )
  assert row.cell
  # Its own evaluation, and the farthest from it.
  first, *_, last = [row, *experiment.rows_of(row.cell)]
  names = {first.name, last.name}
  with pytest.raises(SystemExit) as ended:
    run_door.main([
      f"{name}:debug", "--seeds=0", f"--out={tmp_path}", "--only", *names,
    ])  # fmt: skip
  assert ended.value.code == 0, capsys.readouterr().out
  finished = [
    line["row"]
    for line in results_lib.read(tmp_path)
    if line["status"] == "finished"
  ]
  assert names <= set(finished)


# In the command itself: a function of Popen's would fork this process, which
# JAX may have given threads.
HEARS_CTRL_C = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("experiments.run", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow  # 40 s: a real command is stopped, by Ctrl-C or a scheduler
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_experiment_goes_on(how, tmp_path):
  command = [
    # A shell's background jobs, which tests may be, ignore Ctrl-C.
    *(sys.executable, "-c", HEARS_CTRL_C, "v3plus_table1:debug"),
    *("--seeds=0", "--only", "*=8", f"--out={tmp_path}"),
  ]
  process = subprocess.Popen(
    command,
    cwd=experiment_lib.ROOT,
    stdout=subprocess.PIPE,
    text=True,
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
