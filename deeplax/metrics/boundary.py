"""Scores of a segmentation near boundaries: trimap, boundary F1, boundary IoU.

Each measure has a `count_...` for one image and a `..._scores`. Counts are
int64, so the counts of a split are the sum of its images' counts, in any order
and over any number of processes.

Void (ignored) pixels have no class in truth or prediction: where the truth is
void, the prediction is made void too. A true class therefore ends where void
begins, as the objects of PASCAL VOC do, and predictions in void change nothing.
"""

from collections.abc import Sequence
from typing import Any

import cv2
from jaxtyping import Bool, Int64, Integer
import numpy as np

from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import confusion
from deeplax.metrics import label_pair

Labels = label_pair.Labels
Counts = dict[str, np.ndarray]

# The boundaries around which `count_trimap` counts.
KINDS = ("void", "class")
# Ratio of class borders to void borders below which void separates the classes.
# It is 0.03 in a mask of PASCAL VOC 2012, and 3 in CamVid.
VOID_PARTS = 0.25

# Share of the image's diagonal: SegNet (1511.00561), sec. 4.1.
F_TOLERANCE = 0.0075
# F1 scores are summed as multiples of 1 / F_UNIT: integers have the same sum in
# any order, and int64 has room for 2**31 images.
F_UNIT = 1 << 32

# d as a share of the image's diagonal: Cheng et al. 2021 (2103.16562), sec. 5.
IOU_DISTANCE = 0.02


def count_trimap(
  labels: Labels,
  predictions: Labels,
  num_classes: int,
  *,
  widths: Sequence[int],
  ignore_label: int | None = IGNORE_LABEL,
) -> Counts:
  """Count confusions in bands around the true boundaries, a trimap.

  A band of "void" holds the pixels at most `width` pixels (Euclidean) from
  void; void itself is not counted. This is how v2 (1606.00915, fig. 10) and v3+
  (1802.02611, sec. 4.4 and fig. 5) dilate the void label of PASCAL VOC; they do
  not state the shape of their kernel. A band of "class" is the same for data
  without a void border: a pixel next to (4 neighbors) one of another class is
  at distance 1, the next at 2, and so on, on both sides.

  Args:
    labels: True classes, and `ignore_label`.
    predictions: Predicted classes.
    num_classes: Background included.
    widths: Pixels, ascending.
    ignore_label: Label of void pixels; None: no pixel is void.

  Returns:
    trimap: [kind, width, true class, predicted class], by KINDS.
    borders: Number of pixel sides between two classes, and between a class and
      void.

  Raises:
    ValueError: The widths do not ascend from 1, or a value is not a class.
  """
  if not widths or list(widths) != sorted({w for w in widths if w >= 1}):
    raise ValueError(f"widths {list(widths)} must ascend and be 1 or more")
  truth, predicted = label_pair.pair(
    labels, predictions, num_classes, ignore_label
  )
  valid = truth != label_pair.void(num_classes)
  beside, borders = _borders(truth, valid)
  bands = [
    # Pixels at the boundary have distance 0 and belong to the band of width 1.
    _bands(~valid, valid, truth, predicted, num_classes, np.array(widths)),
    _bands(beside, valid, truth, predicted, num_classes, np.array(widths) - 1),
  ]
  return {"trimap": np.stack(bands), "borders": borders}


def _borders(
  truth: Labels, valid: Bool[np.ndarray, "h w"]
) -> tuple[Bool[np.ndarray, "h w"], Int64[np.ndarray, " 2"]]:
  """Return the pixels next to another class, and `borders` of count_trimap."""
  beside = np.zeros(truth.shape, bool)
  borders = np.zeros(2, np.int64)
  for a, b in (
    (np.s_[1:], np.s_[:-1]),
    (np.s_[:, 1:], np.s_[:, :-1]),
  ):
    differ = (truth[a] != truth[b]) & valid[a] & valid[b]
    beside[a] |= differ
    beside[b] |= differ
    borders += np.count_nonzero(differ), np.count_nonzero(valid[a] ^ valid[b])
  return beside, borders


def _bands(
  start: Bool[np.ndarray, "h w"],
  valid: Bool[np.ndarray, "h w"],
  truth: Labels,
  predicted: Labels,
  k: int,
  limits: Integer[np.ndarray, " n"],
) -> Int64[np.ndarray, "n k k"]:
  """Count confusions within each distance of `start`."""
  if not start.any():
    return np.zeros((len(limits), k, k), np.int64)
  away = cv2.distanceTransform(
    (~start).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
  )
  inside = valid & (away < limits[-1] + 0.5)
  # Squared distances between pixels are integers: rounding makes them exact.
  square = np.rint(np.square(away[inside])).astype(np.int64)
  ring = np.searchsorted(limits * limits, square)
  pairs = truth[inside].astype(np.int64) * k + predicted[inside]
  size = k * k
  rings = np.bincount(ring * size + pairs, minlength=(len(limits) + 1) * size)
  # The last ring holds the pixels beyond the widest band.
  return rings.reshape(-1, k, k)[: len(limits)].cumsum(axis=0, dtype=np.int64)


