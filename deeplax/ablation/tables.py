"""A report's table: one line a row, the columns that vary, text and numbers."""

from collections.abc import Iterable, Sequence
import csv
import io
import math
from typing import Any, NamedTuple

from deeplax import clocks
from deeplax.ablation import costs as costs_lib
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import results as results_lib
from deeplax.reports import tables

Line = dict[str, Any]


class Value(NamedTuple):
  """A cell of the table: what it shows and what it sorts by."""

  text: str
  key: float | int | str

  @classmethod
  def number(cls, value: float | int | None, form: str = "{:.2f}") -> "Value":
    """Return a number; nothing for None and NaN, which sort last."""
    if value is None or math.isnan(value):
      return cls("", -math.inf)
    return cls(form.format(value), value)


class Table(NamedTuple):
  """Columns by title, each with a value for each row."""

  rows: list[str]
  columns: dict[str, list[Value]]

  def lines(self) -> list[list[str]]:
    """Return titles and rows, as text."""
    columns = self.columns.values()
    head = ["row", *self.columns]
    return [
      head,
      *(
        [name, *(column[i].text for column in columns)]
        for i, name in enumerate(self.rows)
      ),
    ]


class Scores(NamedTuple):
  """Of a row over its seeds; NaN: none.

  Attributes:
    count: Finished seeds.
    mean: mIoU in percent.
    std: Of one run, n - 1.
  """

  count: int
  mean: float
  std: float

  def __str__(self) -> str:
    if not self.count:
      return ""
    spread = "" if math.isnan(self.std) else f" ± {self.std:.2f}"
    return f"{self.mean:.2f}{spread}"


def by_row(
  experiment: experiment_lib.Experiment, lines: Sequence[Line]
) -> dict[str, list[Line]]:
  """Return the lines of each row, seed by seed."""
  grouped: dict[str, list[Line]] = {row.name: [] for row in experiment.rows}
  for line in lines:
    if line["row"] in grouped and line["seed"] is not None:
      grouped[line["row"]].append(line)
  return grouped


def scores(lines: Sequence[Line]) -> Scores:
  """Return mean and spread of the finished lines of a row."""
  values = [100 * x["miou"] for x in lines if x.get("miou") is not None]
  return Scores(len(values), *results_lib.mean_std(values))


def middle(lines: Sequence[Line], key: str) -> float | None:
  """Return the mean of what is known of a key."""
  values = [x[key] for x in lines if x.get(key) is not None]
  return sum(values) / len(values) if values else None


def setting_columns(
  experiment: experiment_lib.Experiment,
) -> dict[str, list[Value]]:
  """Return a column for each setting that differs between rows."""
  rows = [row.settings for row in experiment.rows]
  keys = experiment_lib.varying(rows) if len(rows) > 1 else []
  titles = [key.rsplit(".", 1)[-1] for key in keys]
  columns = {}
  for key, title in zip(keys, titles, strict=True):
    short = title if titles.count(title) == 1 else key
    columns[short] = [_setting(row.get(key, "")) for row in rows]
  return columns


def _setting(value: Any) -> Value:
  if isinstance(value, bool):
    return Value("yes" if value else "", int(value))
  if isinstance(value, int | float):
    return Value(f"{value:g}", value)
  if isinstance(value, tuple | list):
    text = ", ".join(map(str, value))
    if len(value) > 4:
      text = f"{value[0]} to {value[-1]} ({len(value)})"
    return Value(text, text)
  text = "" if value is None else str(value)
  return Value(text, text)


