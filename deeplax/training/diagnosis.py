"""Stop a training that goes wrong, with the step, its images and the cause."""

from collections.abc import Callable, Sequence
from functools import partial
import math

import jax
import numpy as np

from deeplax import parallel
from deeplax.data import files
from deeplax.data import views
from deeplax.data.checks import check
from deeplax.labels import IGNORE_LABEL
from deeplax.training import state as state_lib

# Largest share of ignored pixels with which a first batch still trains.
IGNORED = 0.9
SHOWN = 4  # images named in a message

# step -> indices of its batch's images in the training source.
Drawn = Callable[[int], Sequence[int]]


def refuse_steps(
  values: Sequence[dict[str, float]],
  first: int,
  *,
  source: files.Source,
  drawn: Drawn,
) -> None:
  """Stop the run on illegal labels or a loss that is not finite.

  Args:
    values: "loss" and "illegal" (the number of illegal labels) of consecutive
      steps.
    first: The first of these steps.
    source: The training images.
    drawn: Returns the indices of a step's images.

  Raises:
    InputError: Naming the step, its images, the likely cause and the remedy;
      the same of all processes, whose values are sums over all.
  """
  for step, value in enumerate(values, start=first):
    text = None
    if value["illegal"] > 0:
      text = _illegal
    elif not math.isfinite(value["loss"]):
      text = _not_finite
    if text:
      find = partial(text, step, value, source, drawn(step))
      raise parallel.Told(parallel.of_first(find))


def _illegal(
  step: int,
  value: dict[str, float],
  source: files.Source,
  indices: Sequence[int],
) -> str:
  """Return the message on illegal labels in a batch."""
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
  """Return the message on a loss that is not finite, with its likely cause."""
  names, broken = [], []
  for index in indices:
    example = source[index]
    names.append(example["name"])
    if not np.isfinite(example["image"]).all():
      broken.append(example["name"])
  text = f"step {step}: the loss is {value['loss']}"
  if broken:
    return (
      f"{text}, because the image {broken[0]} has pixels that are not finite "
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


def refuse_lost(state: state_lib.State, *, step: int) -> None:
  """Stop before parameters that are not finite replace good ones on disk.

  Raises:
    InputError: Naming the step; the same of all processes.
  """
  # On the host, where saving brings them anyway: XLA takes seconds to compile
  # a check of hundreds of arrays.
  arrays = jax.tree.leaves(state.params)
  if not all(np.isfinite(np.asarray(x)).all() for x in arrays):
    raise parallel.Told(
      f"step {step}: some parameters are not finite. Nothing was saved here; "
      "lower --config.optim.base_lr and start anew, or look at metrics.jsonl"
    )


def ignored_warning(labels: np.ndarray) -> str | None:
  """Return a warning if hardly a pixel of a batch [b, h, w] is labeled."""
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
