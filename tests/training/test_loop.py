"""What is kept when something goes wrong in or after a step."""

from collections.abc import Callable, Iterator
import math
import threading
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplax import atomic
from deeplax import errors
from deeplax import parallel
from deeplax.inference import evaluate
from deeplax.settings import defaults
from deeplax.training import log as log_lib
from deeplax.training import loop
from deeplax.training import memory
from deeplax.training import parts as parts_lib
from deeplax.training import profile as profile_lib
from deeplax.training import scores as scores_lib
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from deeplax.workdir import checkpoint
from deeplax.workdir import saves
from deeplax.workdir import sealed


def test_periodic_things_happen_on_time_and_at_the_end():
  assert [s for s in range(1, 8) if loop.due(s, 3, 7)] == [3, 6, 7]
  assert [s for s in range(1, 8) if loop.due(s, 0, 7)] == [7]


NONE: Any = None
PARTS = parts_lib.Parts(
  train_source=NONE,
  eval_source=NONE,
  model=NONE,
  loss=NONE,
  lr=lambda step: 0.1,
  tx=NONE,
  batches=NONE,
  measure=NONE,
  mesh=NONE,
)


def accept(values, first):
  del values, first


class Batches(Iterator):
  """Endless batches; the state is how many were taken."""

  def __init__(self, label=0):
    self.label, self.taken = label, 0

  def __next__(self):
    self.taken += 1
    return {"label": np.full((8, 2, 2), self.label, np.uint8)}

  def get_state(self):
    return {"next_index": self.taken}

  def set_state(self, state):
    self.taken = state["next_index"]


class Run:
  """A run whose parameter counts its steps, in a workdir of its own."""

  def __init__(
    self, folder, evaluate, *, total=4, profile=profile_lib.NONE, **keywords
  ):
    self.folder, self.total, self.profile = folder, total, profile
    self.evaluate: Callable[..., float] = evaluate
    self.keywords, self.said, self.batches = keywords, [], Batches()
    self.mesh = parallel.mesh()

  def step(self, state, batch):
    del batch
    metrics = step_lib.StepMetrics.single_from_model_output(
      loss=jnp.float32(1), pixel_accuracy=jnp.float32(0), illegal=jnp.float32(0)
    )
    params = jax.tree.map(lambda x: x + 1, state.params)
    return state.replace(step=state.step + 1, params=params), metrics

  def __call__(self):
    resume = sealed.sound_step(self.folder)
    variables = {"params": {"a": jnp.zeros(2)}}
    state = state_lib.create(variables, optax.sgd(0.1), seed=0)
    state = parallel.replicate(state, mesh=self.mesh)
    with saves.Checkpoints(self.folder, keep=2) as checkpoints:
      return self.train(checkpoints, state, resume)

  def train(self, checkpoints, state, resume):
    log = log_lib.MetricLog(
      self.folder / "metrics.jsonl", resume_step=resume or 0, write=True
    )
    if resume is not None:
      everywhere = parallel.replicated(self.mesh)
      state = checkpoints.restore(
        resume, state, self.batches, sharding=everywhere
      )
    scores = scores_lib.Scores(
      self.evaluate, checkpoints, log, self.said.append
    )

    def save(step, state):
      checkpoints.save(step, state, self.batches.get_state())

    state = loop.loop(
      self.step,
      state,
      PARTS._replace(batches=self.batches, mesh=self.mesh),
      loop.Schedule(
        total=self.total, log_every=1, eval_every=2, checkpoint_every=2
      ),
      loop.Outputs(log.write, save, scores.add, self.said.append, self.profile),
      refuse=accept,
      **self.keywords,
    )
    scores.refuse_missing(self.total)
    return state

  def mious(self):
    lines = atomic.read_jsonl(self.folder / "metrics.jsonl")
    return {x["step"]: x["miou"] for x in lines if "miou" in x}


