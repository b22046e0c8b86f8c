"""One page about an evaluation, in one file that needs no network.

The table, the classes, the confusion matrix as a picture and as numbers, and
the worst images. A cell of the matrix leads to the image that has most of that
confusion, an image's errors lead back to their cells.
"""

from collections.abc import Sequence
from typing import Any

from etils import epath
import numpy as np
from PIL import Image

from deeplax import atomic
from deeplax.data import bands
from deeplax.data import spec as spec_lib
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.metrics import printed
from deeplax.reports import html
from deeplax.reports import pictures as pictures_lib
from deeplax.reports import tables
from deeplax.reports import worst_images

SIDE = 320  # pixels, the longer one of a picture
LISTED = 5  # errors of an image, images of an error
LETTERS = 22  # of a class name in the picture of the matrix
MATRIX = (
  "Rows are true classes, columns predicted ones; the darker, the larger the "
  "share of the true class. A cell with an error leads to that one of the "
  "images below that has most of it, if one has."
)
WORST = (
  "By the mIoU of each image alone: image, truth, prediction, error (red: "
  "wrong)."
)
STYLE = """
.this td { background: #e8f0fa; font-weight: bold; }
.numbers { overflow: auto; font-size: 12px; }
.color { display: inline-block; width: 12px; height: 12px;
  border: 1px solid #888; }
svg rect { stroke: #ddd; }
svg a rect:hover, svg rect:target { stroke: #d61414; stroke-width: 2; }
figure { margin: 2em 0; padding: 6px; }
figure:target { outline: 3px solid #d61414; }
figure img { margin-right: 6px; }
"""


def write(
  path: epath.Path,
  result: dict[str, Any],
  rows: Sequence[dict[str, Any]],
  *,
  spec: spec_lib.Spec,
  seen: Sequence[worst_images.Seen],
  title: str,
) -> None:
  """Write the page of one row of a table.

  Args:
    path: Ends in .html; pages of the other rows lie beside it, each named like
      the row's JSON.
    result: Of this row, of `evaluate`.
    rows: Of `tables.row`, this one among them.
    spec: Names and colors of the classes.
    seen: The worst images, the worst first.
    title: Of the page.
  """
  parts = [
    _rows(rows, path),
    "<h2>Classes</h2>",
    _classes(result, spec),
  ]
  for heading, lines in measures.by_size_and_distance(result):
    parts += [f"<h2>{html.escape(heading)}</h2>", html.table(lines)]
  parts += [
    "<h2>Confusion matrix</h2>",
    html.paragraph(MATRIX),
    _matrix(result, spec, seen),
    _words(result, spec, seen),
    _numbers(result, spec),
    f"<h2>The {len(seen)} worst images</h2>",
    html.paragraph(WORST),
    *(_figure(i, image, spec) for i, image in enumerate(seen)),
  ]
  policy = html.policy(html.POLICY)
  atomic.write_text(path, html.page(title, parts, style=STYLE, head=policy))


def _rows(rows: Sequence[dict[str, Any]], path: epath.Path) -> str:
  """Return the table of all evaluations; the others lead to their pages."""
  lines, this = tables.cells(rows), None
  for i, row in enumerate(rows):
    page = epath.Path(row["file"]).with_suffix(".html").name
    if page == path.name:
      this = i
    else:
      lines[i + 1][3] = html.link(page, lines[i + 1][3])
  return html.table(lines, marked=this)


def _classes(result: dict[str, Any], spec: spec_lib.Spec) -> str:
  head, *lines = measures.classes(result, spec.class_names)
  for line in lines:
    red, green, blue = spec.palette[spec.class_names.index(line[0])]
    color = f"background: rgb({red},{green},{blue})"
    swatch = f'<span class="color" style="{color}"></span>'
    line[0] = html.Markup(f"{swatch} {html.escape(line[0])}")
  return html.table([head, *lines])


