"""A run of several processes: one writer, stopped together, killed, gone on."""

import fnmatch
import json
import shutil
import signal
import time

import pytest

from deeplax.workdir import sealed
from tests import commands
from tests import held
from tests import pod
from tests import runs

pytestmark = pytest.mark.slow  # processes start JAX and compile

STEPS = 12
IMAGES = 7  # four processes do not divide them
RUN = (
  *runs.SMALL,
  "--config.train.batch_size=4",
  f"--config.train.total_steps={STEPS}",
  f"--config.data.shapes_eval={IMAGES}",
  "--config.eval.every=6",
  "--config.checkpoint.every=3",
  "--config.log.every=1",
)
NOTICE = 3.0  # seconds; JAX tells the others of one within about a second


def losses(workdir):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return {line["step"]: line["loss"] for line in lines if "loss" in line}


def told(started, rank):
  """Return the messages of a process; Gloo, which carries sums, talks too."""
  lines = started.said(rank).splitlines()
  return [line for line in lines if line and not line.startswith("[Gloo]")]


@pytest.fixture
def start(tmp_path):
  """Return a function that starts processes, all of which end with the test."""
  pods = []

  def start(count, workdir, *arguments, module="main", **keywords):
    arguments = (*arguments, f"--workdir={workdir}")
    pods.append(
      pod.Pod(tmp_path / f"{len(pods)}", count, module, *arguments, **keywords)
    )
    return pods[-1]

  yield start
  for started in pods:
    started.kill()


@pytest.fixture
def start_held(start, tmp_path):
  """Return a function that starts processes and waits until all are held.

  It takes the function where they are, the number of the call there, and what
  `start` takes; returns the processes and a function that lets them go on.
  """
  files = []

  def start_held(function, call, count, *arguments):
    file = tmp_path / f"go on {len(files)}"
    files.append(file)
    started = start(count, *arguments, **held.at(function, call, file))
    name = function.partition(":")[2]
    for rank in range(count):
      started.wait_for(f"held in {name}", rank)
    return started, file.touch

  return start_held


# With log.every=1 its fifth call comes after the fifth step.
STEP_5 = ("deeplax.training.diagnosis:refuse_steps", 5)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """The run of four processes that nobody stops."""
  folder = tmp_path_factory.mktemp("undisturbed")
  started = pod.Pod(folder, 4, "main", *RUN, f"--workdir={folder / 'run'}")
  assert started.ended() == [0] * 4, started.said(0)[-3000:]
  return folder / "run", started


def test_four_processes_do_what_one_does(undisturbed, start, tmp_path):
  workdir, started = undisturbed
  alone = start(1, tmp_path / "alone", *RUN)
  assert alone.ended() == [0], alone.said(0)[-3000:]
  found, expected = losses(workdir), losses(tmp_path / "alone")
  assert found.keys() == expected.keys() == {*range(1, STEPS + 1)}
  for step in range(1, 6):  # rounding grows from step to step
    assert found[step] == pytest.approx(expected[step], rel=1e-3), step
  # The first process alone talks and writes.
  assert "finished. Next" in started.said(0)
  assert started.written(0, workdir)
  for rank in (1, 2, 3):
    assert not told(started, rank)
    # Orbax's part of a checkpoint that is not finished.
    part = "checkpoints/*.orbax-checkpoint-tmp/*"
    assert not [
      path
      for path in started.written(rank, workdir)
      if not fnmatch.fnmatch(path, part)
    ]
  # Each image once, in each of two evaluations.
  images = [image for rank in range(4) for image in started.evaluated(rank)]
  assert sorted(images) == sorted([*alone.evaluated(0)])
  assert len(images) == 2 * IMAGES == 2 * len({*images})
  assert {len(started.evaluated(rank)) for rank in range(4)} == {2, 4}


def test_scores_of_four_processes_are_those_of_one(undisturbed, tmp_path):
  workdir = shutil.copytree(undisturbed[0], tmp_path / "run")
  (shared,) = (workdir / "eval").glob(f"*{STEPS}*.json")
  expected = json.loads(shared.read_text())
  shutil.rmtree(workdir / "eval")
  done = commands.command("evaluate", f"--workdir={workdir}", short=True)
  assert done.returncode == 0, done.stderr
  (alone,) = (workdir / "eval").glob("*.json")
  found = json.loads(alone.read_text())
  for key in ("confusion_matrix", "miou", "iou", "pixel_accuracy", "images"):
    assert found[key] == expected[key], key