def test_steps_are_taken_and_evaluated_while_a_checkpoint_is_written(
  tmp_path, monkeypatch
):
  """Step 2 is sealed once step 3 was taken: waiting for it would never end."""
  taken, seal, order = threading.Event(), sealed.seal, []

  def held(folder):
    assert folder.name != "2" or taken.wait(60)
    order.append(f"seal {folder.name}")
    seal(folder)

  class Telling(Run):
    def step(self, state, batch):
      order.append(f"step {int(state.step) + 1}")
      if int(state.step) == 2:
        taken.set()
      return super().step(state, batch)

  def evaluate(variables, step):
    order.append(f"evaluate {step}")
    np.testing.assert_array_equal(variables["params"]["a"], float(step))
    return 0.5 + step / 100

  monkeypatch.setattr(sealed, "seal", held)
  Telling(tmp_path, evaluate)()
  assert order.index("step 3") < order.index("seal 2")
  assert order.index("evaluate 2") < order.index("seal 2")
  # The next save waits for the one before.
  assert order.index("seal 2") < order.index("evaluate 4")
  assert [sealed.miou(tmp_path, step) for step in (2, 4)] == [0.52, 0.54]
  variables, _ = checkpoint.restore_variables(tmp_path, 2)
  np.testing.assert_array_equal(variables["params"]["a"], 2.0)


@pytest.mark.parametrize(
  "error",
  [
    RuntimeError("RESOURCE_EXHAUSTED: out of memory"),
    KeyboardInterrupt(),
    OSError(5, "Input/output error"),
    SystemExit(1),
  ],
)
def test_what_ends_an_evaluation_takes_no_step_with_it(tmp_path, error):
  def evaluate(variables, step):
    if step == 4:
      raise error
    return 0.5

  run = Run(tmp_path, evaluate)
  with pytest.raises(type(error)):
    run()
  assert sealed.sound_step(tmp_path) == 4
  variables, _ = checkpoint.restore_variables(tmp_path)
  np.testing.assert_array_equal(variables["params"]["a"], 4)
  # The next start evaluates what was not.
  run.evaluate = lambda variables, step: step / 10
  run()
  assert run.mious() == {2: 0.5, 4: 0.4}
  assert sealed.miou(tmp_path, 4) == 0.4


def test_a_failed_evaluation_is_told_and_training_goes_on(tmp_path):
  def broken(variables, step):
    raise errors.InputError("val/7.jpg is cut off")

  run = Run(tmp_path, broken)
  with pytest.raises(
    errors.InputError, match="saved, but not evaluated: val/7"
  ):
    run()
  assert [s for s in run.said if "step 2 is saved but not evaluated" in s]
  assert sealed.sound_step(tmp_path) == 4
  run.evaluate = lambda variables, step: 0.25
  run()
  assert run.mious() == {4: 0.25}


def test_a_stop_in_an_evaluation_leaves_it(tmp_path):
  stops = []

  def stopped_inside(variables, step):
    stops.append(step)
    raise evaluate.Stopped

  run = Run(tmp_path, stopped_inside, stopped=lambda step: bool(stops))
  state = run()
  assert int(state.step) == 2 and sealed.sound_step(tmp_path) == 2
  run.evaluate, run.keywords = lambda variables, step: 0.5, {}
  assert int(run().step) == 4
  assert run.mious() == {2: 0.5, 4: 0.5}


def test_a_stop_at_a_step_saves_it(tmp_path):
  asked = []

  def stopped(step):
    asked.append(1)
    return len(asked) >= 3  # asked once after step 1, and twice after step 2

  run = Run(tmp_path, lambda variables, step: 0.5, stopped=stopped, total=9)
  assert int(run().step) == sealed.sound_step(tmp_path)


def test_a_stop_that_comes_too_late_for_a_step_saves_the_next(tmp_path):
  asked = []

  def stopped(step):
    asked.append(1)
    return len(asked) > 1  # first behind step 1, which is not due for a save

  run = Run(tmp_path, lambda variables, step: 0.5, stopped=stopped, total=9)
  assert int(run().step) == sealed.sound_step(tmp_path)


