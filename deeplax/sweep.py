"""The papers' table: output strides, scales and flips of one network.

`python -m deeplax.evaluate` runs it; see `config.eval.sweep`.
"""

import argparse
from collections.abc import Sequence
import math
import time
from typing import Any, NamedTuple

from etils import epath
import flax.linen as nn
from jaxtyping import Num
import numpy as np

from deeplax import averaging
from deeplax import inference
from deeplax import logs
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.models import cost

# One image in so many is waited for at every step, to say how long a row takes;
# the others keep device and host busy at the same time.
TIMED = 16
OPERATIONS = ("multiply_adds", "multiply_adds_paper")
# Measures beside mIoU that a column is made of where a result has them.
MEASURES = {
  "boundary_f": "boundary F1",
  "boundary_iou": "boundary IoU",
}
# Other fields of a result that a row has where they were measured.
MEASURED = ("trimap_kind", "trimap", "trimap_accuracy", "objects")


def chosen(
  config: Any, args: argparse.Namespace
) -> tuple[tuple[int, ...], tuple[averaging.Mode, ...]]:
  """Return the output strides and modes that a command line asks for.

  Without flags these are the papers' rows for each output stride: one scale,
  all scales, all scales and flip. A flag that names a stride, scales or a flip
  asks for that one evaluation, and --sweep for the table with these values.

  Args:
    config: Of the run.
    args: With sweep, output_strides, scales and flip; None: not given.

  Raises:
    ValueError: A scale is wrong.
  """
  one = (args.output_strides, args.scales, args.flip) != (None, None, None)
  strides, scales = args.output_strides, args.scales
  if args.sweep is False or (one and not args.sweep):
    stride = config.eval.output_stride or config.model.output_stride
    flip = config.eval.flip if args.flip is None else args.flip
    mode = averaging.Mode(tuple(scales or config.eval.scales), flip)
    return strides or (stride,), (mode,)
  swept = config.eval.sweep
  flips = swept.flip if args.flip is None else (args.flip,)
  modes = [averaging.Mode()]
  modes += [averaging.Mode(tuple(scales or swept.scales), f) for f in flips]
  # Each once: a sweep of one scale without flip is the first row again.
  return tuple(strides or swept.output_strides), tuple(dict.fromkeys(modes))


class Sweep:
  """A predictor in several modes at once, and what each would take alone.

  For `inference.stream`: an image's result is a list, one for each mode.
  """

  def __init__(
    self,
    predictor: inference.Predictor,
    modes: Sequence[averaging.Mode] | None = None,
    *,
    timed: bool = True,
  ):
    """Prepare.

    Args:
      predictor: Predicts.
      modes: All different; None: the predictor's own.
      timed: Measure, which costs a little.
    """
    self.predictor = predictor
    self.modes = tuple(modes or (predictor.mode,))
    self.timed = 0  # images
    self._seconds = dict.fromkeys(self.modes, 0.0)
    self._sizes: dict[tuple[int, int], int] = {}
    # Images until the next is timed.
    self._wait = 0 if timed else math.inf

  def submit(
    self, image: Num[np.ndarray, "h w c"], *, kind: str = "labels"
  ) -> "Several":
    """Start the predictions of an image; see `Predictor.submit`."""
    size = self.predictor.bucket((image.shape[0], image.shape[1]))
    self._wait -= 1
    seconds = None
    # The first of a size would be timed with its compilation.
    if self._wait < 0 and size in self._sizes:
      self._wait = TIMED - 1
      self.timed += 1
      seconds = self._seconds
    self._sizes[size] = self._sizes.get(size, 0) + 1
    pending = self.predictor.submit_modes(
      image, self.modes, kind=kind, seconds=seconds
    )
    return Several(self.modes, pending, seconds)

  @property
  def size(self) -> tuple[int, int]:
    """The (height, width) that most images were padded to."""
    return max(self._sizes, key=lambda size: self._sizes[size])

  def images_per_second(self, mode: averaging.Mode) -> float | None:
    """Return how many images one mode alone predicts; None: not measured.

    One at a time; reading, counting and compiling are not in it.
    """
    return self.timed / self._seconds[mode] if self.timed else None


class Several(NamedTuple):
  """Predictions of an image that a device may still be working on."""

  modes: tuple[averaging.Mode, ...]
  pending: list[Any]
  seconds: dict[averaging.Mode, float] | None

  def result(self) -> list[np.ndarray]:
    """Wait for them."""
    found = []
    for mode, pending in zip(self.modes, self.pending, strict=True):
      start = time.perf_counter()
      found.append(pending.result())
      if self.seconds is not None:
        self.seconds[mode] += time.perf_counter() - start
    return found


def multiply_adds(
  model: nn.Module, size: tuple[int, int], mode: averaging.Mode
) -> dict[str, int]:
  """Return {convention: Multiply-Adds of one image}, over all views."""
  sizes = [inference.scaled_size(size, scale) for _, scale in mode.views]
  return {
    convention: sum(
      cost.multiply_adds(model, s, convention=convention) for s in sizes
    )
    for convention in cost.CONVENTIONS
  }


