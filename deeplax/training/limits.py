"""Impossible values of a configuration are refused, useless ones told."""

import math

import flax.linen as nn
import ml_collections

from deeplax import errors
from deeplax.models import deeplab

# Share of the running statistics that must be the run's own at its end.
SETTLED = 0.95
# checkpoint.keep: should the newest be damaged, there is the one before.
LEAST_KEPT = 2


def refuse_values(config: ml_collections.ConfigDict) -> None:
  """Refuse what no later part would name.

  Raises:
    InputError: Naming the key, its value and what it may be.
  """
  limits = {
    "seed": (config.seed, 0),
    "train.total_steps": (config.train.total_steps, 1),
    "train.batch_size": (config.train.batch_size, 1),
    "checkpoint.keep": (config.checkpoint.keep, LEAST_KEPT),
    "log.every": (config.log.every, 1),
    "train.accumulate": (config.train.accumulate, 1),
    "train.hard_pixel_steps": (config.train.hard_pixel_steps, 0),
    "optim.slow_start_steps": (config.optim.slow_start_steps, 0),
    "eval.pictures": (config.eval.pictures, 0),
  }
  for key, (value, least) in limits.items():
    if not least <= value < 2**31:
      raise errors.InputError(f"{key} {value}: give {least} or more")
  if not 0 < config.train.hard_pixels <= 1:
    raise errors.InputError(
      f"train.hard_pixels {config.train.hard_pixels}: give a share of the "
      "pixels, above 0 to 1 (all)"
    )
  if not 0 <= config.optim.ema_decay < 1:
    raise errors.InputError(
      f"optim.ema_decay {config.optim.ema_decay}: give 0 (none) to below 1, "
      "like 0.9998"
    )
  if config.train.auxiliary_weight < 0:
    raise errors.InputError(
      f"train.auxiliary_weight {config.train.auxiliary_weight}: give 0 (no "
      "auxiliary head) or more, like 0.4"
    )
  _refuse_optimizer(config.optim)
  _refuse_small_norm_batches(config)
  sizes = {"data.crop_size": config.data.crop_size}
  if config.eval.pad_to is not None:
    sizes["eval.pad_to"] = config.eval.pad_to
  for key, value in sizes.items():
    if len(value) != 2 or min(value) < 1:
      raise errors.InputError(
        f"{key} {value} is no (height, width), like (513, 513)"
      )
  if not config.eval.scales or min(config.eval.scales) <= 0:
    raise errors.InputError(
      f"eval.scales {config.eval.scales}: give positive numbers, like (1.0,)"
    )


def _refuse_optimizer(optim: ml_collections.ConfigDict) -> None:
  for key in ("momentum", "second_moment"):
    if not 0 <= optim[key] < 1:
      raise errors.InputError(
        f"optim.{key} {optim[key]}: give 0 to below 1, like 0.9"
      )
  for key in ("base_lr", "weight_decay", "power", "end_lr", "slow_start_lr"):
    if not 0 <= optim[key] < math.inf:
      raise errors.InputError(f"optim.{key} {optim[key]}: give 0 or more")


def _refuse_small_norm_batches(config: ml_collections.ConfigDict) -> None:
  parts = config.train.accumulate
  trains = config.model.batch_norm.mode == "train"
  if parts > 1 and trains and not config.train.accumulate_trained_norm:
    raise errors.InputError(
      f"train.accumulate {parts}: norms that train would see "
      f"{config.train.batch_size // parts} images at a time instead of "
      f"{config.train.batch_size}, which is another network. Freeze them, "
      "--config.model.batch_norm.mode=frozen, or ask for it, "
      "--config.train.accumulate_trained_norm=True"
    )


def slow_start_warning(
  optim: ml_collections.ConfigDict, *, total_steps: int
) -> str | None:
  """Say so if the run ends before its learning rate has left the slow start."""
  if optim.slow_start_steps < total_steps:
    return None
  return (
    f"optim.slow_start_steps {optim.slow_start_steps:,} are all of the "
    f"{total_steps:,} steps: the learning rate never reaches optim.base_lr. "
    f"Set --config.optim.slow_start_steps={total_steps // 20}, or train longer"
  )


def norm_warning(
  model: nn.Module, *, total_steps: int, start: str
) -> str | None:
  """Say so if the run ends before its running statistics have settled.

  Args:
    model: The slowest norm that trains counts.
    total_steps: Of the run.
    start: What the statistics are before step 0.
  """
  norms = [part.norm for part in deeplab.parts_with_norm(model).values()]
  decays = [norm.decay for norm in norms if norm.mode == "train"]
  decay = max(decays, default=0.0)
  adapted = 1 - decay**total_steps
  if adapted >= SETTLED:
    return None
  # The decay at which the start has SETTLED away halfway through the run.
  fit = (1 - SETTLED) ** (2 / total_steps)
  digits = max(2, 1 - math.floor(math.log10(1 - fit)))
  return (
    f"the norms' running statistics will be {adapted:.0%} adapted after "
    f"{total_steps:,} steps at decay {decay}: evaluation will still see "
    f"part of the {start}. Set --config.model.batch_norm.decay="
    f"{math.floor(fit * 10**digits) / 10**digits}, train longer, or run "
    "python -m deeplax.recalibrate afterwards"
  )
