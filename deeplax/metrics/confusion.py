"""Mean intersection over union, counted over a whole data set.

The reference counts one confusion matrix over all images and averages over the
classes with a non-zero union (tensorflow/models research/deeplab eval.py, by
tf.metrics.mean_iou). Averaging per image or per batch gives other numbers.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Integer
import numpy as np

from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import printed

Matrix = Integer[np.ndarray, "k k"]

# Confusions kept in `scores`: at most so many, each at least such a share.
MAX_CONFUSIONS = 10
MIN_CONFUSION = 0.01


def count(
  labels: Integer[np.ndarray, "*n"],
  predictions: Integer[np.ndarray, "*n"],
  num_classes: int,
  ignore_label: int | None = IGNORE_LABEL,
) -> Matrix:
  """Count pixels by true class (rows) and predicted class (columns).

  Args:
    labels: True classes; pixels of `ignore_label` are not counted.
    predictions: Predicted classes.
    num_classes: Background included.
    ignore_label: None counts every pixel.

  Raises:
    ValueError: A label or a prediction is no class: a silent wrong count would
      be a wrong mIoU.
  """
  if labels.dtype == predictions.dtype == np.uint8 and num_classes <= 256:
    # Six times as fast as what follows, which says what is wrong.
    pairs = (labels.astype(np.uint16) << 8) | predictions
    table = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
    if ignore_label in range(256):
      table[ignore_label] = 0
    known = table[:num_classes, :num_classes]
    if known.sum() == table.sum():
      return known.astype(np.int64)
  valid = np.ones(labels.shape, bool)
  if ignore_label is not None:
    valid = labels != ignore_label
  # int64 before the product: uint8 * 21 wraps around.
  truth = labels[valid].astype(np.int64)
  predicted = predictions[valid].astype(np.int64)
  for name, values in (("labels", truth), ("predictions", predicted)):
    if values.size and (values.min() < 0 or values.max() >= num_classes):
      bad = np.unique(values[(values < 0) | (values >= num_classes)])
      raise ValueError(
        f"{name} have values {bad[:8].tolist()} but num_classes={num_classes} "
        f"allows 0..{num_classes - 1} (and {ignore_label} = ignore in labels)"
      )
  pairs = np.bincount(truth * num_classes + predicted, minlength=num_classes**2)
  return pairs.reshape(num_classes, num_classes).astype(np.int64)


def add(matrix: Matrix, other: Matrix) -> Matrix:
  """Add the counts of two sets of pixels."""
  return matrix + other


def scores(matrix: Matrix, class_names: Sequence[str]) -> dict[str, Any]:
  """Turn a confusion matrix into the numbers of the papers, as fractions.

  Args:
    matrix: Of `count`, added over the data set.
    class_names: One for each row, all different.

  Returns:
    miou: Mean over classes with a non-zero union.
    iou: By class name; None where the class is neither true nor predicted.
    pixel_accuracy: Share of pixels that are right.
    mean_accuracy: Mean recall over the classes in the ground truth.
    precision: By class name, share of the pixels predicted so that are right;
      None where there are none.
    recall: By class name, share of the true pixels that are right; None where
      there are none.
    pixel_share: By class name, (share of true pixels, of predicted pixels).
    confusions: [(share, true name, predicted name), ...], largest first: this
      share of the true class was predicted as the other.
    confusion_matrix: Pixels by true class (rows) and predicted class, in the
      order of `class_names`.
  """
  names = list(class_names)
  if len(names) != len(matrix) or len(set(names)) != len(names):
    raise ValueError(
      f"class_names must be {len(matrix)} different names, got {names}"
    )
  total = int(matrix.sum())
  if not total:
    raise ValueError("no pixel was counted: every label is the ignore label")
  right = np.diagonal(matrix)
  true, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
  union = true + predicted - right
  iou = right / np.maximum(union, 1)
  recall = right / np.maximum(true, 1)
  precision = right / np.maximum(predicted, 1)
  return {
    "miou": float(iou[union > 0].mean()),
    "iou": _by_name(names, iou, union),
    "pixel_accuracy": float(right.sum() / total),
    "mean_accuracy": float(recall[true > 0].mean()),
    "precision": _by_name(names, precision, predicted),
    "recall": _by_name(names, recall, true),
    "pixel_share": {
      name: (float(true[i] / total), float(predicted[i] / total))
      for i, name in enumerate(names)
    },
    "confusions": _confusions(matrix, names),
    "confusion_matrix": matrix.tolist(),
  }


def _by_name(
  names: list[str], values: np.ndarray, pixels: np.ndarray
) -> dict[str, float | None]:
  """Name the values; those of no pixel are None."""
  return {
    name: float(value) if count else None
    for name, value, count in zip(names, values, pixels, strict=True)
  }


def _confusions(
  matrix: Matrix, names: list[str]
) -> list[tuple[float, str, str]]:
  shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  np.fill_diagonal(shares, 0.0)
  order = np.argsort(-shares, axis=None, kind="stable")[:MAX_CONFUSIONS]
  pairs = [divmod(int(i), len(names)) for i in order]
  return [
    (float(shares[i, j]), names[i], names[j])
    for i, j in pairs
    if shares[i, j] >= MIN_CONFUSION
  ]


def table(scores: dict[str, Any], class_names: Sequence[str]) -> str:
  """Lay the scores out for reading, the worst class last.

  Args:
    scores: Of `scores`.
    class_names: The rows to show.
  """
  rows = by_iou(scores, class_names)
  width = max(len("class"), *(len(name) for name in rows))
  lines = [
    f"{'class':<{width}}      IoU  precision   recall   of pixels   predicted"
  ]
  for name in rows:
    iou = printed.score(scores["iou"][name], "absent")
    precision, recall = (
      printed.score(scores[key][name]) for key in ("precision", "recall")
    )
    true, predicted = scores["pixel_share"][name]
    lines.append(
      f"{name:<{width}}  {iou:>7}  {precision:>9}  {recall:>7}"
      f"  {true:>10.2%}  {predicted:>10.2%}"
    )
  lines.append(
    f"mIoU {printed.score(scores['miou'])}   "
    f"pixel accuracy {printed.score(scores['pixel_accuracy'])}   "
    f"mean accuracy {printed.score(scores['mean_accuracy'])}"
  )
  if scores["confusions"]:
    lines.append("most confused: " + "; ".join(in_words(scores, limit=5)))
  return "\n".join(lines)


def by_iou(scores: dict[str, Any], class_names: Sequence[str]) -> list[str]:
  """Sort classes by IoU, best first; those without an IoU come last."""

  def key(name: str) -> float:
    iou = scores["iou"][name]
    return -1.0 if iou is None else iou

  return sorted(class_names, key=key, reverse=True)


def in_words(scores: dict[str, Any], *, limit: int = 5) -> list[str]:
  """Return the top confusions as "23% of sheep called cow"."""
  return [
    f"{share:.0%} of {true} called {predicted}"
    for share, true, predicted in scores["confusions"][:limit]
  ]
