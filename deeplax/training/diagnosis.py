"""Training that goes wrong says so: the step, the images, the likely cause."""

from collections.abc import Callable, Sequence
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeplax import errors
from deeplax.data import files
from deeplax.data import views
from deeplax.data.checks import check
from deeplax.labels import IGNORE_LABEL
from deeplax.training import state as state_lib

# A first batch with more ignored pixels than this hardly trains.
IGNORED = 0.9
SHOWN = 4  # names of images in a message

# step -> where the images of its batch stand in the training source.
Drawn = Callable[[int], Sequence[int]]


def refuse_steps(
  values: Sequence[dict[str, float]],
  first: int,
  *,
  source: files.Source,
  drawn: Drawn,
) -> None:
  """Stop the run on labels or a loss that training cannot mean.

  Args:
    values: "loss" and "illegal" (labels that are none) of consecutive steps.
    first: The step of the first.
    source: Of the training images.
    drawn: Which of them a step has seen.

  Raises:
    InputError: With the step, its images, the likely cause and what to do.
  """
  for step, value in enumerate(values, start=first):
    if value["illegal"] > 0:
      raise errors.InputError(_illegal(step, value, source, drawn(step)))
    if not math.isfinite(value["loss"]):
      raise errors.InputError(_not_finite(step, value, source, drawn(step)))


def _illegal(
  step: int,
  value: dict[str, float],
  source: files.Source,
  indices: Sequence[int],
) -> str:
  """Say what is wrong with the masks of a batch."""
  origin, indices = views.origin(source, indices)
  faults = check.examine(origin, chosen=indices).faults
  cause = "Look at all masks: python -m deeplax.check_data FOLDER --full"
  if faults:
    cause = faults[0].text
  return (
    f"step {step}: {value['illegal']:.0f} pixels of the batch have a label "
    "that is neither a class nor ignored; the last checkpoint is intact.\n"
    f"{cause}"
  )


def _not_finite(
  step: int,
  value: dict[str, float],
  source: files.Source,
  indices: Sequence[int],
) -> str:
  """Say where a loss that is no number comes from, as far as can be told."""
  names, broken = [], []
  for index in indices:
    example = source[index]
    names.append(example["name"])
    if not np.isfinite(example["image"]).all():
      broken.append(example["name"])
  text = f"step {step}: the loss is {value['loss']}"
  if broken:
    return (
      f"{text}, because the image {broken[0]} has pixels that are no finite "
      "numbers. Mend it or take it out of the data; the last checkpoint is "
      "intact"
    )
  if step == 1:
    return (
      f"{text} before any update, on sound images: the weights that the run "
      "starts from are the cause. Convert them again or start from others, "
      "--config.init.checkpoint=DIR"
    )
  shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
  return (
    f"{text}, on the images {shown}. They are sound, so the learning rate is "
    "the likely cause. Lower --config.optim.base_lr or set "
    "--config.optim.slow_start_steps=1000, in a --workdir of its own; the "
    "last checkpoint is intact"
  )


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


def ignored_warning(labels: np.ndarray) -> str | None:
  """Say so when there is hardly a labeled pixel in a batch, [b, h, w]."""
  ignored = float((labels == IGNORE_LABEL).mean())
  if ignored <= IGNORED:
    return None
  return (
    f"{ignored:.0%} of the pixels of the first batch are ignored: there is "
    "little to learn from. See what the masks hold: python -m "
    "deeplax.check_data FOLDER. If they are right, and large areas are "
    "unlabeled, set a smaller --config.data.crop_size or duplicate images "
    "that have labels (--config.data.duplicate_classes)"
  )
