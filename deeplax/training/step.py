"""The training step of one device, under the axis name `parallel.AXIS`."""

from collections.abc import Callable
import dataclasses
from functools import partial
from typing import Any

from clu import metrics as clu_metrics
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from deeplax import parallel
from deeplax.ops import backend
from deeplax.training import losses
from deeplax.training import state as state_lib


@flax.struct.dataclass
class StepMetrics(clu_metrics.Collection):
  """The metrics of a step, averaged over the steps of a progress line."""

  loss: clu_metrics.Average.from_output("loss")  # pyright: ignore
  pixel_accuracy: clu_metrics.Average.from_output("pixel_accuracy")  # pyright: ignore
  illegal: clu_metrics.Average.from_output("illegal")  # pyright: ignore


# (state, batch) -> (state, metrics)
Step = Callable[
  [state_lib.State, dict[str, jax.Array]],
  tuple[state_lib.State, StepMetrics],
]


def make_train_step(
  model: nn.Module,
  tx: optax.GradientTransformation,
  *,
  loss: losses.Settings = losses.PLAIN,
  accumulate: int = 1,
  ema_decay: float = 0.0,
  axis_name: str | None = parallel.AXIS,
) -> Step:
  """Return the pure per-device `step(state, batch) -> (state, metrics)`.

  Losses are summed over pixels and their gradients over the parts of the batch
  and the devices; the sums are divided by the number of valid pixels of all. A
  mean of local means would be wrong where ignored pixels are spread unevenly.

  Args:
    model: With a `coarse` method; its norms use the same `axis_name`.
    accumulate: Number of parts of this device's batch, which run one after the
      other in the memory of one. The update is that of the whole batch, but a
      norm that trains sees one part at a time; its running statistics move
      once, to the mean over the parts.
    ema_decay: Decay of the moving average of parameters and statistics; 0: no
      average.
    axis_name: Name of the mapped axis; None if the step is not mapped.
  """

  # Over no axis, a sum leaves its argument as it is.
  axes = () if axis_name is None else (axis_name,)
  over_devices = partial(jax.lax.psum, axis_name=axes)

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

  def step(state: state_lib.State, batch: dict[str, jax.Array]):
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    differentiate = jax.value_and_grad(summed_loss, has_aux=True)

    def add_part(carry, indexed):
      index, part = indexed
      grads, batch_stats, total, sums = carry
      key = rng if accumulate == 1 else jax.random.fold_in(rng, index)
      (part_total, (new_stats, part_sums)), part_grads = differentiate(
        state.params, state.batch_stats, part, rng=key, step=state.step
      )
      if accumulate > 1:
        # The decay is per step, so each part starts from the step's statistics.
        new_stats = jax.tree.map(
          lambda moved, new, old: moved + (new - old) / accumulate,
          batch_stats,
          new_stats,
          state.batch_stats,
        )
      added = jax.tree.map(
        jnp.add, (grads, total, sums), (part_grads, part_total, part_sums)
      )
      return (added[0], new_stats, added[1], added[2]), None

    carry = (
      jax.tree.map(jnp.zeros_like, state.params),
      state.batch_stats,
      jnp.float32(0),
      losses.PixelSums.zero(),
    )
    carry = _over_parts(add_part, carry, batch, accumulate)
    grads, batch_stats, total, sums = carry
    grads, total, sums = over_devices((grads, total, sums))
    # A batch without a labeled pixel has loss 0, not 0/0.
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
      batch_stats=jax.lax.pmean(batch_stats, axes),
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
  unroll = count if backend.form("accumulation") == "unrolled" else 1
  indexed = (jnp.arange(count), parts)
  return jax.lax.scan(add_part, carry, indexed, unroll=unroll)[0]
