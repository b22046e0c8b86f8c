"""The optimizer as one optax chain, with the reference's learning rate.

Every fact is tensorflow/models research/deeplab: train.py and
utils/train_utils.py. Weight decay is added to the gradient before the
multipliers and the momentum, as the gradient of an L2 term in the loss is.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

# Parameters that the reference's last_layer_gradient_multiplier covers.
HEAD_MODULES = ("head", "decoder", "logits")


def learning_rate(
  *,
  schedule: str,
  base_lr: float,
  total_steps: int,
  power: float = 0.9,
  end_lr: float = 0.0,
  slow_start_steps: int = 0,
  slow_start_lr: float = 1e-4,
) -> optax.Schedule:
  """Return step -> learning rate (get_model_learning_rate).

  Raises:
    ValueError: On an unknown schedule.
  """
  if schedule != "poly":
    raise ValueError(f"optim.schedule {schedule!r} not in ['poly']")
  poly = optax.polynomial_schedule(
    base_lr, end_lr, power, max(total_steps - slow_start_steps, 1)
  )

  def value(step):
    after = poly(jnp.maximum(step - slow_start_steps, 0))
    return jnp.where(step < slow_start_steps, slow_start_lr, after)

  return value


def decayed(params: Any) -> Any:
  """Mask of the weight decay: dense kernels, nothing else (section 1.1)."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == "kernel", params
  )


def multipliers(params: Any, *, head: float, bias: float) -> Any:
  """Factor of each parameter's gradient (get_model_gradient_multipliers)."""

  def factor(path, _):
    last = head if path[0].key in HEAD_MODULES else 1.0
    return last * (bias if path[-1].key == "bias" else 1.0)

  return jax.tree_util.tree_map_with_path(factor, params)


def scale_by_path(*, head: float, bias: float) -> optax.GradientTransformation:
  """Multiply each gradient by the factor of its path."""

  def update(updates, params=None):
    del params
    factors = multipliers(updates, head=head, bias=bias)
    return jax.tree.map(lambda g, f: g * f, updates, factors)

  return optax.stateless(update)


def build(
  lr: optax.Schedule,
  *,
  momentum: float,
  weight_decay: float,
  head_multiplier: float = 1.0,
  bias_multiplier: float = 2.0,
) -> optax.GradientTransformation:
  """Momentum SGD as TensorFlow's MomentumOptimizer: v = m v + g; w -= lr v."""
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask=decayed),
    scale_by_path(head=head_multiplier, bias=bias_multiplier),
    optax.trace(decay=momentum),
    optax.scale_by_learning_rate(lr),
  )
