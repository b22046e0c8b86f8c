"""The confusion matrix of a data set, and mean IoU and other scores of it.

As in the reference (tensorflow/models research/deeplab eval.py, with
tf.metrics.mean_iou), one matrix is counted over all images, and mIoU is the
mean over the classes with a non-zero union. Averaging per image or per batch
gives other numbers.
"""

from collections.abc import Sequence
import math
from typing import Any

from jaxtyping import Float, Integer
import numpy as np

from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import label_pair

Matrix = Integer[np.ndarray, "k k"]
# Of each class; NaN: there is nothing to divide by.
Shares = Float[np.ndarray, " k"]

# `scores` lists at most so many confusions, each of at least such a share.
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
    ValueError: A label or a prediction is not a class.
  """
  if labels.dtype == predictions.dtype == np.uint8 and num_classes <= 256:
    # Six times as fast as the general way below, which reports wrong values.
    pairs = (labels.astype(np.uint16) << 8) | predictions
    counts = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
    if ignore_label in range(256):
      counts[ignore_label] = 0
    of_classes = counts[:num_classes, :num_classes]
    if of_classes.sum() == counts.sum():
      return of_classes.astype(np.int64)
  truth, predicted = label_pair.pair(
    labels, predictions, num_classes, ignore_label
  )
  valid = truth != label_pair.void(num_classes)
  # int64 before the product: uint8 * 21 wraps around.
  pairs = truth[valid].astype(np.int64) * num_classes + predicted[valid]
  counts = np.bincount(pairs, minlength=num_classes**2)
  return counts.reshape(num_classes, num_classes).astype(np.int64)


def add(matrix: Matrix, other: Matrix) -> Matrix:
  """Return the counts of two sets of pixels together."""
  return matrix + other


def share(part: np.ndarray, total: np.ndarray) -> Shares:
  """Return part of total; NaN where the total is 0."""
  return np.where(total > 0, part / np.maximum(total, 1), np.nan)


def mean(shares: Shares) -> float | None:
  """Return the mean of those that are numbers; None: there are none."""
  numbers = shares[~np.isnan(shares)]
  return float(numbers.mean()) if numbers.size else None


def by_name(
  shares: Shares, class_names: Sequence[str]
) -> dict[str, float | None]:
  """Return the share of each class by its name, None for NaN."""
  return {
    name: None if math.isnan(value) else value
    for name, value in zip(class_names, shares.tolist(), strict=True)
  }


def iou(right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> Shares:
  """Return the IoU of each class; NaN: it is neither true nor predicted.

  Args:
    right: Pixels of each class that are predicted so.
    true: Pixels of each class in the truth.
    predicted: Pixels of each class in the prediction.
  """
  return share(right, true + predicted - right)


def miou(matrix: Matrix) -> float | None:
  """Return the mean IoU over the classes that are true or predicted."""
  right, true, predicted = _pixels(matrix)
  return mean(iou(right, true, predicted))


def _pixels(matrix: Matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return each class's pixels: right, true, predicted."""
  return np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)


def scores(matrix: Matrix, class_names: Sequence[str]) -> dict[str, Any]:
  """Return the papers' scores of a confusion matrix, as fractions.

  Args:
    matrix: Of `count`, added over the data set.
    class_names: One for each row, all different.

  Returns:
    miou: Mean over classes with a non-zero union.
    iou: By class name; None where the class is neither true nor predicted.
    pixel_accuracy: Share of pixels that are right.
    mean_accuracy: Mean recall over the classes in the ground truth.
    precision: By class name, share of the predicted pixels that are right; None
      where the class is not predicted.
    recall: By class name, share of the true pixels that are right; None where
      the class is not in the truth.
    pixel_share: By class name, (share of true pixels, of predicted pixels).
    confusions: [(share, true name, predicted name), ...], largest first: the
      share of the true class that was predicted as the other.
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
  right, true, predicted = _pixels(matrix)
  ious, recall = iou(right, true, predicted), share(right, true)
  of_true = matrix / np.maximum(true, 1)[:, None]
  return {
    "miou": mean(ious),
    "iou": by_name(ious, names),
    "pixel_accuracy": float(right.sum() / total),
    "mean_accuracy": mean(recall),
    "precision": by_name(share(right, predicted), names),
    "recall": by_name(recall, names),
    "pixel_share": {
      name: (float(true[i] / total), float(predicted[i] / total))
      for i, name in enumerate(names)
    },
    "confusions": [
      (value, names[i], names[j])
      for value, i, j in largest_errors(of_true, MAX_CONFUSIONS)
      if value >= MIN_CONFUSION
    ],
    "confusion_matrix": matrix.tolist(),
  }


def largest_errors(
  counts: np.ndarray, limit: int
) -> list[tuple[float | int, int, int]]:
  """Return (count or share, true, predicted) of the largest errors.

  Args:
    counts: By true class (rows) and predicted class; those that are right, on
      the diagonal, are left out.
    limit: At most so many.
  """
  errors = counts.copy()
  np.fill_diagonal(errors, 0)
  order = np.argsort(-errors, axis=None, kind="stable")[:limit]
  places = (divmod(i, len(errors)) for i in order.tolist())
  return [(errors[i, j].item(), i, j) for i, j in places if errors[i, j]]


def by_iou(scores: dict[str, Any], class_names: Sequence[str]) -> list[str]:
  """Return the classes by IoU, best first; those without an IoU come last."""

  def key(name: str) -> float:
    iou = scores["iou"][name]
    return -1.0 if iou is None else iou

  return sorted(class_names, key=key, reverse=True)


def in_words(scores: dict[str, Any], *, limit: int = 5) -> list[str]:
  """Return the largest confusions as "23% of sheep called cow"."""
  return [
    f"{share:.0%} of {true} called {predicted}"
    for share, true, predicted in scores["confusions"][:limit]
  ]
