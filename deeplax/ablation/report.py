"""The report of an experiment: a page, a Markdown table, a CSV and plots.

The page and the Markdown come from one list of sections.
"""

from collections.abc import Sequence
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
from deeplax.ablation import verdict
from deeplax.metrics import printed
from deeplax.reports import html
from deeplax.reports import line_plot

COSTS = (
  "Multiply-Adds are of the convolutions for one image, over all scales and "
  'flips; "as the papers count" rounds those of atrous convolutions up to '
  "multiples of the rate."
)


class Section(NamedTuple):
  """A part of the report.

  Attributes:
    title: Heading on the page; "": no heading.
    parts: HTML; a section with a title but no part is left out.
    markdown: Text for table.md, below the table.
    plot: Name of the SVG file with the picture of this section; "": none.
    drawing: The text of that file; "": there is nothing to draw.
  """

  title: str
  parts: Sequence[str]
  markdown: str = ""
  plot: str = ""
  drawing: str = ""

  def html(self) -> list[str]:
    """Return the section's parts of the page, with its heading."""
    if not self.title:
      return list(self.parts)
    inside = [part for part in self.parts if part]
    return [f"<h2>{html.escape(self.title)}</h2>", *inside] if inside else []


def report(
  outcome: tables.Outcome,
  out: pathlib.Path,
  *,
  name: str,
  pictures: bool = True,
) -> str:
  """Write <name>.html, table.md (or <name>.md), <name>.csv and the plots.

  Args:
    outcome: Results and costs of the experiment.
    out: Folder.
    name: "report" or "costs".
    pictures: Show images of the data, with truth and prediction.

  Returns:
    The table as Markdown.
  """
  table, lines = tables.table(outcome), outcome.lines
  best = verdict.best(outcome)
  sections = [
    *_above(outcome),
    Section("", [page.sortable(table, best)]),
    *_of_costs(outcome),
  ]
  if lines:
    sections.append(Section("Failures", [page.failures(lines)]))
    sections += _plots(outcome, best)
  if lines and pictures:
    sections.append(Section("Pictures", [page.sheets(lines, out)]))
  sections += _below(outcome)
  title = tables.title(outcome.experiment)
  body = [part for section in sections for part in section.html()]
  paragraphs = [
    f"# {title}",
    *([verdict.sentence(outcome)] if lines else []),
    printed.markdown(_with_best(table.lines(), best)),
    *(section.markdown for section in sections if section.markdown),
  ]
  text = "\n\n".join(paragraphs) + "\n"
  markdown = "table.md" if name == "report" else f"{name}.md"
  for file, content in (
    (f"{name}.html", page.page(title, body)),
    (markdown, text),
    (f"{name}.csv", tables.as_csv(outcome)),
  ):
    atomic.write_text(epath.Path(out / file), content)
  for section in sections:
    if section.plot:
      _write_plot(out / section.plot, section.drawing)
  return text


def _with_best(
  lines: list[list[str]], best: verdict.Best | None
) -> list[list[str]]:
  """Return the lines of a table, the score of the best row in bold."""
  if best is None:
    return lines
  place = lines[0].index("mIoU")
  return [
    [*x[:place], f"**{x[place]}**", *x[place + 1 :]] if x[0] == best.row else x
    for x in lines
  ]


def _text(text: str) -> Section:
  return Section("", [html.paragraph(text)], text)


def _above(outcome: tables.Outcome) -> list[Section]:
  """Return the sections above the table."""
  experiment = outcome.experiment
  sections = [Section("", [page.about(experiment.about)])]
  if outcome.lines:
    said = html.escape(verdict.sentence(outcome))
    sections.insert(0, Section("", [f'<p class="verdict">{said}</p>']))
  if experiment.paper:
    sections.append(_text(f"Paper: {experiment.paper.source}."))
  if outcome.lines:
    sections.append(_text(_read_with_care(experiment)))
    sections.append(_text(verdict.noise(outcome)))
  return sections


def _read_with_care(experiment: experiment_lib.Experiment) -> str:
  """Return a warning about a table on other data; "" on the paper's own."""
  if not experiment.data:
    return ""
  return (
    f"This is the table on {experiment.data}, not on the paper's data: only "
    "the order of rows can be compared, and a small network on little data "
    "may order them otherwise. Settings are those of the paper's rows; the "
    "recipe has what stood for them here."
  )


