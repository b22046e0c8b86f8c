"""Parts of the report's page: the sortable table, plots, pictures, commands."""

from collections.abc import Sequence
import math
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from deeplax.ablation import tables
from deeplax.reports import html
from deeplax.reports import line_plot
from deeplax.reports import trimap_curves

LETTERS = 44  # of a row's name in a picture
SIDE = 760  # pixels, the width of a sheet of pictures

_STYLE = """
body { max-width: 1500px; }
h2 { margin-top: 2em; }
th, td { padding: 3px 10px; }
.text td, .text th { text-align: left; }
.wide { overflow-x: auto; }
.wide td { white-space: nowrap; }
th button { font: inherit; font-weight: bold; border: 0; padding: 0;
  background: none; cursor: pointer; text-align: inherit; color: #0b3d75; }
th[aria-sort=ascending] button::after { content: " \\25b2"; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
pre { background: #f5f5f5; padding: 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.failed { border-left: 4px solid #d61414; padding-left: 10px; }
.sheets { display: flex; flex-wrap: wrap; gap: 16px; }
figure { margin: 0; }
"""
_SORT = """<script>
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, place = head.cellIndex;
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentElement.cells)
      other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const key = (row) => {
      const text = row.cells[place].dataset.key;
      const number = Number(text);
      return text === "" || Number.isNaN(number) ? text : number;
    };
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      const less = typeof x === typeof y ? x < y : typeof x === "string";
      return x === y ? 0 : less === up ? -1 : 1;
    });
    body.append(...rows);
  });
}
</script>"""


def page(title: str, parts: Sequence[str]) -> str:
  """Return the page; its only script sorts the table."""
  policy = html.policy(f"{html.POLICY}; script-src 'unsafe-inline'")
  return html.page(title, [*parts, _SORT], style=_STYLE, head=policy)


def sortable(made: tables.Table) -> str:
  """Return the table; a click on a title sorts it by that column."""
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


def learning_curves(lines: Sequence[dict[str, Any]]) -> str:
  """Return plots of loss and mIoU by step, means of each training's seeds."""
  of_cells: dict[str, dict[int, dict[str, Any]]] = {}
  for line in lines:
    if any((line.get("curve") or {}).values()):
      of_cells.setdefault(line["cell"], {})[line["seed"]] = line["curve"]
  panels = []
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
      spread = line_plot.deviation(values)
      drawn.append(line_plot.Line(name[:LETTERS], values.mean(axis=0), spread))
    if steps:
      panels.append(line_plot.Panel(title, drawn, steps, "step"))
  return line_plot.svg(panels) if panels else ""


def _at(
  steps: Sequence[int], points: Sequence[Sequence[float | int]]
) -> np.ndarray:
  """Return a curve's values at other steps, interpolated; NaN outside it."""
  if not points:
    return np.full(len(steps), np.nan)
  x, y = np.array(points, np.float64).T
  return np.interp(steps, x, y, left=np.nan, right=np.nan)


def scatter(outcome: tables.Outcome) -> str:
  """Return a plot of mIoU over Multiply-Adds, a point for each row."""
  points = []
  for name, seeds in outcome.by_row.items():
    score, costs = tables.scores(seeds), outcome.costs.get(name)
    if score.count and costs:
      points.append((name, costs["multiply_adds"] / 1e9, score))
  x = sorted({cost for _, cost, _ in points})
  if len(x) < 2:
    return ""
  drawn = []
  for i, (name, cost, score) in enumerate(points):
    values, spread = np.full((2, len(x)), np.nan)
    values[x.index(cost)] = score.mean
    spread[x.index(cost)] = score.std
    label = f"{i + 1}"  # colors repeat if there are many rows
    title = f"{label}: {name[:LETTERS]}"
    drawn.append(line_plot.Line(title, values, spread, label))
  axis = "Multiply-Adds of an image, billions"
  return line_plot.svg([line_plot.Panel("mIoU, %", drawn, x, axis)])


def trimap(outcome: tables.Outcome) -> str:
  """Return a plot of the trimap curves; "" if none was measured."""
  curves = []
  fields, widths = {}, []
  for name, seeds in outcome.by_row.items():
    results = [(f"{name} {x['seed']}", x) for x in seeds if x.get("trimap")]
    if results:
      _, fields = results[0]
      widths = [int(width) for width in fields["trimap"]]
      curves.append(trimap_curves.curve(name[:LETTERS], results))
  return trimap_curves.picture(curves, widths, fields) if curves else ""


def heat_map(outcome: tables.Outcome) -> str:
  """Return a heat map of IoU by row and class; "" without scores."""
  ious = {
    name: of_seeds
    for name, seeds in outcome.by_row.items()
    if (of_seeds := [x["iou"] for x in seeds if x.get("iou")])
  }
  if not ious:
    return ""
  classes = list(next(iter(ious.values()))[0])
  cells = {}
  for i, (row, seeds) in enumerate(ious.items()):
    for j, name in enumerate(classes):
      value = tables.middle(seeds, name)
      if value is not None:
        title = f"{row}, {name}: {value:.2%}"
        cells[i, j] = html.Cell(value, title, f"{100 * value:.1f}")
  rows = [name[:LETTERS] for name in ious]
  title = "IoU of each class"
  return html.heat_map(title, rows, classes, cells, size=(46, 24))


def sheets(lines: Sequence[dict[str, Any]], out: pathlib.Path) -> str:
  """Return the newest pictures of each training's first seed that has any."""
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
  with Image.open(path) as image:
    return html.picture(image.convert("RGB"), SIDE / image.width)


def failures(lines: Sequence[dict[str, Any]]) -> str:
  """Return the last log lines of each training that failed."""
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


def commands(outcome: tables.Outcome) -> str:
  """Return the command lines of each row's first seed."""
  parts = []
  for name, seeds in outcome.by_row.items():
    if seeds:
      text = html.escape("\n".join(seeds[0]["commands"]))
      parts.append(
        f"<details><summary>{html.escape(name)}</summary><pre>{text}</pre>"
        "</details>"
      )
  return "\n".join(parts)
