"""Saving while a run goes on: what is written, in which order, what is told."""

import asyncio
import errno
import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
from orbax.checkpoint._src.serialization import jax_array_handlers
import pytest

from deeplax import errors
from deeplax import parallel
from deeplax.training import state as state_lib
from deeplax.workdir import saves
from deeplax.workdir import sealed

LIMIT = 10  # seconds, for what would otherwise wait for ever


def state_of(value):
  """Return a state whose parameters are 1.5 MB of one value."""
  variables = {"params": {"conv": {"kernel": jnp.full((600, 600), value)}}}
  state = state_lib.create(variables, optax.sgd(0.1), seed=7)
  return parallel.replicate(state, mesh=parallel.mesh())


def steps_in(folder):
  names = [path.name for path in (folder / "checkpoints").iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


class Gate:
  """Holds a function's calls until it is opened."""

  def __init__(self):
    self.open, self.reached = threading.Event(), threading.Event()

  def wait(self, *_):
    self.reached.set()
    assert self.open.wait(LIMIT)


@pytest.fixture
def writing(monkeypatch):
  """A gate before Orbax writes arrays."""
  gate, write = Gate(), jax_array_handlers._async_serialize_replica_slices

  async def held(*args, **keywords):
    await asyncio.to_thread(gate.wait)
    return await write(*args, **keywords)

  monkeypatch.setattr(
    jax_array_handlers, "_async_serialize_replica_slices", held
  )
  yield gate
  gate.open.set()


@pytest.fixture
def sealing(monkeypatch):
  """A gate before a written checkpoint is sealed."""
  gate, seal = Gate(), sealed.seal

  def held(folder):
    gate.wait()
    seal(folder)

  monkeypatch.setattr(sealed, "seal", held)
  yield gate
  gate.open.set()


def test_what_is_saved_is_the_step_saved_however_far_training_went_on(
  tmp_path, writing
):
  step = jax.jit(
    lambda state: jax.tree.map(lambda x: x * 3 + 1, state), donate_argnums=0
  )
  state, position = step(state_of(0.1)), {"next_index": 8}
  expected = jax.tree.map(lambda x: np.array(x, copy=True), state)
  with saves.Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(1, state, position)
    for _ in range(5):
      state = jax.block_until_ready(step(state))
    position["next_index"] = 48
    assert not steps_in(tmp_path)
    writing.open.set()

  class Iterator:
    def set_state(self, state):
      self.state = state

  iterator = Iterator()
  with saves.Checkpoints(tmp_path, keep=2) as checkpoints:
    everywhere = parallel.replicated(parallel.mesh())
    found = checkpoints.restore(1, state, iterator, sharding=everywhere)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  assert iterator.state == {"next_index": 8}


def test_a_checkpoint_counts_once_it_is_sealed_and_older_ones_go_then(
  tmp_path, sealing
):
  with saves.Checkpoints(tmp_path, keep=1) as checkpoints:
    sealing.open.set()
    checkpoints.save(1, state_of(1.0), {"next_index": 1})
    checkpoints.settle()
    sealing.open.clear()
    sealing.reached.clear()
    checkpoints.save(2, state_of(2.0), {"next_index": 2})
    assert sealing.reached.wait(LIMIT)
    # Evaluated before it is sealed.
    checkpoints.score(2, 0.5)
    assert checkpoints.scored(2)
    assert steps_in(tmp_path) == [1, 2]
    assert sealed.sound_step(tmp_path) == 1
    assert sealed.miou(tmp_path, 2) is None
    sealing.open.set()
  assert steps_in(tmp_path) == [2]
  assert sealed.sound_step(tmp_path) == 2
  assert sealed.miou(tmp_path, 2) == 0.5


def full(folder):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


CALLS = {
  "save": lambda c: c.save(3, state_of(3.0), {"next_index": 3}),
  "score": lambda c: c.score(2, 0.5),
  "settle": lambda c: c.settle(),
  "close": lambda c: c.close(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_failure_is_told_once_by_whatever_comes_next(
  tmp_path, monkeypatch, call
):
  checkpoints = saves.Checkpoints(tmp_path, keep=1)
  checkpoints.save(1, state_of(1.0), {"next_index": 1})
  checkpoints.settle()
  with monkeypatch.context() as patch:
    patch.setattr(sealed, "seal", full)
    checkpoints.save(2, state_of(2.0), {"next_index": 2})
    _, work = checkpoints._unfinished[0]
    assert isinstance(work.exception(LIMIT), OSError)
  with pytest.raises(errors.InputError) as told:
    CALLS[call](checkpoints)
  assert str(told.value).startswith(
    f"step 2 could not be saved in {tmp_path / 'checkpoints'} (No space left "
    "on device). Make room there"
  )
  checkpoints.close()  # once told, it is told no more
  assert steps_in(tmp_path) == [1, 2]
  assert sealed.sound_step(tmp_path) == 1


def test_orbaxs_own_failure_is_one_message_too(tmp_path, monkeypatch, capfd):
  async def failing(*args, **keywords):
    raise ValueError("INTERNAL: Error writing: No space left on device [more]")

  name = "_async_serialize_replica_slices"
  monkeypatch.setattr(jax_array_handlers, name, failing)
  with pytest.raises(errors.InputError) as told:
    with saves.Checkpoints(tmp_path, keep=1) as checkpoints:
      checkpoints.save(1, state_of(1.0), {"next_index": 1})
      checkpoints.score(1, 0.5)
  assert str(told.value).startswith(
    f"step 1 could not be saved in {tmp_path / 'checkpoints'} (No space left "
    "on device). Make room there"
  )
  assert not steps_in(tmp_path)
  assert "Traceback" not in capfd.readouterr().err


def test_a_score_that_cannot_be_written_is_told(tmp_path, monkeypatch):
  monkeypatch.setattr(sealed, "write_score", lambda folder, miou: full(folder))
  with pytest.raises(errors.InputError, match="the score of step 1 could not"):
    with saves.Checkpoints(tmp_path, keep=1) as checkpoints:
      checkpoints.save(1, state_of(1.0), {"next_index": 1})
      checkpoints.score(1, 0.5)
  assert sealed.sound_step(tmp_path) == 1


def test_a_long_wait_is_told_once(tmp_path, monkeypatch, sealing):
  monkeypatch.setattr(saves, "PATIENCE", 0.01)
  said = []

  def progress(line):
    said.append(line)
    threading.Timer(0.2, sealing.open.set).start()

  with saves.Checkpoints(tmp_path, keep=1, progress=progress) as checkpoints:
    checkpoints.save(1, state_of(1.0), {"next_index": 1})
  assert said == [
    f"waiting until a checkpoint is in {tmp_path / 'checkpoints'}"
  ]
  assert sealed.sound_step(tmp_path) == 1


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
  left = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp" / "state"
  left.mkdir(parents=True)
  with saves.Checkpoints(tmp_path, keep=1) as checkpoints:
    checkpoints.save(7, state_of(1.0), {"next_index": 1})
  assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["7"]


def test_a_damaged_step_that_is_trained_again_is_evaluated_again(tmp_path):
  with saves.Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.save(1, state_of(1.0), {"next_index": 1})
    checkpoints.save(2, state_of(2.0), {"next_index": 2})
    checkpoints.score(2, 0.5)
  (tmp_path / "checkpoints" / "2" / sealed.SUMS).unlink()
  with saves.Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.discard_damaged(after=1)
    assert not checkpoints.scored(2)


def test_the_error_that_ended_a_run_is_not_hidden_by_one_of_saving(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(sealed, "seal", full)
  said = []
  with pytest.raises(errors.InputError, match="the loss is nan"):
    with saves.Checkpoints(tmp_path, keep=1, progress=said.append) as written:
      written.save(1, state_of(1.0), {"next_index": 1})
      raise errors.InputError("the loss is nan")
  (line,) = said
  assert "step 1 could not be saved" in line


def test_what_all_processes_have_written_is_sealed_when_one_is_lost(
  tmp_path, monkeypatch, sealing
):
  with pytest.raises(RuntimeError, match="connection closed"):
    with saves.Checkpoints(tmp_path, keep=1) as checkpoints:
      checkpoints.save(1, state_of(1.0), {"next_index": 1})
      assert sealing.reached.wait(LIMIT)
      monkeypatch.setattr(jax, "process_count", lambda: 2)
      threading.Timer(0.2, sealing.open.set).start()
      raise RuntimeError("connection closed")
  assert sealed.sound_step(tmp_path) == 1


def test_nothing_waits_for_parts_that_another_process_cannot_write(
  tmp_path, monkeypatch, writing
):
  def refuse(work):
    work()
    raise parallel.Told("process 1 of 2: no space left")

  with pytest.raises(parallel.Told):
    with saves.Checkpoints(tmp_path, keep=1) as checkpoints:
      checkpoints.save(1, state_of(1.0), {"next_index": 1})
      monkeypatch.setattr(saves, "PATIENCE", 0.01)
      monkeypatch.setattr(parallel, "agreed", refuse)
      monkeypatch.setattr(jax, "process_count", lambda: 2)
      checkpoints.settle()
  assert sealed.sound_step(tmp_path) is None