def _of_costs(outcome: tables.Outcome) -> list[Section]:
  """Return the sections about Multiply-Adds; none without costs."""
  if not outcome.costs:
    return []
  verdicts = costs_lib.verdicts(outcome.experiment, outcome.costs)
  measured = {
    row: {
      key: tables.middle(seeds, key)
      for key in ("images_per_second", "step_memory")
    }
    for row, seeds in outcome.by_row.items()
  }
  savings = costs_lib.savings(outcome.experiment, outcome.costs, measured)
  saved = "Saved by the second row of each pair:"
  return [
    _text(COSTS),
    Section(
      "",
      [html.paragraph(line) for line in verdicts],
      "\n".join(f"- {line}" for line in verdicts),
    ),
    Section(
      "What the second row of each pair saves",
      [html.table(savings)],
      f"{saved}\n\n{printed.markdown(savings)}" if savings else "",
    ),
  ]


def _plots(outcome: tables.Outcome, best: verdict.Best | None) -> list[Section]:
  """Return a section for each plot, empty if there is nothing to plot."""
  classes = page.heat_map(outcome, best)
  wide = f'<div class="wide">\n{classes}\n</div>' if classes else ""
  drawn = (
    ("cost_accuracy.svg", "mIoU and cost", page.rows_and_costs(outcome, best)),
    (
      "learning_curves.svg",
      "Learning curves",
      page.learning_curves(outcome, best),
    ),
    ("trimap.svg", "Trimap curves", page.trimap(outcome, best)),
  )
  sections = [
    Section(
      title,
      [page.plots(panels)],
      plot=file,
      drawing=line_plot.svg(panels) if panels else "",
    )
    for file, title, panels in drawn
  ]
  title = "IoU of each class, %"
  heat = Section(title, [wide], plot="classes.svg", drawing=classes)
  return [*sections[:2], heat, *sections[2:]]


def _write_plot(path: pathlib.Path, text: str) -> None:
  """Write a plot, or delete that of an earlier report if it is empty now."""
  if text:
    atomic.write_text(path, text)
  else:
    path.unlink(missing_ok=True)


def _below(outcome: tables.Outcome) -> list[Section]:
  """Return the sections below: recipe, times, commands, the paper's table."""
  experiment, lines = outcome.experiment, outcome.lines
  shared, own = deviations.recipe(experiment, lines)
  not_trained = [["row", "why"], *map(list, deviations.refused(experiment))]
  sections = [
    Section(
      "Recipe: what differs from the paper's protocol",
      [
        _table(shared) or html.paragraph("In all trainings: nothing."),
        *(
          html.paragraph(f"Also in {cell}:") + _table(table)
          for cell, table in own.items()
        ),
      ],
    ),
    Section("Rows that are not trained", [_table(not_trained)]),
  ]
  if lines:
    times = _table(deviations.times(lines))
    sections.append(Section("Training times", [times]))
    sections.append(Section("Commands of each row", [page.commands(outcome)]))
  if experiment.paper and experiment.paper.table:
    paper = papers.table(experiment.paper.table)
    rows = [[str(value) for value in row] for row in paper["rows"]]
    sections.append(
      Section(
        f"The paper's table: {paper['title']}",
        [_table([paper["columns"], *rows]), html.paragraph(paper["note"])],
      )
    )
  return sections


def _table(lines: printed.Table) -> str:
  """Return a table of words."""
  return html.table(lines, kind="text")


def write(
  experiment: experiment_lib.Experiment,
  out: pathlib.Path,
  *,
  seeds: Sequence[int] = (),
  costs_only: bool = False,
  pictures: bool = True,
) -> str:
  """Write the report of the trainings in `out`; return its Markdown table.

  Raises:
    InputError: There is no result in `out`, or it is of other settings.
  """
  lines: list[results_lib.Line] = []
  if not costs_only:
    jobs = results_lib.jobs(experiment, out, seeds=seeds)
    if not (out / "runs").exists():
      results_lib.read(out)  # says how to get some
    lines = results_lib.collect(experiment, jobs, out)
  costs = costs_lib.of(experiment, lambda line: print(line, flush=True))
  name = "costs" if costs_only else "report"
  outcome = tables.Outcome(experiment, lines, costs)
  return report(outcome, out, name=name, pictures=pictures)
