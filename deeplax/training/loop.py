"""The training loop: data, step, log, checkpoint, evaluate, in that order."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax

from deeplax import clocks
from deeplax import parallel
from deeplax.training import diagnosis
from deeplax.training import parts as parts_lib
from deeplax.training import profile as profile_lib
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib


def due(step: int, every: int, last: int) -> bool:
  """Return whether `step` is a multiple of `every` (0: none) or the last."""
  return step == last or (every > 0 and step % every == 0)


class Schedule(NamedTuple):
  """Number of steps in all, and between logs, evaluations and checkpoints."""

  total: int
  log_every: int
  eval_every: int
  checkpoint_every: int


class Outputs(NamedTuple):
  """Where the results of steps go.

  Attributes:
    log: Takes (step, values).
    save: Takes (step, state), whose memory the next step takes over.
    evaluate: Takes (variables, replicated as the state is, and the step).
    progress: Receives each progress line.
    profile: Traces some steps.
  """

  log: Callable[[int, dict[str, float]], None]
  save: Callable[[int, state_lib.State], None]
  evaluate: Callable[[dict[str, Any], int], None]
  progress: Callable[[str], None]
  profile: profile_lib.Profile = profile_lib.NONE


def loop(
  step_fn: step_lib.Step,
  state: state_lib.State,
  parts: parts_lib.Parts,
  schedule: Schedule,
  outputs: Outputs,
  *,
  refuse: Callable[[list[dict[str, float]], int], None],
  stopped: Callable[[int], bool] = lambda step: False,
) -> state_lib.State:
  """Train from `state.step` to `schedule.total` and return the last state.

  A step is saved, in the background, before it is evaluated.

  Args:
    step_fn: The step, mapped over the devices and compiled.
    state: The state, replicated over the devices.
    schedule: When to log, evaluate and save.
    outputs: Where to log, evaluate and save.
    refuse: Takes (values of consecutive steps, the first of these steps) and
      raises InputError if they cannot be meant.
    stopped: Asked after each step, with its number; True saves and returns.

  Raises:
    InputError: Raised by `refuse`, or a checkpoint cannot be written.
  """
  first, last = int(state.step), schedule.total
  if first and due(first, schedule.eval_every, last):
    # A run that was stopped may have saved this step and not evaluated it.
    outputs.evaluate(state.variables, first)
  clock: dict[str, float] = {}
  window, logged, profile = [], first, outputs.profile
  for step in range(first + 1, last + 1):
    logs = due(step, schedule.log_every, last)
    if step == profile.first:
      profile.start(state, clock)
    # Step. Saving, evaluating and the profiler stay out of the clock.
    with clocks.timed(clock, "train"):
      with clocks.timed(clock, "data"):
        batch = next(parts.batches)
      state, metrics = step_fn(state, parallel.shard(batch, mesh=parts.mesh))
      window.append(metrics)
      if logs:
        jax.block_until_ready(metrics)  # the devices work after the call
    scored = due(step, schedule.eval_every, last)
    saved = scored or due(step, schedule.checkpoint_every, last)
    # Neither the start of a save nor evaluating is a part of a step's profile.
    if saved or step == profile.last:
      profile.stop(step, metrics, clock)
    images = len(batch["label"]) * jax.process_count()
    if step == 1 and (warning := diagnosis.ignored_warning(batch["label"])):
      outputs.progress(f"deeplax: {warning}")

    # Log the mean over the steps since the last line.
    if logs:
      refuse([_floats(metrics) for metrics in window], logged + 1)
      values = _floats(functools.reduce(lambda a, b: a.merge(b), window))
      rate = (step - logged) / clock["train"]
      values["lr"] = float(parts.lr(step - 1))
      values["images_per_second"] = rate * images
      outputs.log(step, {k: v for k, v in values.items() if k != "illegal"})
      outputs.progress(
        f"step {step}/{last}  loss {values['loss']:.4f}  "
        f"lr {values['lr']:.5f}  {values['images_per_second']:.1f} images/s  "
        f"data {clock['data'] / clock['train']:.0%}  "
        f"ETA {clocks.duration((last - step) / rate)}"
      )
      window, logged = [], step
      clock.clear()

    # Save, then evaluate: an evaluation that fails takes no step with it.
    if stop := stopped(step):
      profile.stop(step, metrics, clock)
    if saved := saved or stop:
      outputs.save(step, state)
    if scored and not stop:
      outputs.evaluate(state.variables, step)
    if saved and (stop or stopped(step)):  # later: after the next step
      break
  return state


def _floats(metrics: step_lib.StepMetrics) -> dict[str, float]:
  return {key: float(value) for key, value in metrics.compute().items()}
