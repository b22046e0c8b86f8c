"""Kills, stops and failures while a checkpoint is written in the background."""

import errno
import json
import os
import signal

import pytest

from deeplax.workdir import sealed
from tests import held
from tests import pod
from tests import runs

pytestmark = pytest.mark.slow  # processes start JAX and compile

STEPS = 12
RUN = (
  *runs.SMALL,
  "--config.train.batch_size=4",
  f"--config.train.total_steps={STEPS}",
  "--config.checkpoint.every=3",
  "--config.log.every=1",
)


def losses(workdir):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """Return number of processes -> the run that nobody stops."""
  made = {}

  def run(count):
    if count not in made:
      folder = tmp_path_factory.mktemp(f"undisturbed{count}")
      finish(folder, count, folder / "run")
      made[count] = folder / "run"
    return made[count]

  return run


def finish(folder, count, workdir):
  """Train to the end, and return what the first process said."""
  started = pod.Pod(folder, count, "main", *RUN, f"--workdir={workdir}")
  assert started.ended() == [0] * count, started.said(0)[-3000:]
  return started.said(0)


def assert_same_run(workdir, other):
  assert losses(workdir) == losses(other)
  runs.assert_same_parameters(workdir, other)


@pytest.fixture
def second_save(tmp_path, monkeypatch):
  """Hold commands before they seal step 6; the file that lets them go on."""
  file = tmp_path / "go on"
  for name, value in held.at("deeplax.workdir.sealed:seal", 2, file).items():
    monkeypatch.setenv(name, value)
  yield file
  file.touch()


@pytest.mark.parametrize(
  ("count", "killed", "others"), [(1, 0, []), (2, 1, [2]), (2, 0, None)]
)
def test_a_process_killed_in_a_save_costs_that_checkpoint_alone(
  tmp_path, monkeypatch, second_save, undisturbed, count, killed, others
):
  workdir = tmp_path / "run"
  started = pod.Pod(tmp_path / "1", count, "main", *RUN, f"--workdir={workdir}")
  try:
    started.wait_for("held in seal")
    started.wait_for("step 8/")  # training goes on meanwhile
    assert (workdir / "checkpoints" / "6").is_dir()
    assert sealed.sound_step(workdir) == 3
    started.send(killed, signal.SIGKILL)
    if killed:
      second_save.touch()
  finally:
    ended = started.ended(90)
  assert ended[killed] == -signal.SIGKILL
  # Without the first process JAX itself ends the others.
  assert all(status != 0 for status in ended)
  if others:
    assert [s for r, s in enumerate(ended) if r != killed] == others
    assert "Traceback" not in started.said(0)
    assert "another one has ended or cannot be reached" in started.said(0)
  monkeypatch.delenv(held.VARIABLE)
  # What the first process had sealed by then, if it was not the one killed.
  left = sealed.sound_step(workdir)
  assert left in ((3, 6) if killed else (3,))
  said = finish(tmp_path / "2", count, workdir)
  assert f"resuming from step {left} of {STEPS}" in said
  assert_same_run(workdir, undisturbed(count))


@pytest.mark.parametrize("count", [1, 2])
def test_a_stop_during_a_save_keeps_both_steps(
  tmp_path, monkeypatch, second_save, undisturbed, count
):
  workdir = tmp_path / "run"
  started = pod.Pod(tmp_path / "1", count, "main", *RUN, f"--workdir={workdir}")
  try:
    started.wait_for("held in seal")
    started.send(count - 1, signal.SIGTERM)
    started.wait_for("waiting until a checkpoint is in")
    second_save.touch()
  finally:
    ended = started.ended(90)
  assert ended == [0] * count, started.said(0)[-3000:]
  stopped = sealed.sound_step(workdir)
  assert stopped is not None and stopped > 6
  assert f"stopped at step {stopped}" in started.said(0)
  monkeypatch.delenv(held.VARIABLE)
  assert f"resuming from step {stopped}" in finish(
    tmp_path / "2", count, workdir
  )
  assert_same_run(workdir, undisturbed(count))


def test_a_seal_that_fails_ends_all_processes_with_one_message(
  tmp_path, second_save, monkeypatch
):
  workdir = tmp_path / "run"
  started = pod.Pod(tmp_path / "1", 2, "main", *RUN, f"--workdir={workdir}")
  try:
    started.wait_for("held in seal")
    # A folder where the seal should be: unwritable for root as well.
    (workdir / "checkpoints" / "6" / sealed.SUMS).mkdir()
    second_save.touch()
  finally:
    ended = started.ended(90)
  assert ended == [2, 2], started.said(0)[-3000:]
  # All agree on it, and the first one tells it.
  told = [x for x in started.said(0).splitlines() if " could not be saved" in x]
  assert len(told) == 1 and "step 6 could not be saved in " in told[0]
  assert "could not be saved" not in started.said(1)
  for rank in range(2):
    assert "Traceback" not in started.said(rank)
    assert "another one has ended" not in started.said(rank)
  os.rmdir(workdir / "checkpoints" / "6" / sealed.SUMS)
  assert sealed.sound_step(workdir) == 3


@pytest.mark.parametrize("full", [0, 1])
def test_a_disk_full_for_one_process_ends_all_with_its_reason(
  tmp_path, monkeypatch, full
):
  workdir = tmp_path / "run"
  writes = "orbax.checkpoint._src.serialization.jax_array_handlers"
  writes += ":_async_serialize_replica_slices"  # once in each save
  for name, value in held.full(writes, 2, full).items():
    monkeypatch.setenv(name, value)
  started = pod.Pod(tmp_path / "1", 2, "main", *RUN, f"--workdir={workdir}")
  ended = started.ended(120)
  assert ended == [2, 2], started.said(0)[-3000:]
  told = [x for x in started.said(0).splitlines() if " could not be saved" in x]
  assert len(told) == 1 and "step 6 could not be saved in " in told[0]
  assert os.strerror(errno.ENOSPC) in told[0]
  assert ("process 1 of 2" in told[0]) == (full == 1)
  assert "could not be saved" not in started.said(1)
  assert sealed.sound_step(workdir) == 3