def row(
  result: dict[str, Any],
  sweep: Sweep,
  mode: averaging.Mode,
  *,
  model: nn.Module,
  file: str,
) -> dict[str, Any]:
  """Return the table's row of a result.

  Args:
    result: Of `evaluate`, with output_stride, scales and flip.
    sweep: That predicted.
    mode: Of this row.
    model: At this output stride.
    file: With all of the result.
  """
  operations = multiply_adds(model, sweep.size, mode)
  return {
    **{key: result[key] for key in ("output_stride", "scales", "flip")},
    **{key: result[key] for key in ("miou", "pixel_accuracy", "mean_accuracy")},
    **{key: result[key] for key in (*MEASURES, *MEASURED) if key in result},
    "multiply_adds": operations["true"],
    "multiply_adds_paper": operations["paper"],
    "multiply_adds_size": list(sweep.size),
    "images_per_second": sweep.images_per_second(mode),
    "timed_images": sweep.timed,
    **{key: result[key] for key in ("iou", "precision", "recall")},
    "pixel_share": result["pixel_share"],
    "confusions": result["confusions"],
    "file": file,
  }


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
  """Return the table as text: a line of titles, then one for each row."""
  extra = [key for key in MEASURES if any(key in row for row in rows)]
  widths = list(rows[0].get("trimap", {}))
  head = ["OS", "scales", "flip", "mIoU", "pixel accuracy"]
  head += [MEASURES[key] for key in extra]
  head += [f"trimap {width} px" for width in widths]
  head += ["Multiply-Adds", "as the papers count", "images/s"]
  lines = [head]
  for row in rows:
    speed = row["images_per_second"]
    values = [row["miou"], row["pixel_accuracy"], *map(row.get, extra)]
    values += [row["trimap"][width] for width in widths]
    lines.append([
      str(row["output_stride"]),
      ", ".join(str(scale) for scale in row["scales"]),
      "yes" if row["flip"] else "",
      *("" if v is None else f"{v:.2%}" for v in values),
      *(f"{row[key] / 1e9:.2f}B" for key in OPERATIONS),
      "" if speed is None else f"{speed:.{0 if speed >= 100 else 2}f}",
    ])  # fmt: skip
  return lines


def measured(
  result: dict[str, Any],
) -> list[tuple[str, list[list[str]]]]:
  """Return (title, lines of cells) of what a result has by size and distance.

  Args:
    result: Of `evaluate`, or its row.
  """
  tables = []
  if "objects" in result:
    lines = [["of the image", "objects", "mIoU", "mean recall"]]
    for size in result["objects"]:
      lines.append([
        f"{size['from']:.2%} to {size['to']:.2%}",
        f"{size['objects']:,}",
        _percent(size["miou"]),
        _percent(size["mean_recall"]),
      ])  # fmt: skip
    tables.append(("By the size of objects", lines))
  if "trimap" in result:
    lines = [["at most pixels away", "mIoU", "pixel accuracy"]]
    for width, miou in result["trimap"].items():
      accuracy = result["trimap_accuracy"][width]
      lines.append([width, _percent(miou), _percent(accuracy)])
    around = measures.AROUND[result["trimap_kind"]]
    tables.append((f"Around {around}", lines))
  return tables


def _percent(value: float | None) -> str:
  return "none" if value is None else f"{value:.2%}"


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Return the first row of the largest mIoU."""
  return max(rows, key=lambda row: row["miou"])


def name(row: dict[str, Any]) -> str:
  """Return what a row is, in words."""
  scales = tuple(row["scales"])
  mode = averaging.Mode(scales, row["flip"])
  return f"output stride {row['output_stride']}, {mode}"


def markdown(rows: Sequence[dict[str, Any]], title: str) -> str:
  """Return the table, and the classes of the best row, as Markdown."""
  top = best(rows)
  lines = [["class", "IoU", "precision", "recall", "of pixels", "predicted"]]
  for label in confusion.by_iou(top, list(top["iou"])):
    values = [top[key][label] for key in ("iou", "precision", "recall")]
    values += top["pixel_share"][label]
    lines.append([label, *map(_percent, values)])
  height, width = top["multiply_adds_size"]
  parts = [
    f"# {title}",
    aligned(cells(rows)),
    f"Multiply-Adds are of an image of {height}x{width}, in billions, over all "
    "its scales and flips. Images/s are those of a row alone, one image at a "
    "time, without reading and counting.",
    f"## Classes at {name(top)}",
    aligned(lines),
  ]
  if top["confusions"]:
    words = confusion.in_words(top, limit=confusion.MAX_CONFUSIONS)
    parts.append("Most confused: " + "; ".join(words) + ".")
  for heading, table in measured(top):
    parts += [f"## {heading}, at {name(top)}", aligned(table)]
  return "\n\n".join(parts) + "\n"


def aligned(lines: Sequence[Sequence[str]]) -> str:
  """Return a Markdown table, in columns for who reads it as it is."""
  escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
  first, *widths = (
    max(map(len, column)) for column in zip(*escaped, strict=True)
  )
  rule = ["-" * first, *("-" * (width - 1) + ":" for width in widths)]
  return "\n".join(
    " | ".join([
      "| " + name.ljust(first),
      *(c.rjust(w) for c, w in zip(cells, widths, strict=True)),
    ])
    + " |"
    for name, *cells in [escaped[0], rule, *escaped[1:]]
  )  # fmt: skip


def write(
  path: epath.Path,
  rows: Sequence[dict[str, Any]],
  *,
  title: str,
  **fields: Any,
) -> None:
  """Write the table as JSON to `path` and as Markdown beside it.

  Args:
    path: Ends in .json.
    rows: Of `row`.
    title: Of the Markdown.
    **fields: Of all rows: split, step, images, ...
  """
  logs.write_json(path, {**fields, "rows": list(rows)})
  logs.write_text(path.with_suffix(".md"), markdown(rows, title))
