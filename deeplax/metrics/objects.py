"""IoU and recall by the size of objects: what context at several rates is for.

An object is a connected component (8 neighbors) of a class in the truth: what
touches is one object, and void parts objects. Sizes are fixed shares of the
image's area, not quantiles: they mean the same on every split, and counts of
images add up.
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

# Shares of the image's area that part the five sizes: of a square object, its
# side is 1/32, 1/16, 1/8 and 1/4 of a square image's.
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
  class belongs to the object of that class that its predicted component covers
  most of (of two, to the larger); if that covers none, it is a false object,
  of the component's own size. So each pixel counts once, and the sum over sizes
  is the confusion matrix's.

  Args:
    labels: True classes, and `ignore_label`.
    predictions: Predicted classes.
    num_classes: Background included.
    ignore_label: Of void; None: there is none.

  Returns:
    objects: [size, class][objects, their pixels, those that are right, pixels
      wrongly predicted as the class].

  Raises:
    ValueError: A value is no class.
  """
  truth, found = label_pair.pair(labels, predictions, num_classes, ignore_label)
  result = np.zeros((SIZES, num_classes, 4), np.int64)
  there = np.union1d(np.unique(truth), np.unique(found))
  for k in there[there < num_classes].tolist():
    result[:, k] = _count_class(truth == k, found == k)
  return {"objects": result}


def _count_class(
  truth: Bool[np.ndarray, "h w"], found: Bool[np.ndarray, "h w"]
) -> Int64[np.ndarray, "s 4"]:
  area = truth.size
  window = _window(truth | found)
  truth, found = truth[window], found[window]
  objects, true_areas = _components(truth)
  parts, areas = _components(found)
  right, wrong = found & truth, found & ~truth
  sizes = _sizes(true_areas, area)
  # Component 0 is all that is not of the class.
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
  """Return where a mask lies: most classes fill a part of the image only."""
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
  # The edges are powers of two, and the products exact.
  return np.searchsorted(np.array(EDGES) * image, areas, side="right")


def _owners(
  parts: Integer[np.ndarray, " n"],
  objects: Integer[np.ndarray, " n"],
  areas: Int64[np.ndarray, " p"],
  true_areas: Int64[np.ndarray, " o"],
) -> Int64[np.ndarray, " p"]:
  """Return the object that each predicted part covers most of, 0: none."""
  owners = np.zeros(len(areas), np.int64)
  pairs, shared = np.unique(
    parts.astype(np.int64) * len(true_areas) + objects, return_counts=True
  )
  part, thing = np.divmod(pairs, len(true_areas))
  order = np.lexsort((-thing, true_areas[thing], shared))
  owners[part[order]] = thing[order]  # the last one stays
  return owners


def scores(counts: Counts, class_names: Sequence[str]) -> dict[str, Any]:
  """Turn counts of `count` into scores by size, as fractions.

  Args:
    counts: Added over the data set.
    class_names: One for each class.

  Returns:
    objects: For each size, small first: "from" and "to" (shares of the image's
      area), "objects" (how many), "miou" and "mean_recall" (over the classes
      with objects of that size; None: there are none), "iou" and "recall" by
      class name (None without objects).
  """
  edges = (0.0, *EDGES, 1.0)
  result = []
  for size, rows in enumerate(counts["objects"]):
    number, true, right, false = rows.T
    # Classes without an object of this size have no score, only false pixels.
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
