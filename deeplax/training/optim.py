"""The optimizer as one optax chain, with the reference's learning rates.

The source is tensorflow/models research/deeplab, train.py and
utils/train_utils.py. With momentum, weight decay is added to the gradient
before the multipliers, like the gradient of an L2 term in the loss; AdamW
(1711.05101) subtracts it from the parameters instead.
"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from deeplax.models import layers

# Parameters that the reference's last_layer_gradient_multiplier covers.
HEAD_MODULES = ("head", "decoder", "logits", "auxiliary")
# What `head_multiplier` covers. head: all of HEAD_MODULES. classifier: class
# scores and branches alone, as fc6 and fc7 of v1 and v2 start from ImageNet.
MULTIPLIED = ("head", "classifier")
SCHEDULES = ("cosine", "poly", "step")
SLOW_STARTS = ("constant", "linear")
NAMES = ("adamw", "momentum")


def optimizer(
  config: ml_collections.ConfigDict,
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Return the learning rate by step, and the optax chain that uses it."""
  lr = learning_rate(config.optim, total_steps=config.train.total_steps)
  return lr, build(lr, config.optim)


def learning_rate(
  settings: ml_collections.ConfigDict, *, total_steps: int
) -> optax.Schedule:
  """Return step -> learning rate (get_model_learning_rate).

  poly is base_lr * (1 - t/T)**power, step is base_lr * factor**(t // every) and
  cosine half a period, where t counts from the end of the slow start.

  Args:
    settings: `config.optim`, whose keys settings/defaults.py explains.

  Raises:
    ValueError: On an unknown or impossible value.
  """
  layers.check_one_of("optim.schedule", settings.schedule, SCHEDULES)
  layers.check_one_of("optim.slow_start", settings.slow_start, SLOW_STARTS)
  base, slow = settings.base_lr, settings.slow_start_steps
  length = settings.decay_steps or max(total_steps - slow, 1)
  if length < 0:
    raise ValueError(f"optim.decay_steps {length}: give 0 or more")
  if settings.schedule == "poly":
    after = optax.polynomial_schedule(
      base, settings.end_lr, settings.power, length
    )
  elif settings.schedule == "cosine":
    after = _cosine(base, settings.end_lr, length)
  else:
    every, factor = settings.step_every, settings.step_factor
    if every < 1 or not 0 < factor <= 1:
      raise ValueError(
        f"optim.step_every {every}, step_factor {factor}: the step "
        "schedule needs step_every >= 1 and 0 < step_factor <= 1"
      )
    after = optax.exponential_decay(base, every, factor, staircase=True)
  # The slow start, then the schedule from its step 0.
  start, linear = settings.slow_start_lr, settings.slow_start == "linear"

  def value(step):
    early = start
    if linear:
      early = start + (base - start) * (step / max(slow, 1))
    late = after(jnp.maximum(step - slow, 0))
    return jnp.where(step < slow, early, late)

  return value


def _cosine(base_lr: float, end_lr: float, steps: int) -> optax.Schedule:
  # optax wants the end as a share of the start, but the start may be 0.
  falling = optax.cosine_decay_schedule(1.0, steps)
  return lambda step: end_lr + (base_lr - end_lr) * falling(step)


def decayed(params: Any) -> Any:
  """Return the mask of the weight decay: dense kernels alone."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == "kernel", params
  )


def multipliers(
  params: Any,
  *,
  head: float,
  bias: float,
  multiplied: str = "head",
  trained: tuple[str, ...] = (),
) -> Any:
  """Return each gradient's factor (get_model_gradient_multipliers).

  Args:
    params: The network's.
    head: Factor of the parameters that `multiplied` names.
    bias: Further factor of convolution biases.
    multiplied: One of MULTIPLIED.
    trained: Parts of the network that train, such as ("decoder", "logits");
      all others have a factor of 0. (): every part trains.
  """

  def factor(path, _):
    part = path[0].key
    if trained and part not in trained:
      return 0.0
    if multiplied == "head":
      last = part in HEAD_MODULES
    else:
      # v2's ASPP has its scores in the head: head/logits0, ...
      scores = any(key.key.startswith("logits") for key in path)
      last = scores or part in ("decoder", "auxiliary")
    return (head if last else 1.0) * (bias if path[-1].key == "bias" else 1.0)

  return jax.tree_util.tree_map_with_path(factor, params)


def scale_by_path(**settings: Any) -> optax.GradientTransformation:
  """Return the transformation that multiplies by `multipliers`."""

  def update(updates, params=None):
    del params
    factors = multipliers(updates, **settings)
    return jax.tree.map(lambda g, f: g * f, updates, factors)

  return optax.stateless(update)


def build(
  lr: optax.Schedule, settings: ml_collections.ConfigDict
) -> optax.GradientTransformation:
  """Return the chain from gradients to updates.

  momentum is TensorFlow's MomentumOptimizer: v = m v + g; w -= lr v, with
  nesterov w -= lr (g + m v). The gradient of the loss is clipped before weight
  decay and multipliers.

  Args:
    settings: `config.optim`, whose keys settings/defaults.py explains.

  Raises:
    ValueError: On an unknown name or a negative clip_norm.
  """
  trained, clip_norm = tuple(settings.trained), settings.clip_norm
  layers.check_one_of("optim.name", settings.name, NAMES)
  layers.check_one_of("optim.multiplied", settings.multiplied, MULTIPLIED)
  if unknown := sorted(set(trained) - {"backbone", *HEAD_MODULES}):
    raise ValueError(
      f"optim.trained: {unknown} not in {['backbone', *HEAD_MODULES]}"
    )
  if clip_norm < 0:
    raise ValueError(f"optim.clip_norm {clip_norm}: give 0 (off) or more")
  clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  if clip and trained:
    # Gradients of parts that do not train must not scale the others down. One
    # step of the chain, because checkpoints hold each step's state by place.
    masked = optax.chain(
      scale_by_path(head=1.0, bias=1.0, trained=trained), *clip
    )
    clip = [
      optax.stateless(
        lambda updates, params: masked.update(
          updates, masked.init(updates), params
        )[0]
      )
    ]
  decay = optax.add_decayed_weights(settings.weight_decay, mask=decayed)
  by_path = scale_by_path(
    head=settings.head_multiplier,
    bias=settings.bias_multiplier,
    multiplied=settings.multiplied,
    trained=trained,
  )
  momentum, nesterov = settings.momentum, settings.nesterov
  if settings.name == "momentum":
    rule = [decay, by_path, optax.trace(decay=momentum, nesterov=nesterov)]
  else:
    adam = optax.scale_by_adam(
      momentum, settings.second_moment, nesterov=nesterov
    )
    rule = [adam, decay, by_path]
  return optax.chain(*clip, *rule, optax.scale_by_learning_rate(lr))
