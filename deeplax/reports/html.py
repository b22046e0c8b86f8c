"""HTML of all pages: the document, tables, pictures and heat maps.

A page is one file. Every text is escaped, unless it is `Markup`.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
import html
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from deeplax.metrics import printed

# A page loads nothing from elsewhere, and runs no script unless it adds one.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
DARK = np.array((8, 48, 107))  # the color of a share of 1; that of 0 is white

_STYLE = """
body { font: 15px sans-serif; margin: 2em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 2px 10px; text-align: right; vertical-align: top;
  border-bottom: 1px solid #ddd; }
th { vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
svg { max-width: 100%; height: auto; }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
{head}
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


class Markup(str):
  """Text that is HTML already."""


class Cell(NamedTuple):
  """A square of a heat map.

  Attributes:
    share: 0 is white, 1 is dark.
    title: Shown under the pointer.
    text: Inside the square.
    name: Its id, for links to it.
    link: Target of the link that it is.
  """

  share: float
  title: str
  text: str = ""
  name: str = ""
  link: str = ""


def escape(text: str) -> str:
  """Return text as HTML."""
  return text if isinstance(text, Markup) else html.escape(text)


def page(
  title: str, parts: Iterable[str], *, style: str = "", head: str = ""
) -> str:
  """Return a document.

  Args:
    title: Text, also its first heading.
    parts: HTML.
    style: CSS besides that of all pages.
    head: HTML: policy or refresh.
  """
  return _PAGE.format(
    title=escape(title),
    body="\n".join(parts),
    style=_STYLE + style,
    head=head,
  )


def policy(text: str) -> str:
  """Return the element with a page's content security policy."""
  return f'<meta http-equiv="Content-Security-Policy" content="{text}">'


def paragraph(text: str) -> str:
  """Return a paragraph; "" of no text."""
  return f"<p>{escape(text)}</p>" if text else ""


def link(target: str, text: str) -> Markup:
  """Return text as a link to a page, or to #name."""
  return Markup(f'<a href="{escape(target)}">{escape(text)}</a>')


def table(
  lines: printed.Table, *, kind: str = "", marked: int | None = None
) -> str:
  """Return a table; "" of one without rows.

  Args:
    lines: The titles, then the rows.
    kind: Class of the table.
    marked: The row of class "this".
  """
  if len(lines) < 2:
    return ""
  rows = []
  for i, cells in enumerate(lines):
    tag = "td" if i else "th"
    inside = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
    this = ' class="this"' if i - 1 == marked else ""
    rows.append(f"<tr{this}>{inside}</tr>")
  kind = f' class="{kind}"' if kind else ""
  return f"<table{kind}>\n" + "\n".join(rows) + "\n</table>"


def picture(
  image: Image.Image, factor: float = 1, *, smooth: bool = True
) -> str:
  """Return a picture as a data URI.

  Args:
    image: RGB.
    factor: Scale of its sides; the picture is never enlarged.
    smooth: A photograph, as JPEG; else labels, as PNG.
  """
  width, height = (max(round(s * min(factor, 1)), 1) for s in image.size)
  data = io.BytesIO()
  if smooth:
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    small.save(data, format="JPEG", quality=80)
  else:
    small = image.resize((width, height), Image.Resampling.NEAREST)
    small.save(data, format="PNG", optimize=True)
  text = base64.b64encode(data.getvalue()).decode()
  return f"data:image/{'jpeg' if smooth else 'png'};base64,{text}"


def heat_map(
  title: str,
  rows: Sequence[str],
  columns: Sequence[str],
  cells: Mapping[tuple[int, int], Cell],
  *,
  size: tuple[int, int],
) -> str:
  """Return a table of squares as SVG, the darker the larger the share.

  Args:
    title: Of the picture.
    rows: Names.
    columns: Names.
    cells: By (row, column); the others stay empty.
    size: (width, height) of a cell, pixels.
  """
  width, height = size
  left = 7 * max(map(len, rows)) + 12
  top = 7 * max(map(len, columns)) + 14
  right = left + width * len(columns) + 10
  bottom = top + height * len(rows) + 10
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{right}" '
    f'height="{bottom}" viewBox="0 0 {right} {bottom}" '
    'font-family="sans-serif" font-size="12">',
    f"<title>{escape(title)}</title>",
    f'<rect width="{right}" height="{bottom}" fill="white"/>',
  ]
  for j, name in enumerate(columns):
    x = left + width * (j + 0.6)
    parts.append(
      f'<text transform="translate({x:.0f},{top - 6}) rotate(-90)">'
      f"{escape(name)}</text>"
    )
  baseline = round(height * 2 / 3)
  for i, row in enumerate(rows):
    y = top + height * i
    parts.append(
      f'<text x="{left - 6}" y="{y + baseline}" text-anchor="end">'
      f"{escape(row)}</text>"
    )
    for j in range(len(columns)):
      if (i, j) not in cells:
        continue
      cell, x = cells[i, j], left + width * j
      name = f' id="{cell.name}"' if cell.name else ""
      red, green, blue = np.rint(255 + (DARK - 255) * cell.share).astype(int)
      drawn = (
        f'<rect{name} x="{x}" y="{y}" width="{width}" height="{height}" '
        f'fill="rgb({red},{green},{blue})" stroke="white">'
        f"<title>{escape(cell.title)}</title></rect>"
      )
      if cell.text:
        ink = "white" if cell.share > 0.5 else "#222"
        drawn += (
          f'<text x="{x + width / 2:.0f}" y="{y + baseline}" '
          f'text-anchor="middle" fill="{ink}" pointer-events="none">'
          f"{escape(cell.text)}</text>"
        )
      parts.append(link(cell.link, Markup(drawn)) if cell.link else drawn)
  return "\n".join([*parts, "</svg>"])
