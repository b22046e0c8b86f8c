"""The training loop: data, step, log, checkpoint, evaluate, in that order."""

from collections.abc import Callable
import dataclasses
import functools
import time
from typing import Any, Protocol, runtime_checkable

import jax
import optax

from deeplax import clocks
from deeplax.training import diagnosis
from deeplax.training import log as log_lib
from deeplax.training import parallel
from deeplax.training import scores as scores_lib
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from deeplax.workdir import checkpoint


def due(step: int, every: int, last: int) -> bool:
  """Whether something periodic happens after `step`; always after the last."""
  return step == last or (every > 0 and step % every == 0)


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When things happen, in steps."""

  total: int
  log_every: int
  eval_every: int
  checkpoint_every: int


@runtime_checkable
class Refuse(Protocol):
  """Raises InputError if one of a few steps cannot be meant."""

  def __call__(self, values: list[dict[str, float]], *, first: int) -> None: ...


def loop(
  *,
  step_fn: step_lib.Step,
  state: state_lib.State,
  iterator: Any,
  mesh: jax.sharding.Mesh,
  schedule: Schedule,
  batch_size: int,
  lr: optax.Schedule,
  checkpoints: checkpoint.Checkpoints,
  scores: scores_lib.Scores,
  log: log_lib.MetricLog,
  refuse: Refuse,
  stopped: Callable[[], bool] = lambda: False,
  progress: Callable[[str], None] = print,
) -> state_lib.State:
  """Train from `state.step` to `schedule.total` and return the last state.

  A step is saved before it is evaluated. What an evaluation stumbles over is
  told, and training goes on.

  Args:
    step_fn: Mapped and compiled.
    state: Replicated.
    iterator: Of host batches, with get_state and set_state.
    mesh: The devices.
    schedule: When to log, evaluate and save.
    batch_size: Images per step, for images/s.
    lr: For the progress line.
    checkpoints: Where to save.
    scores: Evaluates.
    log: metrics.jsonl.
    refuse: Raises InputError if steps cannot be meant.
    stopped: Asked after each step; True saves and returns early.
    progress: Receives each progress line.

  Raises:
    InputError: Of `refuse`; a checkpoint cannot be written; the last
      evaluation failed.
  """
  first, last = int(state.step), schedule.total
  if first and due(first, schedule.eval_every, last):
    scores.add(parallel.local(state.variables), first)  # if that was left
  watch, window, logged = clocks.Stopwatch(), [], first
  for step in range(first + 1, last + 1):
    batch = watch.wait(iterator)
    if step == 1 and (warning := diagnosis.ignored_warning(batch["label"])):
      progress(f"deeplax: {warning}")
    state, metrics = step_fn(state, parallel.shard(batch, mesh=mesh))
    window.append(metrics)

    if due(step, schedule.log_every, last):
      each = [_floats(metrics) for metrics in window]
      seconds, waiting = watch.lap()
      refuse(each, first=logged + 1)
      values = _floats(functools.reduce(lambda a, b: a.merge(b), window))
      rate = (step - logged) / seconds
      values["lr"] = float(lr(step - 1))
      values["images_per_second"] = rate * batch_size
      log.write(step, {k: v for k, v in values.items() if k != "illegal"})
      progress(
        f"step {step}/{last}  loss {values['loss']:.4f}  "
        f"lr {values['lr']:.5f}  {values['images_per_second']:.1f} images/s  "
        f"data {waiting:.0%}  ETA {clocks.duration((last - step) / rate)}"
      )
      window, logged = [], step

    start = time.perf_counter()
    scored, stop = due(step, schedule.eval_every, last), stopped()
    saved = scored or stop or due(step, schedule.checkpoint_every, last)
    if saved:
      diagnosis.refuse_lost(state, step=step)
      checkpoints.save(step, state, iterator)
    if scored and not stop:
      scores.add(parallel.local(state.variables), step)
    if saved and stopped():  # or else it came too late for this step
      break
    watch.pause(start)
  scores.refuse_missing(last)
  return state


def _floats(metrics: step_lib.StepMetrics) -> dict[str, float]:
  return {key: float(value) for key, value in metrics.compute().items()}
