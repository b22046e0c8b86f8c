"""One page about an evaluation, in one file that needs no network.

The table, the classes, the confusion matrix as a picture and as numbers, and
the worst images. A cell of the matrix leads to the image that has most of that
confusion, an image's errors lead back to their cells.
"""

import base64
from collections.abc import Iterable, Sequence
import html
import io
from typing import Any

from etils import epath
import numpy as np
from PIL import Image

from deeplax import atomic
from deeplax.data import bands
from deeplax.data import spec as spec_lib
from deeplax.metrics import confusion
from deeplax.metrics import printed
from deeplax.reports import pictures as pictures_lib
from deeplax.reports import tables
from deeplax.reports import worst_images

SIDE = 320  # pixels, the longer one of a picture
LISTED = 5  # errors of an image, images of an error
LETTERS = 22  # of a class name in the picture of the matrix
DARK = np.array((8, 48, 107))  # the color of a share of 1; that of 0 is white

# Nothing from elsewhere, and no script even from here.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px sans-serif; margin: 2em; color: #222; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
th, td {{ padding: 2px 10px; text-align: right;
  border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
.this td {{ background: #e8f0fa; font-weight: bold; }}
.numbers {{ overflow: auto; font-size: 12px; }}
.color {{ display: inline-block; width: 12px; height: 12px;
  border: 1px solid #888; }}
svg text {{ font: 11px sans-serif; }}
svg a rect:hover, svg rect:target {{ stroke: #d61414; stroke-width: 2; }}
figure {{ margin: 2em 0; padding: 6px; }}
figure:target {{ outline: 3px solid #d61414; }}
figure img {{ margin-right: 6px; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
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
    *_measured(result),
    "<h2>Confusion matrix</h2>",
    "<p>Rows are true classes, columns predicted ones; the darker, the larger "
    "the share of the true class. A cell with an error leads to that one of "
    "the images below that has most of it, if one has.</p>",
    _matrix(result, spec, seen),
    _words(result, spec, seen),
    _numbers(result, spec),
    f"<h2>The {len(seen)} worst images</h2>",
    "<p>By the mIoU of each image alone: image, truth, prediction, error "
    "(red: wrong).</p>",
    *(_figure(i, image, spec) for i, image in enumerate(seen)),
  ]
  page = _PAGE.format(title=html.escape(title), body="\n".join(parts))
  atomic.write_text(path, page)


def _table(lines: Iterable[str]) -> str:
  return "<table>\n" + "\n".join(lines) + "\n</table>"


def _line(cells: Iterable[str], tag: str = "td", kind: str = "") -> str:
  inside = "".join(f"<{tag}>{cell}</{tag}>" for cell in cells)
  return f"<tr{kind}>{inside}</tr>"


def _rows(rows: Sequence[dict[str, Any]], path: epath.Path) -> str:
  head, *texts = (
    [html.escape(cell) for cell in line] for line in tables.cells(rows)
  )
  lines = [_line(head, "th")]
  for row, cells in zip(rows, texts, strict=True):
    page = epath.Path(row["file"]).with_suffix(".html").name
    here = page == path.name
    if not here:
      link = html.escape(page)
      cells[3] = f'<a href="{link}">{cells[3]}</a>'
    lines.append(_line(cells, kind=' class="this"' if here else ""))
  return _table(lines)


def _classes(result: dict[str, Any], spec: spec_lib.Spec) -> str:
  titles = ["class", "IoU", "precision", "recall", "of pixels", "predicted"]
  beside = [key for key in tables.MEASURES if key in result]
  titles += [tables.MEASURES[key] for key in beside]
  lines = [_line(titles, "th")]
  for name in confusion.by_iou(result, spec.class_names):
    values = [result[key][name] for key in ("iou", "precision", "recall")]
    values += result["pixel_share"][name]
    values += [result[f"{key}_class"][name] for key in beside]
    texts = map(printed.score, values)
    red, green, blue = spec.palette[spec.class_names.index(name)]
    color = f"background: rgb({red},{green},{blue})"
    swatch = f'<span class="color" style="{color}"></span>'
    lines.append(_line((f"{swatch} {html.escape(name)}", *texts)))
  return _table(lines)


def _measured(result: dict[str, Any]) -> list[str]:
  """Return the tables by size of objects and by distance from boundaries."""
  parts = []
  for title, lines in tables.measured(result):
    head, *rest = ([html.escape(cell) for cell in line] for line in lines)
    parts.append(f"<h2>{html.escape(title)}</h2>")
    parts.append(_table([_line(head, "th"), *map(_line, rest)]))
  return parts


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
  names = [html.escape(name) for name in spec.class_names]
  short = [html.escape(name[:LETTERS]) for name in spec.class_names]
  k, side = len(names), 22 if len(names) <= 40 else 12
  edge = 7 * max(min(len(name), LETTERS) for name in spec.class_names) + 8
  whole = edge + k * side
  parts = [
    '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
    f'width="{whole}" height="{whole}">',
    "<title>confusion matrix</title>",
  ]
  for i, name in enumerate(short):
    place = edge + i * side + side * 0.7
    parts += [
      f'<text x="{edge - 4}" y="{place:.1f}" text-anchor="end">{name}</text>',
      f'<text transform="translate({place:.1f},{edge - 4}) rotate(-90)">{name}'
      "</text>",
    ]
  for i, j in np.ndindex(k, k):
    # The root, so that the small shares of errors can be seen.
    mixed = 255 + (DARK - 255) * shares[i, j] ** 0.5
    red, green, blue = np.rint(mixed).astype(int).tolist()
    cell = (
      f'<rect id="cell-{i}-{j}" x="{edge + j * side}" y="{edge + i * side}" '
      f'width="{side}" height="{side}" fill="rgb({red},{green},{blue})" '
      f'stroke="#ddd"><title>{names[i]} called {names[j]}: {shares[i, j]:.2%}, '
      f"{matrix[i, j]:,} pixels</title></rect>"
    )
    images = _most(seen, i, j) if i != j else []
    if images:
      cell = f'<a href="#image-{images[0]}">{cell}</a>'
    parts.append(cell)
  return "\n".join([*parts, "</svg>"])


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
      f'<a href="#image-{n}">{html.escape(seen[n].name)}</a>'
      for n in _most(seen, i, j)[:LISTED]
    )
    lines.append(
      f'<li><a href="#cell-{i}-{j}">{html.escape(text)}</a>'
      + (f": {links}" if links else "")
      + "</li>"
    )
  return "<ul>\n" + "\n".join(lines) + "\n</ul>" if lines else ""


def _numbers(result: dict[str, Any], spec: spec_lib.Spec) -> str:
  names = [html.escape(name) for name in spec.class_names]
  lines = [_line(("pixels", *names), "th")]
  for name, counts in zip(names, result["confusion_matrix"], strict=True):
    lines.append(_line((name, *(f"{count:,}" for count in counts))))
  return (
    '<details class="numbers"><summary>The matrix in numbers</summary>\n'
    + _table(lines)
    + "\n</details>"
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
    f'<a href="#cell-{i}-{j}">{html.escape(f"{names[i]} called {names[j]}")}'
    f"</a> {pixels:,} pixels"
    for pixels, i, j in seen.confusions(LISTED)
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
  """Return a picture as the address of itself: photographs as JPEG."""
  picture = Image.fromarray(pixels)
  factor = min(SIDE / max(picture.size), 1)
  width, height = (max(round(side * factor), 1) for side in picture.size)
  size = (width, height)
  data = io.BytesIO()
  if smooth:
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    picture.save(data, format="JPEG", quality=80)
  else:
    picture = picture.resize(size, Image.Resampling.NEAREST)
    picture.save(data, format="PNG", optimize=True)
  kind = "jpeg" if smooth else "png"
  text = base64.b64encode(data.getvalue()).decode()
  return f"data:image/{kind};base64,{text}"
