"""All measures of a prediction and their tables, for all commands that score.

Commands count, score and print through this module, so the same predictions
have the same numbers everywhere.
"""

import argparse
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import boundary
from deeplax.metrics import confusion
from deeplax.metrics import objects
from deeplax.metrics import printed

Counts = dict[str, np.ndarray]

# The boundaries in the middle of a trimap's bands, by its kind.
AROUND = {"void": "the void border", "class": "class boundaries"}
# Titles of the means of a result; those of BOUNDARY also have one by class.
BOUNDARY = {"boundary_f": "boundary F1", "boundary_iou": "boundary IoU"}
MEANS = {
  "miou": "mIoU",
  "pixel_accuracy": "pixel accuracy",
  "mean_accuracy": "mean accuracy",
  **BOUNDARY,
}


@dataclasses.dataclass(frozen=True)
class Measures:
  """The measures that are wanted besides the confusion matrix.

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
  """Return the measures of the flags of `flags.add_measure_arguments`."""
  return Measures(
    trimap=tuple(sorted(set(args.trimap))),
    boundary=args.boundary,
    objects=args.objects,
  )


def count(
  labels: np.ndarray,
  predictions: np.ndarray,
  num_classes: int,
  measured: Measures,
  ignore_label: int | None = IGNORE_LABEL,
) -> Counts:
  """Return the counts of one image; None: no label is ignored.

  Raises:
    ValueError: The sizes differ, or a value is not a class.
  """
  pair = labels, predictions, num_classes
  void: dict[str, Any] = {"ignore_label": ignore_label}
  counts: Counts = {}
  if measured.trimap:
    counts |= boundary.count_trimap(*pair, widths=measured.trimap, **void)
  if measured.boundary:
    counts |= boundary.count_f(*pair, **void)
    counts |= boundary.count_iou(*pair, **void)
  if measured.objects:
    counts |= objects.count(*pair, **void)
  return counts


def empty(num_classes: int, measured: Measures) -> Counts:
  """Return the counts of no image, to which others are added."""
  pixel = np.full((1, 1), IGNORE_LABEL)
  return count(pixel, pixel, num_classes, measured)


def add(counts: Counts, other: Counts) -> Counts:
  """Return the counts of two sets of images together."""
  return {name: counts[name] + other[name] for name in counts}


def scores(
  counts: Counts, class_names: Sequence[str], measured: Measures
) -> dict[str, Any]:
  """Return the fields of a result, from counts added over the data set."""
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
  """Return a result as text for a terminal: tables, means and confusions."""
  means = (
    f"{title} {printed.score(result[key])}"
    for key, title in MEANS.items()
    if key in result
  )
  lines = [printed.text(classes(result, class_names)), "   ".join(means)]
  if result["confusions"]:
    lines.append("most confused: " + "; ".join(confusion.in_words(result)))
  parts = ["\n".join(lines)]
  parts += [
    f"{title}\n{printed.text(lines)}"
    for title, lines in by_size_and_distance(result)
  ]
  return "\n\n".join(parts)


def classes(
  result: dict[str, Any], class_names: Sequence[str]
) -> list[list[str]]:
  """Return the table of the classes, best IoU first."""
  near = [key for key in BOUNDARY if f"{key}_class" in result]
  lines = [["class", "IoU", "precision", "recall", "of pixels", "predicted"]]
  lines[0] += [BOUNDARY[key] for key in near]
  for name in confusion.by_iou(result, class_names):
    values = [result[key][name] for key in ("iou", "precision", "recall")]
    lines.append([
      *(name, *map(printed.score, values)),
      *map(printed.share, result["pixel_share"][name]),
      *(printed.score(result[f"{key}_class"][name]) for key in near),
    ])  # fmt: skip
  return lines


def by_size_and_distance(
  result: dict[str, Any],
) -> list[tuple[str, list[list[str]]]]:
  """Return (title, table) of the scores by object size and in the trimap.

  Args:
    result: A measure that it lacks has no table.
  """
  tables = []
  if "objects" in result:
    lines = [["of the image", "objects", "mIoU", "mean recall"]]
    for size in result["objects"]:
      lines.append([
        f"{printed.share(size['from'])} to {printed.share(size['to'])}",
        f"{size['objects']:,}",
        printed.score(size["miou"]),
        printed.score(size["mean_recall"]),
      ])  # fmt: skip
    tables.append(("By the size of objects", lines))
  if "trimap" in result:
    lines = [["at most pixels away", "mIoU", "pixel accuracy"]]
    for width, miou in result["trimap"].items():
      accuracy = result["trimap_accuracy"][width]
      lines.append([width, printed.score(miou), printed.score(accuracy)])
    tables.append((f"Around {AROUND[result['trimap_kind']]}", lines))
  return tables
