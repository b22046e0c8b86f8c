"""Why a network did not learn a few images by heart, from what was measured."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from deeplax.inference import evaluate
from deeplax.metrics import printed

SPARSE = 0.05  # a smaller share of labeled pixels is a fault of the masks
MISSED = 0.5  # IoU below which a class counts as not learned
GAP = 0.05  # of mIoU between the two kinds of norm statistics
# Of the first loss: above, it rose; not below the other, it never fell.
ROSE, FELL = 1.5, 0.9


@dataclasses.dataclass
class Measured:
  """What was seen while it tried.

  Attributes:
    losses: Of each step; the last may be no finite number.
    base_lr: Of the configuration.
    clip_norm: Of the configuration; 0: none.
    init: The workdir that the parameters come from; None: drawn at random.
    frozen: Whether the norms keep their statistics.
    labeled: Share of the pixels that have a label.
    classes: How many occur among them.
    contradictions: Pairs of names: one image, two masks.
    evaluated: Scores (`confusion.scores`) with running norm statistics; empty
      before the first look.
    trained: Scores with the batch's own, as training sees it.
  """

  base_lr: float
  clip_norm: float
  init: str | None
  frozen: bool
  labeled: float
  classes: int
  contradictions: list[tuple[str, str]]
  losses: list[float] = dataclasses.field(default_factory=list)
  evaluated: dict[str, Any] = dataclasses.field(default_factory=dict)
  trained: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def miou(self) -> float:
    """With running statistics, as evaluation and prediction use it."""
    return self.evaluated.get("miou", 0.0)


def contradictions(
  batch: dict[str, np.ndarray], names: Sequence[str]
) -> list[tuple[str, str]]:
  """Return pairs of equal images whose labels differ."""
  found = []
  for i in range(len(names)):
    for j in range(i):
      same = np.array_equal(batch["image"][i], batch["image"][j])
      if same and not np.array_equal(batch["label"][i], batch["label"][j]):
        found.append((names[j], names[i]))
  return found


def diagnose(seen: Measured) -> list[str]:
  """Return what keeps it from learning, the most certain cause first."""
  found = of_data(seen)
  if not seen.losses:
    return found
  if seen.frozen and seen.init is None:
    found.append(
      "the norms are frozen: from random weights a network hardly learns so. "
      "Start from trained weights, --config.init.checkpoint=DIR, or set "
      "--config.model.batch_norm.mode=train"
    )
  found += _of_loss(seen)
  # Of a loss that never fell, any scores are mere consequences.
  if seen.losses[-1] <= FELL * seen.losses[0]:
    found += _of_scores(seen)
  return found or [
    f"no single cause: the loss fell from {seen.losses[0]:.3g} to "
    f"{seen.losses[-1]:.3g} and every class is partly learned. Give it more "
    "--steps"
  ]


def of_data(seen: Measured) -> list[str]:
  """Return what the images and masks alone have against being learned."""
  found = [
    f"{one} and {other} are the same picture with different masks: no "
    "network can learn both. Remove one"
    for one, other in seen.contradictions[:3]
  ]
  if seen.labeled < SPARSE:
    found.append(
      f"only {seen.labeled:.1%} of the pixels have a label; the rest is "
      "ignored. Check ignore_label and label_map: python -m deeplax.check_data"
    )
  if seen.classes < 2:
    found.append(
      f"{seen.classes or 'no'} class occurs in these crops, so that there is "
      "nothing to tell apart. Take more --images or a larger "
      "--config.data.crop_size, or check the masks: python -m "
      "deeplax.check_data"
    )
  return found


def _of_loss(seen: Measured) -> list[str]:
  first, last, peak = seen.losses[0], seen.losses[-1], np.max(seen.losses)
  lower = f"--config.optim.base_lr={seen.base_lr / 10:g}"
  if not math.isfinite(last):
    return [
      f"the loss is {last} after {len(seen.losses)} steps: the learning rate "
      f"is too high. Set {lower}"
    ]
  if peak > ROSE * first:
    step = int(np.argmax(seen.losses)) + 1
    return [
      f"the loss rose from {first:.3g} to {peak:.3g} at step {step}: the "
      f"learning rate is too high. Set {lower}"
    ]
  if last <= FELL * first:
    return []
  text = (
    f"the loss went from {first:.4g} to {last:.4g} and was never much higher: "
    f"the learning rate is too low for {len(seen.losses)} steps. Set "
    f"--config.optim.base_lr={seen.base_lr * 10:g}, or give it more --steps"
  )
  if seen.clip_norm:
    text += f", or a larger --config.optim.clip_norm than {seen.clip_norm:g}"
  return [text]


def _of_scores(seen: Measured) -> list[str]:
  found = []
  if seen.trained["miou"] - seen.miou > GAP:
    found.append(
      f"mIoU is {printed.score(seen.trained['miou'])} with the batch's own "
      f"norm statistics and {printed.score(seen.miou)} with the running ones: "
      "these lag behind. Give it more --steps; in the real run lower "
      "--config.model.batch_norm.decay or use python -m deeplax.recalibrate"
    )
  shares = seen.evaluated["pixel_share"]
  for name, (true, predicted) in shares.items():
    if predicted > evaluate.COLLAPSED > true:
      found.append(
        f"{predicted:.1%} of the pixels are predicted as {name!r} (truth "
        f"{true:.0%}): the rest is too rare for this loss so far. Give it more "
        "--steps, or --config.train.class_weights=median_frequency"
      )
  missed = [
    f"{name} ({shares[name][0]:.2%} of the pixels)"
    for name, iou in seen.evaluated["iou"].items()
    if shares[name][0] > 0 and iou < MISSED
  ]
  if missed:
    found.append(
      f"not learned: {', '.join(missed)}. Look at their masks; thin or small "
      "classes need larger pictures, a decoder, more --steps or class weights"
    )
  return found
