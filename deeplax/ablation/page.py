"""The report as one self-contained page: HTML, SVG, a script that sorts."""

import base64
from collections.abc import Sequence
import html
import io
import math
import pathlib
import re
from typing import Any

import numpy as np
from PIL import Image

from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import tables
from deeplax.reports import evaluation_page
from deeplax.reports import line_plot
from deeplax.reports import trimap_curves

LETTERS = 44  # of a row's name in a picture
SIDE = 760  # pixels, the width of a sheet of pictures
LIGHT, DARK = np.array((255, 255, 255)), evaluation_page.DARK

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';
  img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px sans-serif; margin: 2em; color: #222; max-width: 1500px; }}
h2 {{ margin-top: 2em; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
th, td {{ padding: 3px 10px; text-align: right; vertical-align: top;
  border-bottom: 1px solid #ddd; }}
th {{ vertical-align: bottom; }}
th:first-child, td:first-child {{ text-align: left; }}
.text td, .text th {{ text-align: left; }}
.wide {{ overflow-x: auto; }}
.wide td {{ white-space: nowrap; }}
th button {{ font: inherit; font-weight: bold; border: 0; padding: 0;
  background: none; cursor: pointer; text-align: inherit; color: #0b3d75; }}
th[aria-sort=ascending] button::after {{ content: " \\25b2"; }}
th[aria-sort=descending] button::after {{ content: " \\25bc"; }}
pre {{ background: #f5f5f5; padding: 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; }}
.failed {{ border-left: 4px solid #d61414; padding-left: 10px; }}
.sheets {{ display: flex; flex-wrap: wrap; gap: 16px; }}
figure {{ margin: 0; }}
img {{ max-width: 100%; }}
svg {{ max-width: 100%; height: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
<script>
for (const button of document.querySelectorAll("th button")) {{
  button.addEventListener("click", () => {{
    const head = button.parentElement, place = head.cellIndex;
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentElement.cells)
      other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const key = (row) => {{
      const text = row.cells[place].dataset.key;
      const number = Number(text);
      return text === "" || Number.isNaN(number) ? text : number;
    }};
    const rows = [...body.rows].sort((a, b) => {{
      const [x, y] = [key(a), key(b)];
      const less = typeof x === typeof y ? x < y : typeof x === "string";
      return x === y ? 0 : less === up ? -1 : 1;
    }});
    body.append(...rows);
  }});
}}
</script>
</body>
</html>
"""


def page(title: str, parts: Sequence[str]) -> str:
  """Return the document."""
  return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def section(title: str, *parts: str) -> list[str]:
  """Return a heading and what is under it; nothing if that is empty.

  Without a title it is the parts alone.
  """
  if not title:
    return list(parts)
  inside = [part for part in parts if part]
  return [f"<h2>{html.escape(title)}</h2>", *inside] if inside else []


def paragraph(text: str) -> str:
  """Return text as a paragraph."""
  return f"<p>{html.escape(text)}</p>" if text else ""


def plain_table(lines: Sequence[Sequence[str]], *, text: bool = True) -> str:
  """Return a table that is not sorted, the first line its titles."""
  if len(lines) < 2:
    return ""
  head, *rest = lines
  rows = [_line(head, "th"), *(_line(line, "td") for line in rest)]
  kind = ' class="text"' if text else ""
  return f"<table{kind}>\n" + "\n".join(rows) + "\n</table>"


def _line(values: Sequence[str], tag: str) -> str:
  inside = "".join(f"<{tag}>{html.escape(v)}</{tag}>" for v in values)
  return f"<tr>{inside}</tr>"


def sortable(made: tables.Table) -> str:
  """Return the table; a click on a title sorts by it."""
  heads = "".join(
    f'<th scope="col"><button type="button">{html.escape(title)}</button></th>'
    for title in ("row", *made.columns)
  )
  rows = []
  for i, name in enumerate(made.rows):
    values = [tables.Value(name, i)]  # the order of the paper
    values += [column[i] for column in made.columns.values()]
    inside = "".join(
      f'<td data-key="{html.escape(_key(v.key))}">{html.escape(v.text)}</td>'
      for v in values
    )
    rows.append(f"<tr>{inside}</tr>")
  return (
    f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n'
    + "\n".join(rows)
    + "\n</tbody>\n</table></div>"
  )


def _key(key: float | int | str) -> str:
  if isinstance(key, float) and math.isinf(key):
    return "-1e308"
  return str(key)


def side_by_side(pictures: Sequence[str]) -> str:
  """Return SVGs as one picture, from left to right; "" of none."""
  if len(pictures) < 2:
    return "".join(pictures)
  sizes = []
  for text in pictures:
    size = re.search(r'viewBox="0 0 (\d+) (\d+)"', text)
    assert size, text[:200]
    sizes.append((int(size[1]), int(size[2])))
  width, height = sum(w for w, _ in sizes), max(h for _, h in sizes)
  parts, left = [], 0
  for text, (own, _) in zip(pictures, sizes, strict=True):
    parts.append(text.replace("<svg ", f'<svg x="{left}" ', 1))
    left += own
  return "\n".join(
    [
      f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
      f'width="{width}" height="{height}">',
      f'<rect width="{width}" height="{height}" fill="white"/>',
      *parts,
      "</svg>\n",
    ]
  )


def learning_curves(lines: Sequence[dict[str, Any]]) -> list[str]:
  """Return loss and mIoU by step, a curve for each training: means of seeds."""
  of_cells: dict[str, dict[int, dict[str, Any]]] = {}
  for line in lines:
    if any((line.get("curve") or {}).values()):
      of_cells.setdefault(line["cell"], {})[line["seed"]] = line["curve"]
  pictures = []
  for key, title, factor in (("loss", "loss", 1), ("miou", "mIoU, %", 100)):
    steps = sorted({
      step
      for seeds in of_cells.values()
      for curve in seeds.values()
      for step, _ in curve[key]
    })  # fmt: skip
    drawn = []
    for name, seeds in of_cells.items():
      values = np.array([_at(steps, c[key]) for c in seeds.values()]) * factor
      spread = np.full(len(steps), np.nan)
      if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
      drawn.append(line_plot.Line(name[:LETTERS], values.mean(axis=0), spread))
    if steps:
      pictures.append(
        line_plot.svg([line_plot.Panel(title, drawn)], steps, "step")
      )
  return pictures


def _at(
  steps: Sequence[int], points: Sequence[Sequence[float | int]]
) -> np.ndarray:
  """Return a curve's values at other steps; NaN outside it."""
  if not points:
    return np.full(len(steps), np.nan)
  x, y = np.array(points, np.float64).T
  return np.interp(steps, x, y, left=np.nan, right=np.nan)


def scatter(
  experiment: experiment_lib.Experiment,
  lines: Sequence[dict[str, Any]],
  costs: dict[str, Any],
) -> str:
  """Return mIoU over Multiply-Adds, a point for each row."""
  grouped = tables.by_row(experiment, lines)
  points = []
  for row in experiment.rows:
    score = tables.scores(grouped[row.name])
    if score.count and costs.get(row.name):
      points.append((row.name, costs[row.name]["multiply_adds"] / 1e9, score))
  x = sorted({cost for _, cost, _ in points})
  if len(x) < 2:
    return ""
  drawn = []
  for i, (name, cost, score) in enumerate(points):
    values, spread = np.full((2, len(x)), np.nan)
    values[x.index(cost)] = score.mean
    spread[x.index(cost)] = score.std
    label = f"{i + 1}"  # of many rows colors come again
    title = f"{label}: {name[:LETTERS]}"
    drawn.append(line_plot.Line(title, values, spread, label))
  panel = line_plot.Panel("mIoU, %", drawn)
  return line_plot.svg([panel], x, "Multiply-Adds of an image, billions")


def trimap(
  experiment: experiment_lib.Experiment, lines: Sequence[dict[str, Any]]
) -> str:
  """Return trimap curves, where they were measured."""
  curves = []
  fields, widths = {}, []
  for name, seeds in tables.by_row(experiment, lines).items():
    results = [(f"{name} {x['seed']}", x) for x in seeds if x.get("trimap")]
    if results:
      first = results[0][1]
      fields = {"trimap_kind": first["trimap_kind"]}
      widths = [int(width) for width in first["trimap"]]
      curves.append(trimap_curves.curve(name[:LETTERS], results))
  return trimap_curves.picture(curves, widths, fields) if curves else ""


def heat_map(
  experiment: experiment_lib.Experiment, lines: Sequence[dict[str, Any]]
) -> str:
  """Return IoU of rows by classes as a picture, the darker the higher."""
  ious = {}
  for name, seeds in tables.by_row(experiment, lines).items():
    if of_seeds := [x["iou"] for x in seeds if x.get("iou")]:
      ious[name] = of_seeds
  if not ious:
    return ""
  classes = list(next(iter(ious.values()))[0])
  width, height = 46, 24
  left = 7 * min(LETTERS, max(map(len, ious))) + 12
  top = 7 * max(map(len, classes)) + 14
  size = left + width * len(classes) + 10, top + height * len(ious) + 10
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{size[0]}" '
    f'height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}" '
    'font-family="sans-serif" font-size="12">',
    "<title>IoU of each class</title>",
    f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>',
  ]
  for j, name in enumerate(classes):
    x = left + width * (j + 0.6)
    parts.append(
      f'<text transform="translate({x:.0f},{top - 6}) rotate(-90)">'
      f"{html.escape(name)}</text>"
    )
  for i, (row, seeds) in enumerate(ious.items()):
    y = top + height * i
    parts.append(
      f'<text x="{left - 6}" y="{y + 16}" text-anchor="end">'
      f"{html.escape(row[:LETTERS])}</text>"
    )
    for j, name in enumerate(classes):
      values = [x[name] for x in seeds if x.get(name) is not None]
      if not values:
        continue
      value = sum(values) / len(values)
      red, green, blue = np.rint(LIGHT + (DARK - LIGHT) * value).astype(int)
      ink = "white" if value > 0.5 else "#222"
      x = left + width * j
      parts.append(
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" '
        f'fill="rgb({red},{green},{blue})" stroke="white"><title>'
        f"{html.escape(row)}, {html.escape(name)}: {value:.2%}</title></rect>"
        f'<text x="{x + width / 2:.0f}" y="{y + 16}" text-anchor="middle" '
        f'fill="{ink}" pointer-events="none">{100 * value:.1f}</text>'
      )
  return "\n".join([*parts, "</svg>"])


def sheets(lines: Sequence[dict[str, Any]], out: pathlib.Path) -> str:
  """Return each training's newest pictures, of its first seed that has some."""
  newest = {}
  for line in lines:
    picture = line.get("picture")
    if picture and (out / picture).exists() and line["cell"] not in newest:
      newest[line["cell"]] = out / picture
  figures = [
    f'<figure><img src="{_picture(path)}" alt="{html.escape(name)}">'
    f"<figcaption>{html.escape(name)}</figcaption></figure>"
    for name, path in newest.items()
  ]
  if not figures:
    return ""
  return '<div class="sheets">\n' + "\n".join(figures) + "\n</div>"


def _picture(path: pathlib.Path) -> str:
  """Return a picture as the address of itself."""
  with Image.open(path) as image:
    picture = image.convert("RGB")
  if picture.width > SIDE:
    height = max(1, round(picture.height * SIDE / picture.width))
    picture = picture.resize((SIDE, height), Image.Resampling.BILINEAR)
  data = io.BytesIO()
  picture.save(data, format="JPEG", quality=80)
  return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def failures(lines: Sequence[dict[str, Any]]) -> str:
  """Return the last log lines of what failed, once for each training."""
  failed = {}
  for line in lines:
    if line["status"] == "failed":
      failed.setdefault(line["workdir"], line)
  return "\n".join(
    f'<div class="failed"><b>{html.escape(line["workdir"])}</b>, rerun:'
    f"<pre>{html.escape(chr(10).join(line['commands']))}</pre>"
    f"<pre>{html.escape(chr(10).join(line['log_tail']))}</pre></div>"
    for line in failed.values()
  )


def commands(
  experiment: experiment_lib.Experiment, lines: Sequence[dict[str, Any]]
) -> str:
  """Return the command lines of each row, of its first seed."""
  parts = []
  for name, seeds in tables.by_row(experiment, lines).items():
    if seeds:
      text = html.escape("\n".join(seeds[0]["commands"]))
      parts.append(
        f"<details><summary>{html.escape(name)}</summary><pre>{text}</pre>"
        "</details>"
      )
  return "\n".join(parts)
