"""Parts of the report's page: the sortable table, plots, pictures, commands."""

from collections.abc import Sequence
import math
import pathlib
import re
from typing import Any

import numpy as np
from PIL import Image

from deeplax.ablation import tables
from deeplax.ablation import verdict
from deeplax.metrics import printed
from deeplax.reports import html
from deeplax.reports import line_plot
from deeplax.reports import trimap_curves

LETTERS = 44  # of a row's name in a picture
CLASSES_WIDTH = 1000  # pixels, of the columns of the heat map if they fit
SIDE = 760  # pixels, the width of a sheet of pictures

_STYLE = """
body { max-width: 1500px; }
h2 { margin-top: 2em; }
th, td { padding: 3px 8px; }
.verdict { font-size: 1.25em; }
.best { background: #d6e6f8; font-weight: bold; }
.near { background: #eef4fb; }
.key span { padding: 1px 6px; }
.text td, .text th { text-align: left; }
.wide { overflow-x: auto; }
.wide td { white-space: nowrap; }
th button { font: inherit; font-weight: bold; border: 0; padding: 0;
  background: none; cursor: pointer; text-align: inherit; color: #0b3d75; }
th[aria-sort=ascending] button::after { content: " \\25b2"; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
.wide svg { max-width: none; }
.plots { display: grid; gap: 24px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
.plots svg { width: 100%; max-width: 800px; }
pre { background: #f5f5f5; padding: 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.failed { border-left: 4px solid #d61414; padding-left: 10px; }
.sheets { display: flex; flex-wrap: wrap; gap: 16px; }
figure { margin: 0; }
@media (max-width: 600px) { body { margin: 1em; } }
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


def about(text: str) -> str:
  """Return an experiment's docstring without its title, as paragraphs.

  Lines that start with COMMAND, and those below them, stay lines.
  """
  _, _, rest = text.partition("\n")
  parts = []
  for block in re.split(r"\n\s*\n", rest.strip()):
    if block.startswith("COMMAND:"):
      lines = block.removeprefix("COMMAND:").splitlines()
      inside = "<br>\n".join(html.escape(" ".join(x.split())) for x in lines)
      parts.append(f"<p><code>{inside}</code></p>")
    else:
      parts.append(html.paragraph(" ".join(block.split())))
  return "\n".join(parts)


def sortable(made: tables.Table, best: verdict.Best | None = None) -> str:
  """Return the table; a click on a title sorts it by that column.

  Args:
    made: The table.
    best: The row that is marked, and those near it; None: no row is.
  """
  kinds = {}
  if best:
    kinds = dict.fromkeys(best.near, ' class="near"')
    kinds[best.row] = ' class="best"'
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
    rows.append(f"<tr{kinds.get(name, '')}>{inside}</tr>")
  key = ""
  if best:
    key = '\n<p class="key"><span class="best">best</span>'
    if best.near:
      key += ' <span class="near">within the spread of seeds</span>'
    key += "</p>"
  return (
    f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n'
    + "\n".join(rows)
    + f"\n</tbody>\n</table></div>{key}"
  )


def _key(key: float | int | str) -> str:
  if isinstance(key, float) and math.isinf(key):
    return "-1e308"
  return str(key)


def plots(panels: Sequence[line_plot.Panel]) -> str:
  """Return panels side by side, or below each other on a narrow screen."""
  if not panels:
    return ""
  inside = "\n".join(line_plot.svg([panel]) for panel in panels)
  return f'<div class="plots">\n{inside}</div>'


def _named(name: str, best: verdict.Best | None) -> tuple[str, bool]:
  """Return a row's name in a plot, and whether it is the best row."""
  marked = best is not None and name == best.row
  return name[:LETTERS] + (" (best)" if marked else ""), marked


def learning_curves(
  outcome: tables.Outcome, best: verdict.Best | None
) -> list[line_plot.Panel]:
  """Return plots of loss and mIoU by step, means of each training's seeds."""
  rows = outcome.experiment.rows
  of_best = [
    r.cell.name for r in rows if best and r.cell and r.name == best.row
  ]
  of_cells: dict[str, dict[int, dict[str, Any]]] = {}
  for line in outcome.lines:
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
      marked = name in of_best
      shown = name[:LETTERS] + (" (best)" if marked else "")
      mean = values.mean(axis=0)
      drawn.append(line_plot.Line(shown, mean, spread, marked=marked))
    if steps:
      panels.append(line_plot.Panel(title, drawn, steps, "step"))
  return panels


def _at(
  steps: Sequence[int], points: Sequence[Sequence[float | int]]
) -> np.ndarray:
  """Return a curve's values at other steps, interpolated; NaN outside it."""
  if not points:
    return np.full(len(steps), np.nan)
  x, y = np.array(points, np.float64).T
  return np.interp(steps, x, y, left=np.nan, right=np.nan)


def rows_and_costs(
  outcome: tables.Outcome, best: verdict.Best | None
) -> list[line_plot.Panel]:
  """Return plots of mIoU by row, and over Multiply-Adds if these differ."""
  places, costs = [], []
  for i, (name, seeds) in enumerate(outcome.by_row.items()):
    score, row = tables.scores(seeds), outcome.costs.get(name)
    if score.count:
      places.append((i + 1, i + 1, name, score))
      if row:
        costs.append((i + 1, row["multiply_adds"] / 1e9, name, score))
  axes = (
    (places, "row of the table"),
    (costs, "Multiply-Adds of an image, billions"),
  )
  return [
    _points(points, axis, best)
    for points, axis in axes
    if len({x for _, x, _, _ in points}) > 1
  ]


def _points(
  points: Sequence[tuple[int, float | int, str, tables.Scores]],
  axis: str,
  best: verdict.Best | None,
) -> line_plot.Panel:
  """Return a plot of a point for each row: (number, x, name, score)."""
  x = sorted({at for _, at, _, _ in points})
  drawn = []
  for number, at, name, score in points:
    values, spread = np.full((2, len(x)), np.nan)
    values[x.index(at)] = score.mean
    spread[x.index(at)] = score.std
    shown, marked = _named(name, best)
    label = f"{number}"  # colors repeat if there are many rows
    title = f"{label}: {shown}"
    drawn.append(line_plot.Line(title, values, spread, label, marked))
  return line_plot.Panel("mIoU, %", drawn, x, axis)


def trimap(
  outcome: tables.Outcome, best: verdict.Best | None
) -> list[line_plot.Panel]:
  """Return plots of the trimap curves; [] if none was measured."""
  curves, marked = [], None
  fields, widths = {}, []
  for name, seeds in outcome.by_row.items():
    results = [(f"{name} {x['seed']}", x) for x in seeds if x.get("trimap")]
    if results:
      _, fields = results[0]
      widths = [int(width) for width in fields["trimap"]]
      shown, is_best = _named(name, best)
      marked = len(curves) if is_best else marked
      curves.append(trimap_curves.curve(shown, results))
  if not curves:
    return []
  return trimap_curves.panels(curves, widths, fields, marked=marked)


def heat_map(outcome: tables.Outcome, best: verdict.Best | None) -> str:
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
        title = f"{row}, {name}: {printed.score(value)}"
        text = printed.points(100 * value)
        cells[i, j] = html.Cell(value, title, text)
  rows = [_named(name, best)[0] for name in ious]
  title = "IoU of each class"
  width = min(max(CLASSES_WIDTH // len(classes), 46), 90)
  return html.heat_map(title, rows, classes, cells, size=(width, 26))


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
