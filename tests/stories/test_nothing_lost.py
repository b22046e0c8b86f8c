"""Whatever ends a run, what it had done is kept; docs/reliability.md.

DEEPLAX_KILLS=20 makes as many kills on each number of devices as that page
tells of; without it there is one in each part of a run.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

from PIL import Image
import pytest

from deeplax import atomic
from deeplax.workdir import lock
from deeplax.workdir import sealed
from tests import commands
from tests import runs
from tests.commands import command
from tests.data import trees

KILLS = int(os.environ.get("DEEPLAX_KILLS", "4"))
# Part of a run -> (function, calls to choose from, seconds to choose from).
PARTS = {
  "step": ("deeplax.parallel:shard", 8, 0.05),
  "save": ("deeplax.workdir.saves:Checkpoints.save", 4, 0.3),
  "evaluation": ("deeplax.inference.evaluate:evaluate", 2, 0.5),
  "report": ("deeplax.workdir.results:write_result", 2, 0.1),
}
EIGHT = (
  *runs.SMALL,
  "--config.train.total_steps=8",
  "--config.train.batch_size=8",
  "--config.checkpoint.every=2",
  "--config.eval.every=4",
  "--config.eval.pictures=2",
)


def left(workdir):
  """What a run leaves, but for times: log lines, evaluations, pictures."""
  log = [
    {k: v for k, v in line.items() if k != "images_per_second"}
    for line in atomic.read_jsonl(workdir / "metrics.jsonl")
  ]
  scores = {p.name: p.read_text() for p in (workdir / "eval").glob("*.json")}
  pictures = {p.name: p.read_bytes() for p in workdir.glob("pictures/*.png")}
  steps = {
    p.name: sealed.miou(workdir, int(p.name))
    for p in (workdir / "checkpoints").iterdir()
  }
  return log, scores, pictures, steps


@pytest.mark.slow  # two runs for each kill
@pytest.mark.parametrize("devices", [1, 8])
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(tmp_path, devices):
  def train(workdir, **keywords):
    return command(
      "main",
      *EIGHT,
      f"--workdir={workdir}",
      short=True,
      XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
      **keywords,
    )

  whole = tmp_path / "whole"
  assert train(whole).returncode == 0
  rng = random.Random(devices)
  for kill in range(KILLS):
    part = list(PARTS)[kill % len(PARTS)]
    function, calls, seconds = PARTS[part]
    workdir = tmp_path / f"{kill}"
    call, after = rng.randint(1, calls), rng.uniform(0, seconds)
    killed = train(workdir, killed_in=function, call=call, after=after)
    while killed.returncode == 0:  # it had ended by then
      shutil.rmtree(workdir)
      after /= 2
      killed = train(workdir, killed_in=function, call=call, after=after)
    where = f"kill {kill}: {part} {call}, after {after:.3f} s"
    assert killed.returncode == -signal.SIGKILL, f"{where}\n{killed.stderr}"
    again = train(workdir)
    assert again.returncode == 0, f"{where}\n{again.stderr[-2000:]}"
    assert "finished" in again.stdout, where
    runs.assert_same_parameters(whole, workdir)
    assert left(workdir) == left(whole), where
    how = [
      line
      for line in again.stdout.splitlines()
      if line.startswith(("resuming", "finished: "))  # only to be evaluated
    ]
    print(where, *(how or ["from the start"]), sep=", ")


def test_a_second_start_is_refused_and_deletes_nothing(trained_copy):
  before = sorted(trained_copy.rglob("*"))
  with lock.held(trained_copy):
    done = command("main", *runs.SMALL, f"--workdir={trained_copy}", short=True)
  assert done.returncode == 2 and "Traceback" not in done.stderr
  assert f"process {os.getpid()} on " in done.stderr
  assert sorted(trained_copy.rglob("*")) == before


@pytest.mark.slow  # two whole processes
def test_of_two_starts_at_once_one_trains(tmp_path):
  command_line = [
    *(sys.executable, "-m", "deeplax.main", *EIGHT),
    f"--workdir={tmp_path / 'run'}",
  ]
  started = [
    subprocess.Popen(
      command_line,
      cwd=commands.ROOT,
      env=commands.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(2)
  ]
  ended = [(*process.communicate(), process.returncode) for process in started]
  ended.sort(key=lambda end: end[2])
  assert [code for *_, code in ended] == [0, 2], ended
  refusal = ended[1][1]
  assert "another process is training in" in refusal
  assert "Traceback" not in refusal
  assert sealed.sound_step(tmp_path / "run") == 8


def own_data(root, *, damage):
  """Own JPEGs; the first of validation is damaged behind its header."""
  trees.folder(root, images=8)
  for path in sorted(root.glob("images/*/*.jpg")):
    Image.open(path).resize((65, 65)).save(path)
  for path in sorted(root.glob("labels/*/*.png")):
    Image.open(path).resize((65, 65), Image.Resampling.NEAREST).save(path)
  broken = root / "images" / "val" / "00.jpg"
  data = broken.read_bytes()
  broken.write_bytes(damage(data))
  return broken, data


@pytest.mark.slow  # trains, and evaluates again
@pytest.mark.parametrize(
  "damage",
  [
    lambda data: data[: len(data) * 2 // 3],
    lambda data: data[:-400] + bytes(400),
  ],
  ids=["cut off", "zeros at its end"],
)
def test_a_broken_validation_picture_costs_no_training(tmp_path, damage):
  broken, whole = own_data(tmp_path / "data", damage=damage)
  arguments = (
    *EIGHT,
    "--config.data.name=folder",
    f"--config.data.root={tmp_path / 'data'}",
    "--config.data.check_images=0",
    f"--workdir={tmp_path / 'run'}",
  )
  done = command("main", *arguments, short=True)
  assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
  assert "step 4 is saved but not evaluated" in done.stdout
  assert "trained to the end and saved, but not evaluated" in done.stderr
  assert str(broken) in done.stderr
  assert sealed.sound_step(tmp_path / "run") == 8
  # The advice: mend that; the same command then evaluates.
  broken.write_bytes(whole)
  again = command("main", *arguments, short=True)
  assert again.returncode == 0, again.stderr
  assert sealed.miou(tmp_path / "run", 8) is not None


@pytest.mark.slow  # trains, stops and goes on
@pytest.mark.parametrize(
  ("number", "name"),
  [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")],
)
@pytest.mark.parametrize("part", ["step", "evaluation"])
def test_a_stop_is_answered_obeyed_and_made_good(tmp_path, part, number, name):
  arguments = (*EIGHT, "--config.data.shapes_eval=400")
  workdir, whole = tmp_path / "run", tmp_path / "whole"
  done = command(
    "main",
    *arguments,
    f"--workdir={workdir}",
    short=True,
    killed_in=PARTS[part][0],
    after=0.5 if part == "evaluation" else 0.0,
    signal_sent=number,
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert any(line.startswith(f"{name}: saving after this") for line in lines)
  assert lines[-1].startswith("stopped at step ")
  assert ": mIoU" not in done.stdout  # the evaluation was left
  assert command(
    "main", *arguments, f"--workdir={workdir}", short=True
  ).returncode == 0  # fmt: skip
  command("main", *arguments, f"--workdir={whole}", short=True)
  runs.assert_same_parameters(whole, workdir)
  assert left(whole)[0] == left(workdir)[0]


@pytest.mark.slow  # a whole process that compiles
@pytest.mark.parametrize("said", ["compiling the", "step 4/8"])
def test_the_answer_waits_for_no_compilation_or_image(tmp_path, said):
  """Prints after how many milliseconds a signal was answered."""
  process = subprocess.Popen(
    [
      *(sys.executable, "-u", "-m", "deeplax.main", *EIGHT),
      "--config.data.shapes_eval=3000",
      f"--workdir={tmp_path / 'run'}",
    ],
    cwd=commands.ROOT,
    env=commands.environment(JAX_ENABLE_COMPILATION_CACHE="false"),
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout is not None
  for line in process.stdout:
    if line.startswith(said):
      break
  time.sleep(1.0)  # into the evaluation, or the compiler
  sent = time.perf_counter()
  process.send_signal(signal.SIGINT)
  answer = process.stdout.readline()
  print(f"{said}: answered after {(time.perf_counter() - sent) * 1e3:.0f} ms")
  assert answer.startswith("Ctrl-C: "), answer
  rest = process.stdout.read()
  print(f"ended after {time.perf_counter() - sent:.1f} s")
  process.stdout.close()
  assert process.wait() == (0 if "saving" in answer else 130), rest


@pytest.mark.skipif(
  not hasattr(os, "geteuid") or os.geteuid() != 0,
  reason="mounts a file system of a few hundred kilobytes, as root",
)
@pytest.mark.slow  # trains on full disks
@pytest.mark.parametrize("kilobytes", [8, 400, 1600, 2200])
def test_a_full_disk_is_told_and_loses_nothing(tmp_path, kilobytes):
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk]
  if subprocess.run(mount, check=False).returncode:
    pytest.skip("this machine mounts no tmpfs")
  try:
    arguments = (*EIGHT, f"--workdir={disk / 'run'}")
    cache = str(tmp_path / "compiled")
    done = command(
      "main", *arguments, short=True, JAX_COMPILATION_CACHE_DIR=cache
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert done.returncode == 2, done.stdout[-1000:]
    assert len(done.stderr.splitlines()) < 6, done.stderr
    step = sealed.sound_step(disk / "run")
    print(f"{kilobytes} kB: kept step {step}: {done.stderr.strip()}")
    # The advice: make room; the same command then goes on.
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    again = command(
      "main", *arguments, short=True, JAX_COMPILATION_CACHE_DIR=cache
    )
    assert again.returncode == 0, again.stderr[-3000:]
    if step:
      assert f"resuming from step {step} of 8" in again.stdout
    assert sealed.miou(disk / "run", 8) is not None
  finally:
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow  # trains until a write fails
@pytest.mark.parametrize(
  ("name", "kept"),
  [
    ("parameters.txt", None),
    ("checkpoints", None),
    ("metrics.jsonl", None),
    ("eval", 4),
    ("pictures", 4),
  ],
)
def test_a_write_that_fails_is_told_and_loses_nothing(tmp_path, name, kept):
  workdir = tmp_path / "run"
  workdir.mkdir()
  # A file where a folder should be, and the other way round, as root too.
  if "." in name:
    (workdir / name).mkdir()
  else:
    (workdir / name).write_text("")
  done = command("main", *EIGHT, f"--workdir={workdir}", short=True)
  assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
  assert str(workdir) in done.stderr and len(done.stderr.splitlines()) < 6
  assert (sealed.sound_step(workdir) if kept else None) == kept
  path = workdir / name
  path.rmdir() if path.is_dir() else path.unlink()
  again = command("main", *EIGHT, f"--workdir={workdir}", short=True)
  assert again.returncode == 0, again.stderr
  assert sealed.miou(workdir, 8) is not None


@pytest.mark.slow  # predicts, trains on and predicts again, for each file
@pytest.mark.parametrize("name", ["config.json", "spec.json"])
def test_a_file_emptied_by_a_power_cut_is_written_anew(trained_copy, name):
  (trained_copy / name).write_text("")
  picture = trained_copy / "picture.png"
  Image.new("RGB", (40, 30)).save(picture)
  flags = (f"--workdir={trained_copy}", f"--out={trained_copy / 'out'}")
  done = command("predict", *flags, picture, short=True)
  assert done.returncode == 2 and "Traceback" not in done.stderr
  assert str(trained_copy / name) in done.stderr
  # The advice: delete it and run the command that trained here again.
  (trained_copy / name).unlink()
  assert "finished" in runs.train(trained_copy).done.stdout
  assert (trained_copy / name).read_text()
  assert command("predict", *flags, picture, short=True).returncode == 0
