"""The training loop: data, step, log, evaluate, checkpoint, in that order."""

from collections.abc import Callable
import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax

from deeplax import errors
from deeplax import progress
from deeplax.training import log as log_lib
from deeplax.training import parallel
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


def loop(
  *,
  step_fn: step_lib.Step,
  state: state_lib.State,
  iterator: Any,
  mesh: jax.sharding.Mesh,
  schedule: Schedule,
  batch_size: int,
  lr: optax.Schedule,
  evaluate: Callable[[state_lib.State, int], float],
  checkpoints: checkpoint.Checkpoints,
  log: log_lib.MetricLog,
  stopped: Callable[[], bool] = lambda: False,
  status: Callable[[str], None] = print,
) -> state_lib.State:
  """Train from `state.step` to `schedule.total` and return the last state.

  Args:
    step_fn: Mapped and compiled.
    state: Replicated.
    iterator: Of host batches, with get_state and set_state.
    mesh: The devices.
    schedule: When to log, evaluate and save.
    batch_size: Images per step, for images/s.
    lr: For the progress line.
    evaluate: (state, step) -> mIoU.
    checkpoints: Where to save.
    log: metrics.jsonl.
    stopped: Asked after each step; True saves and returns early.
    status: Receives each progress line.

  Raises:
    InputError: Illegal labels or a non-finite loss, with the range of steps.
  """
  first, last = int(state.step), schedule.total
  watch, window, logged = progress.Stopwatch(), None, first
  for step in range(first + 1, last + 1):
    batch = parallel.shard(watch.wait(iterator), mesh=mesh)
    state, metrics = step_fn(state, batch)
    window = metrics if window is None else window.merge(metrics)

    if due(step, schedule.log_every, last):
      values = {k: float(v) for k, v in window.compute().items()}
      seconds, waiting = watch.lap()
      check(values, first=logged + 1, last=step)
      rate = (step - logged) / seconds
      values |= {
        "lr": float(lr(step - 1)),
        "images_per_second": rate * batch_size,
      }
      log.write(step, {k: v for k, v in values.items() if k != "illegal"})
      status(
        f"step {step}/{last}  loss {values['loss']:.4f}  "
        f"lr {values['lr']:.5f}  "
        f"{rate * batch_size:.1f} images/s  data {waiting:.0%}  "
        f"ETA {progress.duration((last - step) / rate)}"
      )
      window, logged = None, step

    start = time.perf_counter()
    miou = None
    if due(step, schedule.eval_every, last):
      miou = evaluate(state, step)
      log.write(step, {"miou": miou})
    stop = stopped()
    if miou is not None or stop or due(step, schedule.checkpoint_every, last):
      refuse_lost(state, step=step)
      checkpoints.save(step, state, iterator, miou=miou)
    if stop:
      break
    watch.pause(start)
  return state


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  return jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]).all()


def refuse_lost(state: state_lib.State, *, step: int) -> None:
  """Stop before parameters that are not numbers replace good ones on disk.

  Raises:
    InputError: Naming the step.
  """
  if not bool(_all_finite(state.params)):
    raise errors.InputError(
      f"step {step}: some parameters are not finite. Nothing was saved here; "
      "lower --config.optim.base_lr and start anew, or look at metrics.jsonl"
    )


def check(values: dict[str, float], *, first: int, last: int) -> None:
  """Stop the run on labels or a loss that training cannot mean.

  Raises:
    InputError: With the range of steps, the cause and what to do.
  """
  steps = f"steps {first} to {last}"
  if values["illegal"] > 0:
    raise errors.InputError(
      f"{steps}: {values['illegal']:.0f} pixels per batch have a label that is "
      "neither a class nor ignored. Run python -m deeplax.check_data on the "
      "data: it names the files and the fix"
    )
  if not math.isfinite(values["loss"]):
    raise errors.InputError(
      f"{steps}: the loss is {values['loss']}. Lower --config.optim.base_lr or "
      "set --config.optim.slow_start_steps=1000; the last checkpoint is intact"
    )