def test_a_notice_to_one_process_saves_and_ends_all(
  undisturbed, start, start_held, tmp_path
):
  workdir = tmp_path / "run"
  started, go_on = start_held(*STEP_5, 4, workdir, *RUN)
  started.send(2, signal.SIGTERM)
  started.send(2, signal.SIGTERM)  # a second notice is the same one
  time.sleep(NOTICE)
  go_on()
  assert started.ended() == [0] * 4, started.said(0)[-3000:]
  assert "the same command goes on from there" in started.said(0)
  again = start(4, workdir, *RUN)
  assert again.ended() == [0] * 4, again.said(0)[-3000:]
  assert "resuming from step" in again.said(0)
  assert losses(workdir) == losses(undisturbed[0])
  runs.assert_same_parameters(workdir, undisturbed[0])


def test_a_notice_in_an_evaluation_ends_it_on_all(start, start_held, tmp_path):
  run = [x.replace(f"eval={IMAGES}", "eval=400") for x in RUN]
  workdir = tmp_path / "run"
  started = start(2, workdir, *run, POD_IMAGE_SECONDS="0.4")
  started.wait_until(lambda: len(started.evaluated(0)) > 1)
  started.send(1, signal.SIGTERM)
  assert started.ended(60) == [0, 0], started.said(0)[-3000:]
  assert "stopped at step 6; the same command" in started.said(0)
  assert len(started.evaluated(0)) < 100
  # Ctrl-C to one, and the run was resumed.
  again = start(2, workdir, *run, POD_IMAGE_SECONDS="0.4")
  again.wait_until(lambda: len(again.evaluated(0)) > 1)
  assert "resuming from step 6" in again.said(0)
  again.send(0, signal.SIGINT)
  assert again.ended(60) == [0, 0], again.said(0)[-3000:]
  assert "Ctrl-C: all processes are told" in again.said(0)
  assert "stopped at step 7" in again.said(0)
  # A notice while the step of a run that goes on is compiled.
  compile_step = "deeplax.training.memory:compile_step"
  third, go_on = start_held(compile_step, 1, 2, workdir, *run)
  third.send(1, signal.SIGTERM)
  time.sleep(NOTICE)
  go_on()
  assert third.ended(90) == [0, 0], third.said(0)[-3000:]
  assert "stopped at step 8" in third.said(0)


def test_when_one_is_killed_the_others_end_with_one_message(
  undisturbed, start, start_held, tmp_path
):
  workdir = tmp_path / "run"
  started, go_on = start_held(*STEP_5, 4, workdir, *RUN)
  started.wait_until((workdir / "checkpoints" / "3" / sealed.SUMS).exists)
  started.send(1, signal.SIGKILL)
  go_on()
  assert started.ended(60) == [2, -signal.SIGKILL, 2, 2]
  for rank in (0, 2, 3):
    start_of_it = f"deeplax: process {rank} of 4 "
    said = [x for x in told(started, rank) if x.startswith(start_of_it)]
    assert said == told(started, rank)[-1:]
    assert "another one has ended or cannot be reached" in said[0]
  # Two processes of two devices go on, and one is killed in an evaluation.
  again = start(2, workdir, *RUN, devices=2, POD_IMAGE_SECONDS="1")
  again.wait_until(lambda: bool(again.evaluated(0)))
  again.wait_until((workdir / "checkpoints" / "6" / sealed.SUMS).exists)
  assert "resuming from step 3" in again.said(0)
  again.send(1, signal.SIGKILL)
  assert again.ended(60) == [2, -signal.SIGKILL]
  assert "another one has ended" in told(again, 0)[-1]
  # One goes on: the same losses to rounding.
  last = start(1, workdir, *RUN)
  assert last.ended() == [0], last.said(0)[-3000:]
  assert "resuming from step 6" in last.said(0)
  expected, found = losses(undisturbed[0]), losses(workdir)
  assert found.keys() == expected.keys()
  for step in (4, 5, 6):
    assert found[step] == pytest.approx(expected[step], rel=1e-3), step


def test_when_the_first_is_killed_the_others_end(start_held, tmp_path):
  started, go_on = start_held(*STEP_5, 2, tmp_path / "run", *RUN)
  started.send(0, signal.SIGKILL)
  go_on()
  first, second = started.ended(60)
  assert first == -signal.SIGKILL and second not in (0, None)


def test_one_that_answers_no_more_is_given_up(start_held, tmp_path):
  started, go_on = start_held(*STEP_5, 2, tmp_path / "run", *RUN)
  started.send(1, signal.SIGSTOP)
  go_on()
  # It holds its connections: after 30 s of silence JAX ends the others.
  assert started.processes[0].wait(60) == -signal.SIGABRT
  assert "stopped sending heartbeats" in started.said(0)
