"""The table of several evaluations, as JSON and Markdown."""

from collections.abc import Sequence
from typing import Any

from etils import epath
import flax.linen as nn

from deeplax import atomic
from deeplax.inference import mode as mode_lib
from deeplax.inference import sweep as sweep_lib
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.metrics import printed

OPERATIONS = ("multiply_adds", "multiply_adds_paper")
# What a row has of a result, if it was measured: before its costs, ...
SCORES = (
  *("output_stride", "scales", "flip"),
  *("miou", "pixel_accuracy", "mean_accuracy", *measures.BOUNDARY),
  *("trimap_kind", "trimap", "trimap_accuracy", "objects"),
)
# ... and after them.
OF_CLASSES = ("iou", "precision", "recall", "pixel_share", "confusions")


def row(
  result: dict[str, Any],
  sweep: sweep_lib.Sweep,
  mode: mode_lib.Mode,
  *,
  model: nn.Module,
  file: str,
) -> dict[str, Any]:
  """Return a result as a row of the table.

  Args:
    result: Of `evaluate`, with output_stride, scales and flip.
    sweep: The predictor.
    mode: Of this row.
    model: The network at this output stride.
    file: Name of the file with the whole result.
  """
  operations = sweep_lib.multiply_adds(model, sweep.size, mode)
  return {
    **{key: result[key] for key in SCORES if key in result},
    "multiply_adds": operations["true"],
    "multiply_adds_paper": operations["paper"],
    "multiply_adds_size": list(sweep.size),
    "images_per_second": sweep.images_per_second(mode),
    "timed_images": sweep.timed,
    **{key: result[key] for key in OF_CLASSES},
    "file": file,
  }


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
  """Return the table as text, the titles first."""
  extra = [k for k in measures.BOUNDARY if any(k in row for row in rows)]
  widths = list(rows[0].get("trimap", {}))
  head = ["OS", "scales", "flip", "mIoU", "pixel accuracy"]
  head += [measures.BOUNDARY[key] for key in extra]
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
      *(printed.score(value, "") for value in values),
      *(f"{row[key] / 1e9:.2f}B" for key in OPERATIONS),
      "" if speed is None else f"{speed:.{0 if speed >= 100 else 2}f}",
    ])  # fmt: skip
  return lines


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Return the row of the largest mIoU, of equals the first."""
  return max(rows, key=lambda row: row["miou"])


def name(row: dict[str, Any]) -> str:
  """Return a row's name: its output stride, scales and flip."""
  scales = tuple(row["scales"])
  mode = mode_lib.Mode(scales, row["flip"])
  return f"output stride {row['output_stride']}, {mode}"


def markdown(rows: Sequence[dict[str, Any]], title: str) -> str:
  """Return the table, and the details of its best row, as Markdown."""
  top = best(rows)
  height, width = top["multiply_adds_size"]
  parts = [
    f"# {title}",
    printed.markdown(cells(rows)),
    f"Multiply-Adds are of an image of {height}x{width}, in billions, over all "
    "its scales and flips. Images/s are those of a row alone, one image at a "
    "time, without reading and counting.",
    f"## Classes at {name(top)}",
    printed.markdown(measures.classes(top, list(top["iou"]))),
  ]
  if top["confusions"]:
    words = confusion.in_words(top, limit=confusion.MAX_CONFUSIONS)
    parts.append("Most confused: " + "; ".join(words) + ".")
  for heading, lines in measures.by_size_and_distance(top):
    parts += [f"## {heading}, at {name(top)}", printed.markdown(lines)]
  return "\n\n".join(parts) + "\n"


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
    **fields: Those that all rows share: split, step, images, ...
  """
  atomic.write_json(path, {**fields, "rows": list(rows)})
  atomic.write_text(path.with_suffix(".md"), markdown(rows, title))
