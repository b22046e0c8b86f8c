"""The report of an experiment: a page, its table as Markdown, a CSV, plots.

Page and Markdown are made from one list of sections.
"""

from collections.abc import Sequence
import html
import pathlib
from typing import NamedTuple

from etils import epath

from deeplax import atomic
from deeplax.ablation import costs as costs_lib
from deeplax.ablation import deviations
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import page
from deeplax.ablation import papers
from deeplax.ablation import results as results_lib
from deeplax.ablation import tables
from deeplax.reports import tables as tables_lib

Costs = dict[str, costs_lib.Costs]
COSTS = (
  "Multiply-Adds are of the convolutions for one image, over all scales and "
  'flips; "as the papers count" rounds those of atrous convolutions up to '
  "multiples of the rate."
)


class Section(NamedTuple):
  """A part of the report.

  Attributes:
    title: Its heading on the page; "": none.
    html: What the page has; a titled section without any is left out.
    markdown: What table.md has below the table.
    plot: File beside the page with the pictures of this section.
  """

  title: str
  html: Sequence[str]
  markdown: str = ""
  plot: str = ""


def report(
  experiment: experiment_lib.Experiment,
  lines: Sequence[results_lib.Line],
  costs: Costs,
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
  table = tables.table(experiment, lines, costs)
  sections = [
    *_above(experiment, lines),
    Section("", [page.sortable(table)]),
    *_of_costs(experiment, lines, costs),
  ]
  if lines:
    sections.append(Section("Failures", [page.failures(lines)]))
    sections += _plots(experiment, lines, costs)
  if lines and pictures:
    sections.append(Section("Pictures", [page.sheets(lines, out)]))
  sections += _below(experiment, lines)
  title = tables.title(experiment)
  body = [
    part
    for section in sections
    for part in page.section(section.title, *section.html)
  ]
  notes = [section.markdown for section in sections if section.markdown]
  text = tables.markdown(title, table, notes)
  markdown = "table.md" if name == "report" else f"{name}.md"
  for file, content in (
    (f"{name}.html", page.page(title, body)),
    (markdown, text),
    (f"{name}.csv", tables.as_csv(experiment, lines, costs)),
  ):
    atomic.write_text(epath.Path(out / file), content)
  for section in sections:
    if section.plot:
      _write_plot(out / section.plot, page.side_by_side(section.html))
  return text


def _text(text: str) -> Section:
  return Section("", [page.paragraph(text)], text)


def _above(
  experiment: experiment_lib.Experiment, lines: Sequence[results_lib.Line]
) -> list[Section]:
  """Return what stands above the table."""
  sections = [Section("", [f"<pre>{html.escape(experiment.about)}</pre>"])]
  if experiment.paper:
    sections.append(_text(f"Paper: {experiment.paper.source}."))
  if lines:
    sections.append(_text(_read_with_care(experiment)))
    sections.append(_text(tables.noise(experiment, lines)))
  return sections


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


def _of_costs(
  experiment: experiment_lib.Experiment,
  lines: Sequence[results_lib.Line],
  costs: Costs,
) -> list[Section]:
  """Return what there is to say of Multiply-Adds; nothing without costs."""
  if not costs:
    return []
  verdicts = costs_lib.verdicts(experiment, costs)
  measured = {
    row: {
      key: tables.middle(seeds, key)
      for key in ("images_per_second", "step_memory")
    }
    for row, seeds in tables.by_row(experiment, lines).items()
  }
  savings = costs_lib.savings(experiment, costs, measured)
  saved = "Saved by the second row of each pair:"
  return [
    _text(COSTS),
    Section(
      "",
      [page.paragraph(line) for line in verdicts],
      "\n".join(f"- {line}" for line in verdicts),
    ),
    Section(
      "What the second row of each pair saves",
      [page.plain_table(savings, text=False)],
      f"{saved}\n\n{tables_lib.aligned(savings)}" if savings else "",
    ),
  ]


def _plots(
  experiment: experiment_lib.Experiment,
  lines: Sequence[results_lib.Line],
  costs: Costs,
) -> list[Section]:
  """Return a section for each plot, empty where nothing is known."""
  scatter = page.scatter(experiment, lines, costs)
  classes = page.heat_map(experiment, lines)
  trimap = page.trimap(experiment, lines)
  return [
    Section(title, list(filter(None, plots)), plot=file)
    for file, title, plots in (
      ("cost_accuracy.svg", "mIoU and cost", [scatter]),
      ("learning_curves.svg", "Learning curves", page.learning_curves(lines)),
      ("classes.svg", "IoU of each class, %", [classes]),
      ("trimap.svg", "Trimap curves", [trimap]),
    )
  ]


def _write_plot(path: pathlib.Path, text: str) -> None:
  """Write a plot; one of an earlier report that there is none for goes."""
  if text:
    atomic.write_text(path, text)
  else:
    path.unlink(missing_ok=True)


def _below(
  experiment: experiment_lib.Experiment, lines: Sequence[results_lib.Line]
) -> list[Section]:
  """Return how the trainings were made, and the paper's own table."""
  shared, own = deviations.recipe(experiment, lines)
  not_trained = [["row", "why"], *map(list, deviations.refused(experiment))]
  sections = [
    Section(
      "Recipe: what differs from the paper's protocol",
      [
        page.plain_table(shared)
        or page.paragraph("In all trainings: nothing."),
        *(
          page.paragraph(f"Also in {cell}:") + page.plain_table(table)
          for cell, table in own.items()
        ),
      ],
    ),
    Section("Rows that are not trained", [page.plain_table(not_trained)]),
  ]
  if lines:
    times = page.plain_table(deviations.times(lines))
    commands = page.commands(experiment, lines)
    sections.append(Section("Training times", [times]))
    sections.append(Section("Commands of each row", [commands]))
  if experiment.paper and experiment.paper.table:
    paper = papers.table(experiment.paper.table)
    rows = [[str(value) for value in row] for row in paper["rows"]]
    sections.append(
      Section(
        f"The paper's table: {paper['title']}",
        [
          page.plain_table([paper["columns"], *rows]),
          page.paragraph(paper["note"]),
        ],
      )
    )
  return sections


def write(
  experiment: experiment_lib.Experiment,
  out: pathlib.Path,
  *,
  seeds: Sequence[int] = (),
  costs_only: bool = False,
  pictures: bool = True,
) -> str:
  """Make a report of what the trainings in `out` have left; return its table.

  Raises:
    InputError: There is nothing in `out`, or it is of other settings.
  """
  lines: list[results_lib.Line] = []
  if not costs_only:
    jobs = results_lib.jobs(experiment, out, seeds=seeds)
    if not (out / "runs").exists():
      results_lib.read(out)  # says how to get some
    lines = results_lib.collect(experiment, jobs, out)
  costs = costs_lib.of(experiment, lambda line: print(line, flush=True))
  name = "costs" if costs_only else "report"
  return report(experiment, lines, costs, out, name=name, pictures=pictures)