def table(
  experiment: experiment_lib.Experiment,
  lines: Sequence[Line],
  costs: dict[str, costs_lib.Costs],
) -> Table:
  """Return all columns that are not empty.

  Args:
    experiment: Names the rows and the paper's numbers.
    lines: Of results.jsonl; none for the costs alone.
    costs: By row; empty: not computed.
  """
  grouped = by_row(experiment, lines)
  columns = {
    **setting_columns(experiment),
    **_score_columns(experiment, grouped),
    "status": [
      _setting(_status(row, grouped[row.name])) for row in experiment.rows
    ],
    **_cost_columns(experiment, costs),
    **_measured_columns(grouped),
  }
  return Table(
    [row.name for row in experiment.rows],
    {t: c for t, c in columns.items() if any(v.text for v in c)},
  )


def _numbers(
  values: Iterable[float | int | None],
  form: str = "{:.2f}",
  *,
  unit: float | None = None,
) -> list[Value]:
  """Return a column of numbers, in a unit of so many."""
  return [
    Value.number(v / unit if unit and v is not None else v, form)
    for v in values
  ]


def _score_columns(
  experiment: experiment_lib.Experiment, grouped: dict[str, list[Line]]
) -> dict[str, list[Value]]:
  """Return the columns of mIoU, here and in the paper."""
  of_rows = [scores(grouped[row.name]) for row in experiment.rows]
  means = [None if math.isnan(s.mean) else s.mean for s in of_rows]
  paper = [row.miou for row in experiment.rows]
  columns = {
    "mIoU": [Value(str(s), _last(s.mean)) for s in of_rows],
    "seeds": _numbers((s.count or None for s in of_rows), "{}"),
    "paper": _numbers(paper),
  }
  if experiment.data:  # other data's numbers compare only with each other
    columns["over the first"] = _gains(means, means)
    columns["paper's, over the first"] = _gains(paper, means)
  else:
    columns["difference"] = _numbers(
      (
        None if mean is None or miou is None else mean - miou
        for mean, miou in zip(means, paper, strict=True)
      ),
      "{:+.2f}",
    )
  return columns


def _cost_columns(
  experiment: experiment_lib.Experiment, costs: dict[str, costs_lib.Costs]
) -> dict[str, list[Value]]:
  """Return the columns of Multiply-Adds, parameters and field of view."""
  of_rows = [costs.get(row.name, {}) for row in experiment.rows]
  columns = {
    "Multiply-Adds, B": _numbers(
      (c.get("multiply_adds") for c in of_rows), unit=1e9
    ),
    "as the papers count": _numbers(
      (c.get("multiply_adds_paper") for c in of_rows), unit=1e9
    ),
  }
  if not experiment.data:
    shares = map(costs_lib.against_paper, experiment.rows, of_rows)
    columns["published, B"] = _numbers(
      row.multiply_adds for row in experiment.rows
    )
    columns["off"] = _numbers(
      (None if share is None else 100 * share for share in shares), "{:+.2f}%"
    )
  columns["parameters, M"] = _numbers(
    (c.get("parameters") for c in of_rows), unit=1e6
  )
  columns["field of view, px"] = _numbers(
    (c.get("field_of_view") for c in of_rows), "{}"
  )
  return columns


def _measured_columns(grouped: dict[str, list[Line]]) -> dict[str, list[Value]]:
  """Return the columns of what the trainings took, means of their seeds."""
  columns = {
    title: _numbers(
      (middle(seeds, key) for seeds in grouped.values()), form, unit=unit
    )
    for title, key, form, unit in (
      ("images/s", "images_per_second", "{:.2f}", None),
      ("images/s, training", "train_images_per_second", "{:.1f}", None),
      ("memory of a step, GB", "step_memory", "{:.1f}", 1e9),
      ("memory of the host, GB", "host_memory", "{:.1f}", 1e9),
    )
  }
  seconds = [middle(seeds, "seconds") for seeds in grouped.values()]
  columns["time of a training"] = [
    Value.number(None) if s is None else Value(clocks.duration(s), s)
    for s in seconds
  ]
  columns["commit"] = [
    _setting(", ".join(_distinct(seeds, "commit")))
    for seeds in grouped.values()
  ]
  return columns