def test_a_stop_after_a_failed_evaluation_is_no_error(tmp_path):
  def broken(variables, step):
    raise errors.InputError("val/7.jpg is cut off")

  def stopped(step):
    return run.batches.taken == 3

  run = Run(tmp_path, broken, stopped=stopped)
  assert int(run().step) == 3


def test_with_several_processes_a_failed_evaluation_ends_all(
  tmp_path, monkeypatch
):
  def broken(variables, step):
    # To the scores alone: Orbax writes meanwhile.
    two = types.SimpleNamespace(process_count=lambda: 2)
    monkeypatch.setattr(scores_lib, "jax", two)
    raise errors.InputError("val/7.jpg is cut off")

  run = Run(tmp_path, broken)
  with pytest.raises(errors.InputError, match=r"^val/7.jpg is cut off"):
    run()
  monkeypatch.undo()
  assert sealed.sound_step(tmp_path) == 2


def test_an_evaluation_that_all_know_has_failed_ends_none(
  tmp_path, monkeypatch
):
  def broken(variables, step):
    raise parallel.Told("val/7.jpg is cut off")

  several = types.SimpleNamespace(process_count=lambda: 2)
  monkeypatch.setattr(scores_lib, "jax", several)
  run = Run(tmp_path, broken)
  with pytest.raises(errors.InputError, match="trained to the end and saved"):
    run()
  assert sealed.sound_step(tmp_path) == 4
  assert len([s for s in run.said if "saved but not evaluated" in s]) == 2


def test_mostly_ignored_pixels_are_told_once(tmp_path):
  run = Run(tmp_path, lambda variables, step: 0.5)
  run.batches = Batches(label=255)
  run()
  told = [s for s in run.said if "100% of the pixels of the first batch" in s]
  assert len(told) == 1


def test_the_score_that_is_written_again_stands_once_in_the_log(tmp_path):
  path = tmp_path / "metrics.jsonl"
  log_lib.MetricLog(path, resume_step=0, write=True).write(4, {"miou": 0.5})
  log = log_lib.MetricLog(path, resume_step=4, write=True)
  log.write(4, {"miou": 0.5})
  log.write(5, {"loss": math.pi})
  assert [x["step"] for x in atomic.read_jsonl(path)] == [4, 5]


@pytest.mark.parametrize(
  ("first", "stopped_at", "traced"),
  [
    (5, 0, [5, 7]),
    (4, 0, [4, 6]),
    (2, 0, [2, 3]),  # which is saved
    (8, 0, [8, 9]),  # the last
    (4, 5, [4, 5]),
    (0, 0, []),
  ],
)
def test_three_steps_are_profiled_unless_the_run_does_something_else(
  tmp_path, monkeypatch, first, stopped_at, traced
):
  seen = []

  class Spy(profile_lib.Profile):
    def start(self, state, clock):
      seen.append(int(state.step) + 1)
      self.running = True

    def stop(self, step, metrics, clock):
      if self.running:
        seen.append(step)
      self.running = False

  run = Run(
    tmp_path,
    lambda variables, step: 0.5,
    total=9,
    profile=Spy(tmp_path, first, print),
    stopped=lambda step: run.batches.taken == stopped_at,
  )
  monkeypatch.setattr(loop, "due", lambda step, every, last: step in (3, last))
  run()
  assert seen == traced


def test_a_device_without_memory_takes_no_saved_step_with_it(tmp_path):
  class Late(step_lib.StepMetrics):
    """Of a step that turns out to have failed once they are read."""

    def compute(self):
      raise jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3.00GiB."
      )

  def fails(state, batch):
    state, metrics = step(state, batch)
    if int(state.step) == 3:
      metrics = Late(**vars(metrics))
    return state, metrics

  run = Run(tmp_path, lambda variables, step: 0.5)
  step, run.step = run.step, fails
  with pytest.raises(
    errors.InputError, match="asked for 3.2 GB more.* goes on from step 2 once"
  ):
    with memory.exhaustion(
      defaults.base(), run.mesh, lambda: sealed.sound_step(tmp_path)
    ):
      run()
  run.step = step
  assert int(run().step) == 4
