"""The report of an experiment: python -m experiments.report v3plus_table1

report.html is one page that needs no network, table.md its table, report.csv
every row and seed, and the page's plots are SVG files beside it; all from
results.jsonl and from what the trainings left. The page shows images of the
data set, which may not be passed on: `--no-pictures` leaves them out.
`--costs-only` needs no training: costs.html, costs.md, costs.csv.
"""

import argparse
from collections.abc import Sequence
import pathlib

from etils import epath

from deeplax import atomic
from deeplax import errors
from deeplax.ablation import costs as costs_lib
from deeplax.ablation import deviations
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import page
from deeplax.ablation import papers
from deeplax.ablation import results as results_lib
from deeplax.ablation import tables
from deeplax.reports import tables as tables_lib
from experiments import run

COSTS = (
  "Multiply-Adds are of the convolutions for one image, over all scales and "
  'flips; "as the papers count" rounds those of atrous convolutions up to '
  "multiples of the rate."
)


def report(
  experiment: experiment_lib.Experiment,
  lines: Sequence[results_lib.Line],
  costs: dict[str, costs_lib.Costs],
  out: pathlib.Path,
  *,
  name: str,
  pictures: bool = True,
) -> str:
  """Write <name>.html, table.md (or <name>.md), <name>.csv and the plots.

  Args:
    experiment: What was run.
    lines: Of results.jsonl; none for costs alone.
    costs: Of the rows; empty: left out.
    out: Where.
    name: "report" or "costs".
    pictures: Show images of the data, with truth and prediction.

  Returns:
    The table as Markdown.
  """
  made = tables.table(experiment, lines, costs)
  measured = {
    row: {
      key: tables.middle(found, key)
      for key in ("images_per_second", "step_memory")
    }
    for row, found in tables.by_row(experiment, lines).items()
  }
  verdicts = costs_lib.verdicts(experiment, costs) if costs else []
  savings = costs_lib.savings(experiment, costs, measured) if costs else []
  notes = [COSTS] if costs else []
  notes += ["\n".join(f"- {line}" for line in verdicts)] if verdicts else []
  if savings:
    notes += ["Saved by the second row of each pair:"]
    notes += [tables_lib.aligned(savings)]
  if lines:
    notes.insert(0, tables.noise(experiment, lines))
    notes.insert(0, _read_with_care(experiment))
  text = tables.markdown(experiment, made, [note for note in notes if note])
  shared, own = deviations.recipe(experiment, lines)
  parts = [f"<pre>{page.html.escape(experiment.about)}</pre>"]
  if experiment.paper:
    parts.append(page.paragraph(f"Paper: {experiment.paper.source}."))
  if lines:
    parts.append(page.paragraph(_read_with_care(experiment)))
    parts.append(page.paragraph(tables.noise(experiment, lines)))
  parts.append(page.sortable(made))
  parts.append(page.paragraph(COSTS if costs else ""))
  parts += [page.paragraph(line) for line in verdicts]
  parts += page.section(
    "What the second row of each pair saves",
    page.plain_table(savings, text=False),
  )
  if lines:
    parts += page.section("Failures", page.failures(lines))
    for file, title, plots in _plots(experiment, lines, costs):
      parts += page.section(title, *plots)
      _write_plot(out / file, page.beside(plots))
    if pictures:
      parts += page.section("Pictures", page.sheets(lines, out))
  parts += page.section(
    "Recipe: what differs from the paper's protocol",
    page.plain_table(shared) or page.paragraph("In all trainings: nothing."),
    *(
      page.paragraph(f"Also in {cell}:") + page.plain_table(table)
      for cell, table in own.items()
    ),
  )
  parts += page.section(
    "Rows that are not trained",
    page.plain_table(
      [["row", "why"], *map(list, deviations.refused(experiment))]
    ),
  )
  if lines:
    parts += page.section(
      "Training times", page.plain_table(deviations.times(lines))
    )
    parts += page.section(
      "Commands of each row", page.commands(experiment, lines)
    )
  if experiment.paper and experiment.paper.table:
    parts += _of_paper(experiment.paper.table)
  title = tables.title(experiment)
  atomic.write_text(epath.Path(out / f"{name}.html"), page.page(title, parts))
  of_text = "table.md" if name == "report" else f"{name}.md"
  atomic.write_text(epath.Path(out / of_text), text)
  atomic.write_text(
    epath.Path(out / f"{name}.csv"), tables.as_csv(experiment, lines, costs)
  )
  return text


def _plots(
  experiment: experiment_lib.Experiment,
  lines: Sequence[results_lib.Line],
  costs: dict[str, costs_lib.Costs],
) -> list[tuple[str, str, list[str]]]:
  """Return (file, title, SVGs) of each plot; no SVG where nothing is known."""
  scatter = page.scatter(experiment, lines, costs)
  classes = page.heat_map(experiment, lines)
  trimap = page.trimap(experiment, lines)
  found = [
    ("cost_accuracy.svg", "mIoU and cost", [scatter]),
    ("learning_curves.svg", "Learning curves", page.learning_curves(lines)),
    ("classes.svg", "IoU of each class, %", [classes]),
    ("trimap.svg", "Trimap curves", [trimap]),
  ]
  return [(file, title, list(filter(None, p))) for file, title, p in found]


def _write_plot(path: pathlib.Path, text: str) -> None:
  """Write a plot; one of an earlier report that there is none for goes."""
  if text:
    atomic.write_text(path, text)
  else:
    path.unlink(missing_ok=True)


def _read_with_care(experiment: experiment_lib.Experiment) -> str:
  """Say what a table on other data can and cannot tell."""
  if not experiment.data:
    return ""
  return (
    f"This is the table on {experiment.data}, not on the paper's data: only "
    "the order of rows can be compared, and a small network on little data "
    "may order them otherwise. Settings are those of the paper's rows; the "
    "recipe has what stood for them here."
  )


def _of_paper(name: str) -> list[str]:
  table = papers.table(name)
  lines = [table["columns"], *([str(v) for v in row] for row in table["rows"])]
  return page.section(
    f"The paper's table: {table['title']}",
    page.plain_table(lines),
    page.paragraph(table["note"]),
  )


@errors.command
def main(argv: Sequence[str] | None = None) -> None:
  """Write the report on the command line and print its table."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.report",
    description="A page, a table and a CSV of an experiment. Give the flags "
    "that it was run with.",
    epilog="example: python -m experiments.report v3plus_table1 --data=camvid",
    allow_abbrev=False,
  )
  run.add_arguments(parser)
  parser.add_argument(
    "--costs-only",
    action="store_true",
    help="Multiply-Adds and parameters of each row; nothing need have run",
  )
  parser.add_argument(
    "--pictures",
    action=argparse.BooleanOptionalAction,
    default=True,
    help="images of the data set on the page; --no-pictures for a page that "
    "goes elsewhere than the data may",
  )
  args = parser.parse_args(argv)
  experiment, out = run.loaded(args)
  lines: list[results_lib.Line] = []
  if not args.costs_only:
    jobs = results_lib.jobs(experiment, out, seeds=args.seeds)
    if not (out / "runs").exists():
      results_lib.read(out)  # says how to get some
    lines = results_lib.collect(experiment, jobs, out)
  costs = costs_lib.of(experiment, lambda line: print(line, flush=True))
  name = "costs" if args.costs_only else "report"
  print(
    report(experiment, lines, costs, out, name=name, pictures=args.pictures)
  )
  print(out / f"{name}.html")


if __name__ == "__main__":
  main()
