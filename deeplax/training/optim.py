"""The optimizer as one optax chain, with the reference's learning rates.

Every fact is tensorflow/models research/deeplab: train.py and
utils/train_utils.py. With momentum, weight decay is added to the gradient
before the multipliers, as the gradient of an L2 term in the loss is; AdamW
(1711.05101) subtracts it from the parameters instead.
"""

from collections.abc import Callable
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

# Parameters that the reference's last_layer_gradient_multiplier covers.
HEAD_MODULES = ("head", "decoder", "logits", "auxiliary")
# What `head` multiplies: all of that, or only what no ImageNet network has of
# v1 and v2 (their fc6 and fc7 start from one): class scores and branches.
MULTIPLIED = ("head", "classifier")
SCHEDULES = ("poly", "step", "cosine")
SLOW_STARTS = ("constant", "linear")
NAMES = ("momentum", "adamw")


def optimizer(
  config: ml_collections.ConfigDict,
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Return the learning rate by step, and the optax chain that uses it."""
  lr = learning_rate(
    total_steps=config.train.total_steps, **_keywords(learning_rate, config)
  )
  return lr, build(lr, **_keywords(build, config))


def _keywords(
  function: Callable, config: ml_collections.ConfigDict
) -> dict[str, Any]:
  """Return a function's keywords, which are keys of `config.optim`."""
  keys = inspect.signature(function).parameters.keys() - {"lr", "total_steps"}
  return {key: config.optim[key] for key in keys}


def learning_rate(
  *,
  schedule: str,
  base_lr: float,
  total_steps: int,
  power: float = 0.9,
  end_lr: float = 0.0,
  decay_steps: int = 0,
  step_every: int = 2_000,
  step_factor: float = 0.1,
  slow_start: str = "constant",
  slow_start_steps: int = 0,
  slow_start_lr: float = 1e-4,
) -> optax.Schedule:
  """Return step -> learning rate (get_model_learning_rate).

  Args:
    schedule: poly, base * (1 - t/T)**power; step, base * factor**(t // every);
      or cosine, half a period. t counts from the end of the slow start.
    base_lr: At t = 0.
    total_steps: Of the run.
    power: Of the poly schedule.
    end_lr: Where poly and cosine end.
    decay_steps: T of poly and cosine; 0: what the slow start leaves of the run.
    step_every: Steps between the drops of the step schedule.
    step_factor: Of each drop.
    slow_start: constant, at slow_start_lr; or linear, from there to base_lr.
    slow_start_steps: Its length.
    slow_start_lr: Its rate.

  Raises:
    ValueError: On an unknown or impossible value.
  """
  if slow_start not in SLOW_STARTS:
    raise ValueError(
      f"optim.slow_start {slow_start!r} not in {sorted(SLOW_STARTS)}"
    )
  length = decay_steps or max(total_steps - slow_start_steps, 1)
  if length < 0:
    raise ValueError(f"optim.decay_steps {decay_steps}: give 0 or more")
  if schedule == "poly":
    after = optax.polynomial_schedule(base_lr, end_lr, power, length)
  elif schedule == "cosine":
    after = _cosine(base_lr, end_lr, length)
  elif schedule == "step":
    if step_every < 1 or not 0 < step_factor <= 1:
      raise ValueError(
        f"optim.step_every {step_every}, step_factor {step_factor}: the step "
        "schedule needs step_every >= 1 and 0 < step_factor <= 1"
      )
    after = optax.exponential_decay(
      base_lr, step_every, step_factor, staircase=True
    )
  else:
    raise ValueError(f"optim.schedule {schedule!r} not in {sorted(SCHEDULES)}")

  def value(step):
    early = slow_start_lr
    if slow_start == "linear":
      share = step / max(slow_start_steps, 1)
      early = slow_start_lr + (base_lr - slow_start_lr) * share
    late = after(jnp.maximum(step - slow_start_steps, 0))
    return jnp.where(step < slow_start_steps, early, late)

  return value


def _cosine(base_lr: float, end_lr: float, steps: int) -> optax.Schedule:
  # optax takes the end as a share of the start, which may be 0.
  falling = optax.cosine_decay_schedule(1.0, steps)
  return lambda step: end_lr + (base_lr - end_lr) * falling(step)


def decayed(params: Any) -> Any:
  """Mask of the weight decay: dense kernels, nothing else (section 1.1)."""
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
  """Factor of each parameter's gradient (get_model_gradient_multipliers).

  Args:
    params: Of the network.
    head: Of the parameters that `multiplied` names.
    bias: Of convolution biases, besides.
    multiplied: A key of MULTIPLIED.
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
  """Multiply each gradient by the factor of its path, see `multipliers`."""

  def update(updates, params=None):
    del params
    factors = multipliers(updates, **settings)
    return jax.tree.map(lambda g, f: g * f, updates, factors)

  return optax.stateless(update)


def build(
  lr: optax.Schedule,
  *,
  name: str = "momentum",
  momentum: float,
  nesterov: bool = False,
  second_moment: float = 0.999,
  weight_decay: float,
  clip_norm: float = 0.0,
  head_multiplier: float = 1.0,
  bias_multiplier: float = 2.0,
  multiplied: str = "head",
  trained: tuple[str, ...] = (),
) -> optax.GradientTransformation:
  """Return the chain from gradients to updates.

  momentum is TensorFlow's MomentumOptimizer: v = m v + g; w -= lr v.

  Args:
    lr: Step -> learning rate.
    name: momentum or adamw.
    momentum: m, or the decay of AdamW's first moment.
    nesterov: Whether the step looks ahead: w -= lr (g + m v).
    second_moment: Decay of AdamW's second moment.
    weight_decay: Of the dense kernels.
    clip_norm: Largest L2 norm of the whole gradient of the loss, before weight
      decay and multipliers, of the parts that train; 0: any.
    head_multiplier: Of the rate of head, decoder and logits.
    bias_multiplier: Of the rate of convolution biases.
    multiplied: See `multipliers`.
    trained: See `multipliers`.

  Raises:
    ValueError: On an unknown name or a negative clip_norm.
  """
  if multiplied not in MULTIPLIED:
    raise ValueError(f"optim.multiplied {multiplied!r} not in {MULTIPLIED}")
  if unknown := sorted(set(trained) - {"backbone", *HEAD_MODULES}):
    raise ValueError(
      f"optim.trained: {unknown} not in {['backbone', *HEAD_MODULES]}"
    )
  if name not in NAMES:
    raise ValueError(f"optim.name {name!r} not in {sorted(NAMES)}")
  if clip_norm < 0:
    raise ValueError(f"optim.clip_norm {clip_norm}: give 0 (off) or more")
  clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  if clip and trained:
    # What does not train must not scale down what does. As one step of the
    # chain: checkpoints hold the state of each by its place.
    kept = scale_by_path(head=1.0, bias=1.0, trained=tuple(trained))
    both = optax.chain(kept, *clip)
    clip = [
      optax.stateless(
        lambda updates, params: both.update(
          updates, both.init(updates), params
        )[0]
      )
    ]
  decay = optax.add_decayed_weights(weight_decay, mask=decayed)
  by_path = scale_by_path(
    head=head_multiplier,
    bias=bias_multiplier,
    multiplied=multiplied,
    trained=tuple(trained),
  )
  if name == "momentum":
    rule = [decay, by_path, optax.trace(decay=momentum, nesterov=nesterov)]
  else:
    adam = optax.scale_by_adam(momentum, second_moment, nesterov=nesterov)
    rule = [adam, decay, by_path]
  return optax.chain(*clip, *rule, optax.scale_by_learning_rate(lr))