def trimap_kind(borders: Int64[np.ndarray, " 2"]) -> str:
  """Return the one of KINDS that suits data with these borders.

  It is "void" if void separates the classes, as around the objects of PASCAL
  VOC, else "class".

  Args:
    borders: Of `count_trimap`, added over the split.
  """
  between, void = borders.tolist()
  return "void" if between < VOID_PARTS * void else "class"


def trimap_scores(
  counts: Counts, class_names: Sequence[str], *, widths: Sequence[int]
) -> dict[str, Any]:
  """Return the papers' curves of a trimap, as fractions.

  Args:
    counts: Of `count_trimap`, added over the data set.
    class_names: One for each class.
    widths: Those of `count_trimap`.

  Returns:
    trimap_kind: "void" or "class", of `trimap_kind`.
    trimap: mIoU in the band by width (a string); None: the band has no pixel.
    trimap_accuracy: Pixel accuracy by width.
    trimap_iou: IoU by width and class name.
  """
  kind = trimap_kind(counts["borders"])
  empty: dict[str, Any] = {"iou": dict.fromkeys(class_names)}
  scores = {
    str(width): confusion.scores(matrix, class_names) if matrix.any() else empty
    for width, matrix in zip(
      widths, counts["trimap"][KINDS.index(kind)], strict=True
    )
  }
  return {
    "trimap_kind": kind,
    "trimap": {w: s.get("miou") for w, s in scores.items()},
    "trimap_accuracy": {w: s.get("pixel_accuracy") for w, s in scores.items()},
    "trimap_iou": {w: s["iou"] for w, s in scores.items()},
  }


def count_f(
  labels: Labels,
  predictions: Labels,
  num_classes: int,
  *,
  ignore_label: int | None = IGNORE_LABEL,
  tolerance: float = F_TOLERANCE,
) -> Counts:
  """Count the boundary F1 of an image (SegNet, 1511.00561, sec. 4.1).

  The boundary of a class consists of its pixels next to (4 neighbors) a pixel
  of another class; the image's frame is not a boundary. Matching follows Csurka
  et al. (BMVC 2013): a predicted boundary pixel is right if a true boundary
  pixel of its class is closer than `tolerance` times the image's diagonal, and
  a true one is recalled if a predicted one is; several may share a partner. F1
  is the harmonic mean of precision and recall. The F1 of an image is the mean
  over the classes in its truth, as the paper says; the authors' script adds
  those that are only predicted. A class without any boundary has no F1.

  Args:
    labels: True classes, and `ignore_label`.
    predictions: Predicted classes.
    num_classes: Background included.
    ignore_label: Label of void pixels; None: no pixel is void.
    tolerance: Share of the diagonal.

  Returns:
    boundary_f: [class, last the image][sum of F1 in 1 / F_UNIT, number of F1].

  Raises:
    ValueError: A value is not a class.
  """
  truth, predicted = label_pair.pair(
    labels, predictions, num_classes, ignore_label
  )
  empty = label_pair.void(num_classes)
  present = np.zeros(empty + 1, bool)
  present[truth.ravel()] = True
  edges = [_edges(side, empty) for side in (truth, predicted)]
  steps = _disc(tolerance * float(np.hypot(*truth.shape)))
  # Boundary pixels of each class, and those with a partner.
  of_truth, of_prediction = (
    _per_class(edge[edge != empty], num_classes) for edge in edges
  )
  recalled = _per_class(_near(edges[0], edges[1], steps, empty), num_classes)
  right = _per_class(_near(edges[1], edges[0], steps, empty), num_classes)
  precision = right / np.maximum(of_prediction, 1)
  recall = recalled / np.maximum(of_truth, 1)
  both = precision + recall
  f = 2 * precision * recall / np.where(both > 0, both, 1)
  counted = present[:num_classes] & (of_truth + of_prediction > 0)
  result = np.zeros((num_classes + 1, 2), np.int64)
  if counted.any():
    result[:-1, 0] = np.where(counted, np.rint(f * F_UNIT), 0)
    result[:-1, 1] = counted
    result[-1] = np.rint(f[counted].mean() * F_UNIT), 1
  return {"boundary_f": result}


def _per_class(
  classes: Integer[np.ndarray, " n"], k: int
) -> Int64[np.ndarray, " k"]:
  return np.bincount(classes, minlength=k).astype(np.int64)


def _edges(classes: Labels, empty: int) -> Labels:
  """Return the classes on their boundary pixels, `empty` elsewhere."""
  cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
  return _changing(classes, cross, empty, borderType=cv2.BORDER_REPLICATE)


def _changing(
  classes: Labels, window: np.ndarray, empty: int, **border: Any
) -> Labels:
  """Return the classes where a window has several, `empty` elsewhere.

  Args:
    window: Neighbors that are looked at.
    **border: For cv2, the pixels beyond the frame.
  """
  low, high = (f(classes, window, **border) for f in (cv2.erode, cv2.dilate))
  return np.where(low != high, classes, classes.dtype.type(empty))


