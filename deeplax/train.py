"""The training step and the loop around it.

The step is written for one device under the axis name `parallel.AXIS`; the
loop is data, step, log, evaluate, checkpoint, in that order.
"""

from collections.abc import Callable
import dataclasses
import math
import time
from typing import Any

from clu import metrics as clu_metrics
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from deeplax import checkpoint
from deeplax import errors
from deeplax import logs
from deeplax import losses
from deeplax import parallel
from deeplax import state as state_lib
from deeplax.ops import backend

State = state_lib.State


@flax.struct.dataclass
class StepMetrics(clu_metrics.Collection):
  """What a step reports, averaged over the steps of a progress line."""

  loss: clu_metrics.Average.from_output("loss")  # pyright: ignore
  pixel_accuracy: clu_metrics.Average.from_output("pixel_accuracy")  # pyright: ignore
  illegal: clu_metrics.Average.from_output("illegal")  # pyright: ignore


def make_train_step(
  model: nn.Module,
  tx: optax.GradientTransformation,
  *,
  loss: losses.Settings = losses.PLAIN,
  accumulate: int = 1,
  ema_decay: float = 0.0,
  axis_name: str | None = parallel.AXIS,
) -> Callable[[State, dict[str, jax.Array]], tuple[State, StepMetrics]]:
  """Return the pure per-device `step(state, batch) -> (state, metrics)`.

  Losses are summed over pixels, their gradients over parts of the batch and
  over devices, and the sum is divided by the valid pixels of all: a mean of
  local means is wrong when ignored pixels are spread unevenly.

  Args:
    model: With a `coarse` method; its norms use the same `axis_name`.
    tx: The optimizer.
    loss: What is minimised.
    accumulate: Parts of this device's batch that run one after the other,
      for the memory of one. The update is that of the whole batch, but a norm
      that trains sees one part at a time.
    ema_decay: Of the moving average of parameters and statistics; 0: none.
    axis_name: Of the mapped axis; None outside one.
  """

  def over_devices(tree: Any) -> Any:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)

  def mean_over_devices(tree: Any) -> Any:
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)

  further = loss.auxiliary_weight > 0 or loss.per_scale
  method = "coarse_and_auxiliary" if further else "coarse"

  def summed_loss(params, batch_stats, part, *, rng, step):
    outputs, updated = model.apply(
      {"params": params, "batch_stats": batch_stats},
      part["image"],
      train=True,
      method=method,
      mutable=["batch_stats"],
      rngs={"dropout": rng},
    )
    logits, auxiliary = outputs if further else (outputs, None)
    total, sums = losses.of_batch(
      logits,
      auxiliary,
      part["label"].astype(jnp.int32),
      loss,
      step=step,
      over_devices=over_devices,
    )
    return total, (updated.get("batch_stats", {}), sums)

  def step(state: State, batch: dict[str, jax.Array]):
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    differentiate = jax.value_and_grad(summed_loss, has_aux=True)

    def add_part(carry, indexed):
      index, part = indexed
      grads, batch_stats, total, sums = carry
      key = rng if accumulate == 1 else jax.random.fold_in(rng, index)
      (part_total, (batch_stats, part_sums)), part_grads = differentiate(
        state.params, batch_stats, part, rng=key, step=state.step
      )
      added = jax.tree.map(
        jnp.add, (grads, total, sums), (part_grads, part_total, part_sums)
      )
      return (added[0], batch_stats, added[1], added[2]), None

    carry = (
      jax.tree.map(jnp.zeros_like, state.params),
      state.batch_stats,
      jnp.float32(0),
      losses.PixelSums.zero(),
    )
    carry = _over_parts(add_part, carry, batch, accumulate)
    grads, batch_stats, total, sums = carry
    grads, total, sums = over_devices((grads, total, sums))
    # An all-ignored batch has loss 0, not 0/0.
    valid = jnp.maximum(sums.valid, 1)
    grads = jax.tree.map(lambda g: g / valid, grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    metrics = StepMetrics.single_from_model_output(
      loss=total / valid,
      pixel_accuracy=sums.correct / valid,
      illegal=sums.illegal,
    )
    state = dataclasses.replace(
      state,
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=mean_over_devices(batch_stats),
      opt_state=opt_state,
    )
    return state.averaged(ema_decay), metrics

  return step


def _over_parts(
  add_part: Callable[[Any, Any], tuple[Any, None]],
  carry: Any,
  batch: dict[str, jax.Array],
  count: int,
) -> Any:
  """Run `add_part(carry, (index, part))` over `count` parts of the batch."""
  if count == 1:
    return add_part(carry, (0, batch))[0]
  parts = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
  # A convolution's gradient inside a loop is an order slower on a CPU.
  unroll = count if backend.prefers_shifted() else 1
  indexed = (jnp.arange(count), parts)
  return jax.lax.scan(add_part, carry, indexed, unroll=unroll)[0]


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
  step_fn: Callable[[State, dict[str, jax.Array]], tuple[State, StepMetrics]],
  state: State,
  iterator: Any,
  mesh: jax.sharding.Mesh,
  schedule: Schedule,
  batch_size: int,
  lr: optax.Schedule,
  evaluate: Callable[[State, int], float],
  checkpoints: checkpoint.Checkpoints,
  log: logs.MetricLog,
  stopped: Callable[[], bool] = lambda: False,
  status: Callable[[str], None] = print,
) -> State:
  """Train from `state.step` to `schedule.total` and return the last state.

  Args:
    step_fn: Mapped and compiled.
    state: Replicated.
    iterator: Of host batches, with get_state/set_state.
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
  watch, window, logged = logs.Stopwatch(), None, first
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
        f"ETA {logs.duration((last - step) / rate)}"
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


def refuse_lost(state: State, *, step: int) -> None:
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