def _most(
  seen: Sequence[worst_images.Seen], true: int, predicted: int
) -> list[int]:
  """Return the images with this error, by its pixels, the most first."""
  having = [i for i, s in enumerate(seen) if s.matrix[true, predicted]]
  return sorted(having, key=lambda i: -seen[i].matrix[true, predicted])


def _matrix(
  result: dict[str, Any],
  spec: spec_lib.Spec,
  seen: Sequence[worst_images.Seen],
) -> str:
  matrix = np.array(result["confusion_matrix"])
  shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  names = spec.class_names
  cells = {}
  for i, j in np.ndindex(matrix.shape):
    images = _most(seen, i, j) if i != j else []
    cells[i, j] = html.Cell(
      # The root, so that the small shares of errors can be seen.
      share=shares[i, j] ** 0.5,
      title=f"{names[i]} called {names[j]}: {shares[i, j]:.2%}, "
      f"{matrix[i, j]:,} pixels",
      name=f"cell-{i}-{j}",
      link=f"#image-{images[0]}" if images else "",
    )
  side = 22 if len(names) <= 40 else 12
  short = [name[:LETTERS] for name in names]
  return html.heat_map(
    "confusion matrix", short, short, cells, size=(side, side)
  )


def _words(
  result: dict[str, Any],
  spec: spec_lib.Spec,
  seen: Sequence[worst_images.Seen],
) -> str:
  place = {name: i for i, name in enumerate(spec.class_names)}
  lines = []
  words = confusion.in_words(result, limit=confusion.MAX_CONFUSIONS)
  for (_, true, predicted), text in zip(
    result["confusions"], words, strict=True
  ):
    i, j = place[true], place[predicted]
    links = ", ".join(
      html.link(f"#image-{n}", seen[n].name) for n in _most(seen, i, j)[:LISTED]
    )
    cell = html.link(f"#cell-{i}-{j}", text)
    lines.append(f"<li>{cell}{': ' if links else ''}{links}</li>")
  return "<ul>\n" + "\n".join(lines) + "\n</ul>" if lines else ""


def _numbers(result: dict[str, Any], spec: spec_lib.Spec) -> str:
  lines = [["pixels", *spec.class_names]]
  matrix = result["confusion_matrix"]
  for name, counts in zip(spec.class_names, matrix, strict=True):
    lines.append([name, *(f"{count:,}" for count in counts)])
  return (
    '<details class="numbers"><summary>The matrix in numbers</summary>\n'
    f"{html.table(lines)}\n</details>"
  )


def _figure(place: int, seen: worst_images.Seen, spec: spec_lib.Spec) -> str:
  shown = bands.to_show(seen.image)
  pictures = {
    "image": _picture(shown, smooth=True),
    "truth": _picture(pictures_lib.colors(seen.truth, spec.palette)),
    "prediction": _picture(pictures_lib.colors(seen.labels, spec.palette)),
    "error": _picture(
      worst_images.error_picture(shown, seen.truth, seen.labels), smooth=True
    ),
  }
  names = spec.class_names
  wrong = [
    html.link(f"#cell-{i}-{j}", f"{names[i]} called {names[j]}")
    + f" {pixels:,} pixels"
    for pixels, i, j in confusion.largest_errors(seen.matrix, LISTED)
  ]
  images = "".join(
    f'<img src="{data}" alt="{what}" title="{what}">'
    for what, data in pictures.items()
  )
  miou, accuracy = map(printed.score, (seen.miou, seen.pixel_accuracy))
  return (
    f'<figure id="image-{place}">\n{images}\n<figcaption>'
    f"<b>{html.escape(seen.name)}</b>: mIoU {miou}, pixel accuracy "
    f"{accuracy}. {'; '.join(wrong)}</figcaption>\n</figure>"
  )


def _picture(pixels: np.ndarray, *, smooth: bool = False) -> str:
  factor = SIDE / max(pixels.shape[:2])
  return html.picture(Image.fromarray(pixels), factor, smooth=smooth)