def _disc(radius: float) -> Int64[np.ndarray, "n 2"]:
  """Return the (row, column) offsets within a radius, the nearest first."""
  reach = int(np.ceil(radius))
  side = np.arange(-reach, reach + 1)
  rows, columns = (x.ravel() for x in np.meshgrid(side, side, indexing="ij"))
  square = rows * rows + columns * columns
  order = np.argsort(square, kind="stable")
  order = order[square[order] < radius * radius]
  return np.stack([rows[order], columns[order]], axis=1)


def _near(
  edges: Labels,
  others: Labels,
  steps: Int64[np.ndarray, "n 2"],
  empty: int,
) -> Integer[np.ndarray, " m"]:
  """Return the classes of the edge pixels with one of their class near.

  Most have one within a step or two, and only the others are searched further:
  less work than a distance transform of the image for each class.

  Args:
    edges: Classes on boundary pixels, else `empty`.
    others: The same of the other map.
    steps: Offsets to search, of `_disc`.
    empty: Number of the pixels off the boundaries.
  """
  reach = int(np.abs(steps).max(initial=0))
  padded = np.pad(others, reach, constant_values=empty)
  rows, columns = np.nonzero(edges != empty)
  stride = padded.shape[1]
  places = (rows + reach) * stride + columns + reach
  classes, flat = edges[rows, columns], padded.ravel()
  near = [classes[:0]]
  for step in (steps[:, 0] * stride + steps[:, 1]).tolist():
    same = flat[places + step] == classes
    near.append(classes[same])
    places, classes = places[~same], classes[~same]
    if not len(places):
      break
  return np.concatenate(near)


def f_scores(counts: Counts, class_names: Sequence[str]) -> dict[str, Any]:
  """Return the means of F1 over images, as fractions.

  Args:
    counts: Of `count_f`, added over the data set.
    class_names: One for each class.

  Returns:
    boundary_f: Mean of the images' means; None: no image has a boundary.
    boundary_f_class: By class name, the mean over the images with the class in
      their truth; None: no image has it.
  """
  total, images = counts["boundary_f"].T
  f = confusion.share(total / F_UNIT, images)
  return {
    "boundary_f": confusion.mean(f[-1:]),
    "boundary_f_class": confusion.by_name(f[:-1], class_names),
  }


def count_iou(
  labels: Labels,
  predictions: Labels,
  num_classes: int,
  *,
  ignore_label: int | None = IGNORE_LABEL,
  distance: float = IOU_DISTANCE,
) -> Counts:
  """Count boundary IoU (Cheng et al., CVPR 2021, 2103.16562, sec. 5).

  It is the IoU of the rims of truth and prediction. The rim of a class is its
  pixels at most d pixels inside its boundary; d is `distance` times the image's
  diagonal, rounded, and at least 1. As in the authors' code, distance counts
  rows, columns and diagonals alike, and the image's frame is a boundary. They
  compare single objects; here all pixels of a class form one region. Their d is
  2% of the diagonal on COCO and LVIS, as here, and 0.5% on Cityscapes.

  Args:
    labels: True classes, and `ignore_label`.
    predictions: Predicted classes.
    num_classes: Background included.
    ignore_label: Label of void pixels; None: no pixel is void.
    distance: Share of the diagonal.

  Returns:
    boundary_iou: [class][pixels of both rims, of the true, of the predicted].

  Raises:
    ValueError: A value is not a class.
  """
  truth, predicted = label_pair.pair(
    labels, predictions, num_classes, ignore_label
  )
  empty = label_pair.void(num_classes)
  d = max(1, round(distance * float(np.hypot(*truth.shape))))
  rims = [_rims(side, d, empty) for side in (truth, predicted)]
  both = rims[0][rims[0] == rims[1]]
  result = [
    _per_class(classes[classes != empty], num_classes)
    for classes in (both, *rims)
  ]
  return {"boundary_iou": np.stack(result, axis=1)}


def _rims(classes: Labels, d: int, empty: int) -> Labels:
  """Return the classes at most `d` inside their boundary, else `empty`."""
  window = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
  # A window inside a region holds one class. Beyond the frame all is void.
  return _changing(
    classes,
    window,
    empty,
    borderType=cv2.BORDER_CONSTANT,
    borderValue=(empty,),
  )


def iou_scores(counts: Counts, class_names: Sequence[str]) -> dict[str, Any]:
  """Return boundary IoU, as fractions.

  Args:
    counts: Of `count_iou`, added over the data set before they are divided, as
      for mIoU.
    class_names: One for each class.

  Returns:
    boundary_iou: Mean over the classes that are true or predicted somewhere;
      None: no class is.
    boundary_iou_class: By class name; None: neither true nor predicted.
  """
  both, true, predicted = counts["boundary_iou"].T
  ious = confusion.iou(both, true, predicted)
  return {
    "boundary_iou": confusion.mean(ious),
    "boundary_iou_class": confusion.by_name(ious, class_names),
  }
