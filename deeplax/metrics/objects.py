"""IoU and recall by object size: the scores that atrous rates should change.

An object is a connected component (8 neighbors) of a class in the truth:
objects that touch are one, and void separates objects. Sizes are fixed shares
of the image's area, not quantiles: they mean the same on every split, and the
counts of images add up.
"""

from collections.abc import Sequence
from typing import Any

import cv2
from jaxtyping import Bool, Int64, Integer
import numpy as np

from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import confusion
from deeplax.metrics import label_pair

Counts = dict[str, np.ndarray]

# Shares of the image's area between the five sizes. The side of a square object
# is then 1/32, 1/16, 1/8 and 1/4 of that of a square image.
EDGES = (1 / 1024, 1 / 256, 1 / 64, 1 / 16)
SIZES = len(EDGES) + 1


def count(
  labels: label_pair.Labels,
  predictions: label_pair.Labels,
  num_classes: int,
  *,
  ignore_label: int | None = IGNORE_LABEL,
) -> Counts:
  """Count pixels by the size of the object they belong to.

  A true pixel belongs to its object. A pixel that is wrongly predicted as a
  class belongs to the object of that class with which its predicted component
  shares most pixels (of equals, to the larger object); a component that shares
  none is a false object of its own size. Each pixel counts once, so the sum
  over sizes is that of the confusion matrix.

  Args:
    labels: True classes, and `ignore_label`.
    predictions: Predicted classes.
    num_classes: Background included.
    ignore_label: Label of void pixels; None: no pixel is void.

  Returns:
    objects: [size, class][number of objects, their pixels, how many of these
      are right, pixels wrongly predicted as the class].

  Raises:
    ValueError: A value is not a class.
  """
  truth, predicted = label_pair.pair(
    labels, predictions, num_classes, ignore_label
  )
  result = np.zeros((SIZES, num_classes, 4), np.int64)
  classes = np.union1d(truth, predicted)
  for k in classes[classes < num_classes].tolist():
    result[:, k] = _count_class(truth == k, predicted == k)
  return {"objects": result}


def _count_class(
  truth: Bool[np.ndarray, "h w"], predicted: Bool[np.ndarray, "h w"]
) -> Int64[np.ndarray, "s 4"]:
  area = truth.size
  window = _window(truth | predicted)
  truth, predicted = truth[window], predicted[window]
  objects, true_areas = _components(truth)
  parts, areas = _components(predicted)
  right, wrong = predicted & truth, predicted & ~truth
  sizes = _sizes(true_areas, area)
  # Component 0 is the rest of the image: it is skipped.
  result = np.zeros((SIZES, 4), np.int64)
  np.add.at(result[:, 0], sizes[1:], 1)
  np.add.at(result[:, 1], sizes[1:], true_areas[1:])
  hits = np.bincount(objects[right], minlength=len(true_areas))
  np.add.at(result[:, 2], sizes[1:], hits[1:])
  owners = _owners(parts[right], objects[right], areas, true_areas)
  charged = np.where(owners > 0, sizes[owners], _sizes(areas, area))
  false = np.bincount(parts[wrong], minlength=len(areas))
  np.add.at(result[:, 3], charged[1:], false[1:])
  return result


def _window(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
  """Return the bounding box of a mask: most classes fill little of an image."""
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _components(
  mask: Bool[np.ndarray, "h w"],
) -> tuple[Integer[np.ndarray, "h w"], Int64[np.ndarray, " n"]]:
  """Return the component of each pixel, 0 outside, and their areas."""
  _, parts, stats, _ = cv2.connectedComponentsWithStats(
    mask.astype(np.uint8), connectivity=8
  )
  return parts, stats[:, cv2.CC_STAT_AREA].astype(np.int64)


def _sizes(
  areas: Int64[np.ndarray, " n"], image: int
) -> Int64[np.ndarray, " n"]:
  # The edges are powers of two, so the products are exact.
  return np.searchsorted(np.array(EDGES) * image, areas, side="right")


def _owners(
  parts: Integer[np.ndarray, " n"],
  objects: Integer[np.ndarray, " n"],
  areas: Int64[np.ndarray, " p"],
  true_areas: Int64[np.ndarray, " o"],
) -> Int64[np.ndarray, " p"]:
  """Return the object that each predicted part overlaps most; 0: none."""
  owners = np.zeros(len(areas), np.int64)
  pairs, shared = np.unique(
    parts.astype(np.int64) * len(true_areas) + objects, return_counts=True
  )
  part, thing = np.divmod(pairs, len(true_areas))
  order = np.lexsort((-thing, true_areas[thing], shared))
  owners[part[order]] = thing[order]  # the last assignment wins
  return owners


def scores(counts: Counts, class_names: Sequence[str]) -> dict[str, Any]:
  """Return the scores of each size, as fractions.

  Args:
    counts: Of `count`, added over the data set.
    class_names: One for each class.

  Returns:
    objects: For each size, small first: "from" and "to" (shares of the image's
      area), "objects" (their number), "miou" and "mean_recall" (over the
      classes with objects of that size; None: no class has any), "iou" and
      "recall" by class name (None without objects).
  """
  edges = (0.0, *EDGES, 1.0)
  result = []
  for size, rows in enumerate(counts["objects"]):
    number, true, right, false = rows.T
    # A class without an object of this size has no score, at most wrong pixels.
    true = np.where(number > 0, true, np.nan)
    iou = right / (true + false)
    recall = right / true
    result.append(
      {
        "from": edges[size],
        "to": edges[size + 1],
        "objects": int(number.sum()),
        "miou": confusion.mean(iou),
        "mean_recall": confusion.mean(recall),
        "iou": confusion.by_name(iou, class_names),
        "recall": confusion.by_name(recall, class_names),
      }
    )
  return {"objects": result}
