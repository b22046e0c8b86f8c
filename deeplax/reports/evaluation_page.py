"""The page of an evaluation, one file that needs no network.

It has the table of all evaluations, the scores of the classes, the confusion
matrix as a picture and as numbers, and the worst images. A cell of the matrix
links to the image with most of its error, and an error of an image to its cell.
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
  "share of the true class. A cell with an error leads to the image below with "
  "most of it, if there is one."
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
  worst: Sequence[worst_images.BadImage],
  title: str,
) -> None:
  """Write the page of one row of a table.

  Args:
    path: Ends in .html. The pages of the other rows lie beside it, named like
      the rows' JSON files.
    result: Of `evaluate`, for this row.
    rows: Of `tables.row`, including this one.
    spec: Names and colors of the classes.
    worst: The worst images, the worst first.
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
    _matrix(result, spec, worst),
    _words(result, spec, worst),
    _numbers(result, spec),
    f"<h2>The {len(worst)} worst images</h2>",
    html.paragraph(WORST),
    *(_figure(i, image, spec) for i, image in enumerate(worst)),
  ]
  policy = html.policy(html.POLICY)
  atomic.write_text(path, html.page(title, parts, style=STYLE, head=policy))


def _rows(rows: Sequence[dict[str, Any]], path: epath.Path) -> str:
  """Return the table of all evaluations, with links to the other pages."""
  lines, marked = tables.cells(rows), None
  for i, row in enumerate(rows):
    page = epath.Path(row["file"]).with_suffix(".html").name
    if page == path.name:
      marked = i
    else:
      lines[i + 1][3] = html.link(page, lines[i + 1][3])
  return html.table(lines, marked=marked)


def _classes(result: dict[str, Any], spec: spec_lib.Spec) -> str:
  head, *lines = measures.classes(result, spec.class_names)
  for line in lines:
    red, green, blue = spec.palette[spec.class_names.index(line[0])]
    color = f"background: rgb({red},{green},{blue})"
    swatch = f'<span class="color" style="{color}"></span>'
    line[0] = html.Markup(f"{swatch} {html.escape(line[0])}")
  return html.table([head, *lines])


def _most(
  worst: Sequence[worst_images.BadImage], true: int, predicted: int
) -> list[int]:
  """Return the places of the images with this error, the most pixels first."""
  pixels = [int(image.matrix[true, predicted]) for image in worst]
  places = [i for i, count in enumerate(pixels) if count]
  return sorted(places, key=lambda i: -pixels[i])


def _matrix(
  result: dict[str, Any],
  spec: spec_lib.Spec,
  worst: Sequence[worst_images.BadImage],
) -> str:
  matrix = np.array(result["confusion_matrix"])
  shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
  names = spec.class_names
  cells = {}
  for i, j in np.ndindex(matrix.shape):
    images = _most(worst, i, j) if i != j else []
    cells[i, j] = html.Cell(
      # The root, so that the small shares of errors can be bad.
      share=shares[i, j] ** 0.5,
      title=f"{names[i]} called {names[j]}: {printed.score(shares[i, j])}, "
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
  worst: Sequence[worst_images.BadImage],
) -> str:
  place = {name: i for i, name in enumerate(spec.class_names)}
  lines = []
  words = confusion.in_words(result, limit=confusion.MAX_CONFUSIONS)
  for (_, true, predicted), text in zip(
    result["confusions"], words, strict=True
  ):
    i, j = place[true], place[predicted]
    links = ", ".join(
      html.link(f"#image-{n}", worst[n].name)
      for n in _most(worst, i, j)[:LISTED]
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


def _figure(place: int, bad: worst_images.BadImage, spec: spec_lib.Spec) -> str:
  image = bands.to_show(bad.image)
  pictures = {
    "image": _picture(image, smooth=True),
    "truth": _picture(pictures_lib.colors(bad.truth, spec.palette)),
    "prediction": _picture(pictures_lib.colors(bad.labels, spec.palette)),
    "error": _picture(
      worst_images.error_picture(image, bad.truth, bad.labels), smooth=True
    ),
  }
  names = spec.class_names
  wrong = [
    html.link(f"#cell-{i}-{j}", f"{names[i]} called {names[j]}")
    + f" {pixels:,} pixels"
    for pixels, i, j in confusion.largest_errors(bad.matrix, LISTED)
  ]
  images = "".join(
    f'<img src="{data}" alt="{what}" title="{what}">'
    for what, data in pictures.items()
  )
  miou, accuracy = map(printed.score, (bad.miou, bad.pixel_accuracy))
  return (
    f'<figure id="image-{place}">\n{images}\n<figcaption>'
    f"<b>{html.escape(bad.name)}</b>: mIoU {miou}, pixel accuracy "
    f"{accuracy}. {'; '.join(wrong)}</figcaption>\n</figure>"
  )


def _picture(pixels: np.ndarray, *, smooth: bool = False) -> str:
  factor = SIDE / max(pixels.shape[:2])
  return html.picture(Image.fromarray(pixels), factor, smooth=smooth)
