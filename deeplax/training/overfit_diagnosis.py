"""Why a network did not memorize a few images, from the losses and scores."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from deeplax.inference import evaluate
from deeplax.metrics import printed

SPARSE = 0.05  # a smaller share of labeled pixels points to faulty masks
MISSED = 0.5  # IoU below which a class counts as not learned
GAP = 0.05  # largest gap in mIoU between the two kinds of norm statistics
# Multiples of the first loss: above ROSE it rose, from FELL up it never fell.
ROSE, FELL = 1.5, 0.9


@dataclasses.dataclass
class Trial:
  """One attempt at memorizing a few images, and what it measured.

  Attributes:
    base_lr: The configuration's learning rate.
    clip_norm: The configuration's; 0: gradients are not clipped.
    init: The workdir that the parameters come from; None: drawn at random.
    frozen: Whether the norms keep their statistics.
    labeled: Share of the pixels that have a label.
    classes: Number of classes that occur.
    contradictions: Pairs of names: one image, two masks.
    losses: One for each step; the last may not be finite.
    evaluated: Scores (`confusion.scores`) with running norm statistics; empty
      before the first evaluation.
    trained: Scores with the batch's own statistics, as training uses them.
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
    """The mIoU with running statistics, which evaluation and prediction use."""
    return self.evaluated.get("miou", 0.0)


def contradictions(
  batch: dict[str, np.ndarray], names: Sequence[str]
) -> list[tuple[str, str]]:
  """Return pairs of equal images whose labels differ."""
  pairs = []
  for i in range(len(names)):
    for j in range(i):
      same = np.array_equal(batch["image"][i], batch["image"][j])
      if same and not np.array_equal(batch["label"][i], batch["label"][j]):
        pairs.append((names[j], names[i]))
  return pairs


def diagnose(trial: Trial) -> list[str]:
  """Return what keeps the network from learning, the likeliest cause first."""
  causes = of_data(trial)
  if not trial.losses:
    return causes
  if trial.frozen and trial.init is None:
    causes.append(
      "the norms are frozen: from random weights a network hardly learns so. "
      "Start from trained weights, --config.init.checkpoint=DIR, or set "
      "--config.model.batch_norm.mode=train"
    )
  causes += _of_loss(trial)
  # If the loss never fell, poor scores are only a consequence.
  if trial.losses[-1] <= FELL * trial.losses[0]:
    causes += _of_scores(trial)
  return causes or [
    f"no single cause: the loss fell from {trial.losses[0]:.3g} to "
    f"{trial.losses[-1]:.3g} and every class is partly learned. Give it more "
    "--steps"
  ]


def of_data(trial: Trial) -> list[str]:
  """Return the causes that lie in the images and masks alone."""
  causes = [
    f"{one} and {other} are the same picture with different masks: no "
    "network can learn both. Remove one"
    for one, other in trial.contradictions[:3]
  ]
  if trial.labeled < SPARSE:
    causes.append(
      f"only {trial.labeled:.1%} of the pixels have a label; the rest is "
      "ignored. Check ignore_label and label_map: python -m deeplax.check_data"
    )
  if trial.classes < 2:
    causes.append(
      f"{trial.classes or 'no'} class occurs in these crops, so that there is "
      "nothing to tell apart. Take more --images or a larger "
      "--config.data.crop_size, or check the masks: python -m "
      "deeplax.check_data"
    )
  return causes


def _of_loss(trial: Trial) -> list[str]:
  losses = trial.losses
  first, last, peak = losses[0], losses[-1], np.max(losses)
  lower = f"--config.optim.base_lr={trial.base_lr / 10:g}"
  if not math.isfinite(last):
    return [
      f"the loss is {last} after {len(losses)} steps: the learning rate "
      f"is too high. Set {lower}"
    ]
  if peak > ROSE * first:
    step = int(np.argmax(losses)) + 1
    return [
      f"the loss rose from {first:.3g} to {peak:.3g} at step {step}: the "
      f"learning rate is too high. Set {lower}"
    ]
  if last <= FELL * first:
    return []
  text = (
    f"the loss went from {first:.4g} to {last:.4g} and was never much higher: "
    f"the learning rate is too low for {len(losses)} steps. Set "
    f"--config.optim.base_lr={trial.base_lr * 10:g}, or give it more --steps"
  )
  if trial.clip_norm:
    text += f", or a larger --config.optim.clip_norm than {trial.clip_norm:g}"
  return [text]


def _of_scores(trial: Trial) -> list[str]:
  causes = []
  if trial.trained["miou"] - trial.miou > GAP:
    causes.append(
      f"mIoU is {printed.score(trial.trained['miou'])} with the batch's own "
      f"norm statistics and {printed.score(trial.miou)} with the running ones: "
      "these lag behind. Give it more --steps; in the real run lower "
      "--config.model.batch_norm.decay or use python -m deeplax.recalibrate"
    )
  shares = trial.evaluated["pixel_share"]
  for name, (true, predicted) in shares.items():
    if predicted > evaluate.COLLAPSED > true:
      causes.append(
        f"{predicted:.1%} of the pixels are predicted as {name!r} (truth "
        f"{true:.0%}): the rest is too rare for this loss so far. Give it more "
        "--steps, or --config.train.class_weights=median_frequency"
      )
  missed = [
    f"{name} ({shares[name][0]:.2%} of the pixels)"
    for name, iou in trial.evaluated["iou"].items()
    if shares[name][0] > 0 and iou < MISSED
  ]
  if missed:
    causes.append(
      f"not learned: {', '.join(missed)}. Look at their masks; thin or small "
      "classes need larger pictures, a decoder, more --steps or class weights"
    )
  return causes
