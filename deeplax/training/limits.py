"""Refuse impossible values of a configuration, and warn of useless ones."""

from collections.abc import Callable
import math
from typing import TYPE_CHECKING, Any

import ml_collections

from deeplax import errors
from deeplax.settings import own
from deeplax.workdir import settings

if TYPE_CHECKING:  # it brings JAX, and values are refused without
  import flax.linen as nn

# Share of the running statistics that the run itself must have made by its end.
SETTLED = 0.95
# Least checkpoint.keep: if the newest is damaged, the one before is left.
LEAST_KEPT = 2


def _at_least(least: int) -> tuple[Callable[[Any], bool], str]:
  return lambda value: least <= value < 2**31, f"{least} or more"


_NOT_NEGATIVE = (lambda value: 0 <= value < math.inf, "0 or more")
_DECAY = (lambda value: 0 <= value < 1, "0 to below 1, like 0.9")
_SIZE = (
  lambda value: value is None or len(value) == 2 and min(value) >= 1,
  "(height, width), like (513, 513)",
)
# Key -> whether a value is possible, and in words which values are.
POSSIBLE = {
  "seed": _at_least(0),
  "train.total_steps": _at_least(1),
  "train.batch_size": _at_least(1),
  "checkpoint.keep": _at_least(LEAST_KEPT),
  "log.every": _at_least(1),
  "train.accumulate": _at_least(1),
  "train.profile": _at_least(0),
  "train.hard_pixel_steps": _at_least(0),
  "optim.slow_start_steps": _at_least(0),
  "eval.batch": _at_least(0),
  "eval.pictures": _at_least(0),
  "train.hard_pixels": (
    lambda value: 0 < value <= 1,
    "a share of the pixels, above 0 to 1 (all)",
  ),
  "optim.ema_decay": (_DECAY[0], "0 (none) to below 1, like 0.9998"),
  "train.auxiliary_weight": (
    lambda value: value >= 0,
    "0 (no auxiliary head) or more, like 0.4",
  ),
  "optim.momentum": _DECAY,
  "optim.second_moment": _DECAY,
  "optim.base_lr": _NOT_NEGATIVE,
  "optim.weight_decay": _NOT_NEGATIVE,
  "optim.power": _NOT_NEGATIVE,
  "optim.end_lr": _NOT_NEGATIVE,
  "optim.slow_start_lr": _NOT_NEGATIVE,
  "train.loss": (
    lambda value: value in ("cross_entropy", own.OBJECT) or own.is_own(value),
    f"cross_entropy, or a function in a file of your own, {own.FORM}",
  ),
  "model.batch_norm.group": (
    lambda value: value in ("all", "device") or value.isdigit() and int(value),
    "all, device or a number of devices, like 16",
  ),
  "data.crop_size": _SIZE,
  "eval.pad_to": _SIZE,
  "eval.scales": (
    lambda value: value and min(value) > 0,
    "positive numbers, like (1.0,)",
  ),
}


def refuse_values(config: ml_collections.ConfigDict) -> None:
  """Refuse values that would fail later without naming their key.

  Raises:
    InputError: Naming the key, its value and the possible values.
  """
  values = settings.flatten(config)
  for key, (possible, fix) in POSSIBLE.items():
    if not possible(values[key]):
      raise errors.InputError(f"{key} {values[key]}: give {fix}")
  total, profile = config.train.total_steps, config.train.profile
  if profile > total:
    raise errors.InputError(
      f"train.profile {profile}: the run has {total} steps. Give one of 1 to "
      f"{total}, or 0 for no profile"
    )
  _refuse_small_norm_batches(config)


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
  """Return a warning if the run ends within the slow start, else None."""
  if optim.slow_start_steps < total_steps:
    return None
  return (
    f"optim.slow_start_steps {optim.slow_start_steps:,} takes all of the "
    f"{total_steps:,} steps: the learning rate never reaches optim.base_lr. "
    f"Set --config.optim.slow_start_steps={total_steps // 20}, or train longer"
  )


def norm_warning(
  model: "nn.Module", *, total_steps: int, start: str
) -> str | None:
  """Return a warning if the run ends before its statistics have settled.

  Args:
    model: The network, whose slowest norm that trains is looked at.
    start: In words, where the statistics come from before step 0.
  """
  from deeplax.models import deeplab

  norms = deeplab.norms(model).values()
  decays = [norm.decay for norm in norms if norm.mode == "train"]
  decay = max(decays, default=0.0)
  adapted = 1 - decay**total_steps
  if adapted >= SETTLED:
    return None
  # With this decay the start has lost its SETTLED share halfway through.
  fit = (1 - SETTLED) ** (2 / total_steps)
  digits = max(2, 1 - math.floor(math.log10(1 - fit)))
  return (
    f"the norms' running statistics will be {adapted:.0%} adapted after "
    f"{total_steps:,} steps at decay {decay}: evaluation will still see "
    f"part of the {start}. Set --config.model.batch_norm.decay="
    f"{math.floor(fit * 10**digits) / 10**digits}, train longer, or run "
    "python -m deeplax.recalibrate afterwards"
  )
