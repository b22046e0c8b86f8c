"""All measures of a prediction under one roof, for every command that scores.

Commands that count and score by this module give the same numbers for the same
predictions: there is no second place that could differ.
"""

import argparse
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from deeplax.metrics import boundary
from deeplax.metrics import confusion
from deeplax.metrics import objects
from deeplax.metrics import printed

Counts = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Measures:
  """What to measure besides the confusion matrix.

  Attributes:
    trimap: Widths of the bands, pixels, ascending; (): no trimap.
    boundary: Boundary F1 and boundary IoU.
    objects: IoU and recall by object size.
  """

  trimap: tuple[int, ...] = ()
  boundary: bool = False
  objects: bool = False


CONFUSION_ONLY = Measures()


def from_flags(args: argparse.Namespace) -> Measures:
  """Return what the flags of `flags.add_measure_arguments` ask for."""
  return Measures(
    trimap=tuple(sorted(set(args.trimap))),
    boundary=args.boundary,
    objects=args.objects,
  )


# What the bands of a trimap lie around, by its kind.
AROUND = {"void": "the void border", "class": "class boundaries"}


def count(
  labels: np.ndarray,
  predictions: np.ndarray,
  num_classes: int,
  measured: Measures,
) -> Counts:
  """Count what `measured` needs in one image; 255 is ignored.

  Raises:
    ValueError: The sizes differ, or a value is no class.
  """
  pair = labels, predictions, num_classes
  counts: Counts = {}
  if measured.trimap:
    counts |= boundary.count_trimap(*pair, widths=measured.trimap)
  if measured.boundary:
    counts |= boundary.count_f(*pair) | boundary.count_iou(*pair)
  if measured.objects:
    counts |= objects.count(*pair)
  return counts


def empty(num_classes: int, measured: Measures) -> Counts:
  """Return the counts of no image, to add to."""
  pixel = np.full((1, 1), 255)  # ignored, so that it counts nowhere
  return count(pixel, pixel, num_classes, measured)


def add(counts: Counts, other: Counts) -> Counts:
  """Add the counts of two sets of images."""
  return {name: counts[name] + other[name] for name in counts}


def scores(
  counts: Counts, class_names: Sequence[str], measured: Measures
) -> dict[str, Any]:
  """Turn counts, added over the data set, into the fields of a result."""
  result: dict[str, Any] = {}
  if measured.trimap:
    result |= boundary.trimap_scores(
      counts, class_names, widths=measured.trimap
    )
  if measured.boundary:
    result |= boundary.f_scores(counts, class_names)
    result |= boundary.iou_scores(counts, class_names)
  if measured.objects:
    result |= objects.scores(counts, class_names)
  return result


def table(result: dict[str, Any], class_names: Sequence[str]) -> str:
  """Lay a whole result out for reading, whatever was measured of it."""
  parts = [confusion.table(result, class_names)]
  if "trimap" in result:
    parts.append(_trimap_table(result))
  if "boundary_f" in result:
    parts.append(_boundary_table(result, class_names))
  if "objects" in result:
    parts.append(_objects_table(result))
  return "\n\n".join(parts)


def _trimap_table(result: dict[str, Any]) -> str:
  head = f"pixels from {AROUND[result['trimap_kind']]}"
  lines = [f"{head}     mIoU   pixel accuracy"]
  for band, miou in result["trimap"].items():
    score = printed.score(miou)
    accuracy = printed.score(result["trimap_accuracy"][band])
    lines.append(f"{band:>{len(head)}}  {score:>7}   {accuracy:>14}")
  return "\n".join(lines)


def _boundary_table(result: dict[str, Any], class_names: Sequence[str]) -> str:
  by_class = [result[key] for key in ("boundary_f_class", "boundary_iou_class")]
  rows = [(name, *(by[name] for by in by_class)) for name in class_names]
  rows.append(("mean", result["boundary_f"], result["boundary_iou"]))
  width = max(len("class"), *(len(name) for name in class_names))
  lines = [f"{'class':<{width}}  boundary F1   boundary IoU"]
  for name, *values in rows:
    f, iou = map(printed.score, values)
    lines.append(f"{name:<{width}}  {f:>11}   {iou:>12}")
  return "\n".join(lines)


def _objects_table(result: dict[str, Any]) -> str:
  lines = ["object, of the image   objects     mIoU   mean recall"]
  for row in result["objects"]:
    size = f"{row['from']:.2%} to {row['to']:.2%}"
    lines.append(
      f"{size:>20}  {row['objects']:>8}  {printed.score(row['miou']):>7}"
      f"  {printed.score(row['mean_recall']):>12}"
    )
  return "\n".join(lines)