def _gains(
  values: Sequence[float | None], means: Sequence[float | None]
) -> list[Value]:
  """Return by how much values exceed that of the first row that was found."""
  first = next((i for i, x in enumerate(means) if x is not None), None)
  base = None if first is None else values[first]
  return [
    Value.number(None if x is None or base is None else x - base, "{:+.2f}")
    for x in values
  ]


def _last(value: float) -> float:
  return -math.inf if math.isnan(value) else value


def _distinct(lines: Sequence[Line], key: str) -> list[str]:
  return sorted({line[key] for line in lines if line.get(key)})


def _status(row: experiment_lib.Row, lines: Sequence[Line]) -> str:
  """Return "finished", or how many seeds are what."""
  if row.cell is None:
    return row.why
  kinds = [line["status"] for line in lines]
  counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
  if set(counts) <= {"finished"}:
    return "finished" if counts else "not run"
  if set(counts) == {"not run"}:
    return "not run"
  return ", ".join(f"{n} {kind}" for kind, n in counts.items())


def noise(experiment: experiment_lib.Experiment, lines: Sequence[Line]) -> str:
  """Return in words how far seeds of one row lie apart."""
  of_rows = [scores(x) for x in by_row(experiment, lines).values()]
  spread = [s.std for s in of_rows if not math.isnan(s.std)]
  if not spread:
    return (
      "One seed, or none: there is no telling a difference from chance. The "
      "same recipe spans 0.5 points in v3's table 11."
    )
  typical = math.sqrt(sum(s * s for s in spread) / len(spread))
  count = max(s.count for s in of_rows)
  error = typical * math.sqrt(2 / count)
  return (
    f"Standard deviation of one run: {typical:.2f} points, over "
    f"{len(spread)} rows of up to {count} seeds. Two rows of {count} seeds "
    f"differ by chance by {error:.2f} points; less than {2 * error:.2f} means "
    "nothing."
  )


def markdown(heading: str, made: Table, notes: Sequence[str]) -> str:
  """Return table.md: what it is, the table, notes."""
  return (
    "\n\n".join([f"# {heading}", tables.aligned(made.lines()), *notes]) + "\n"
  )


def title(experiment: experiment_lib.Experiment) -> str:
  """Return the first line of what an experiment is about."""
  return experiment.about.splitlines()[0].rstrip(".")


def as_csv(
  experiment: experiment_lib.Experiment,
  lines: Sequence[Line],
  costs: dict[str, costs_lib.Costs],
) -> str:
  """Return report.csv: a line for each row and seed, mIoU in percent."""
  names = [n for line in lines for n in line.get("iou") or ()]
  classes = list(dict.fromkeys(names))
  keys = list(dict.fromkeys(k for r in experiment.rows for k in r.settings))
  plain = (
    *("status", "images_per_second", "train_images_per_second"),
    *("step_memory", "host_memory", "seconds", "commit", "workdir", "init"),
  )
  counted = ("multiply_adds", "multiply_adds_paper", "parameters")
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(
    ["row", "seed", *keys, "miou", "paper_miou", "paper_multiply_adds"]
    + [*counted, *plain, *(f"iou {name}" for name in classes)]
  )
  by_name = {row.name: row for row in experiment.rows}
  shown = list(lines) or [
    {"row": row.name, "seed": None} for row in experiment.rows
  ]
  for line in shown:
    if line["row"] not in by_name:
      continue
    row = by_name[line["row"]]
    of_classes = line.get("iou") or {}
    writer.writerow([
      *(row.name, line["seed"]),
      *(row.settings.get(key, "") for key in keys),
      *(_percent(line.get("miou")), row.miou, row.multiply_adds),
      *(costs.get(row.name, {}).get(key) for key in counted),
      *(line.get(key) for key in plain),
      *(_percent(of_classes.get(name)) for name in classes),
    ])  # fmt: skip
  return text.getvalue()


def _percent(value: float | None) -> float | None:
  return None if value is None else round(100 * value, 4)
