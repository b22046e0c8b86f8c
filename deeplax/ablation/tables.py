"""The table of a report: a line for each row, as text, numbers and CSV."""

from collections.abc import Callable, Iterable, Sequence
import csv
import dataclasses
import functools
import io
import math
from typing import Any, NamedTuple

from deeplax import clocks
from deeplax.ablation import costs as costs_lib
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import results as results_lib
from deeplax.metrics import printed

Line = dict[str, Any]

# Columns of costs, and of the trainings' speed and memory (means over seeds):
# title, key, format, unit.
COLUMNS = (
  ("Multiply-Adds, B", "multiply_adds", "{:.2f}", 1e9),
  ("as the papers count", "multiply_adds_paper", "{:.2f}", 1e9),
  ("published, B", "published", "{:.2f}", None),
  ("off", "off", "{:+.2f}%", None),
  ("parameters, M", "parameters", "{:.2f}", 1e6),
  ("field of view, px", "field_of_view", "{}", None),
  ("images/s", "images_per_second", "{:.2f}", None),
  ("images/s, training", "train_images_per_second", "{:.1f}", None),
  ("memory of a step, GB", "step_memory", "{:.1f}", 1e9),
  ("memory of the host, GB", "host_memory", "{:.1f}", 1e9),
)


class Value(NamedTuple):
  """A cell of the table: its text, and the key that its column sorts by."""

  text: str
  key: float | int | str

  @classmethod
  def number(cls, value: float | int | None, form: str = "{:.2f}") -> "Value":
    """Return a number's cell; that of None and NaN is empty and sorts last."""
    if value is None or math.isnan(value):
      return cls("", -math.inf)
    return cls(form.format(value), value)


class Table(NamedTuple):
  """Columns by title, each with a cell for each row."""

  rows: list[str]
  columns: dict[str, list[Value]]

  def lines(self) -> list[list[str]]:
    """Return the text of the titles and rows."""
    rows = [
      [name, *(column[i].text for column in self.columns.values())]
      for i, name in enumerate(self.rows)
    ]
    return [["row", *self.columns], *rows]


class Scores(NamedTuple):
  """The mIoU of a row over its seeds, in percent.

  Attributes:
    count: Number of finished seeds.
    mean: NaN: no seed has finished.
    std: Standard deviation of one run (n - 1); NaN: fewer than two seeds.
  """

  count: int
  mean: float
  std: float

  def __str__(self) -> str:
    return printed.mean(self.mean, self.std)


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Results and costs of an experiment.

  Attributes:
    experiment: With the rows and the paper's numbers.
    lines: Of results.jsonl; empty: costs only.
    costs: By row; empty: not computed.
  """

  experiment: experiment_lib.Experiment
  lines: Sequence[Line]
  costs: dict[str, costs_lib.Costs]

  @functools.cached_property
  def by_row(self) -> dict[str, list[Line]]:
    """The lines of each row, seed by seed."""
    grouped = {row.name: [] for row in self.experiment.rows}
    for line in self.lines:
      if line["row"] in grouped and line["seed"] is not None:
        grouped[line["row"]].append(line)
    return grouped


def scores(lines: Sequence[Line]) -> Scores:
  """Return mean and deviation of the finished lines of a row."""
  values = [100 * x["miou"] for x in lines if x.get("miou") is not None]
  return Scores(len(values), *results_lib.mean_std(values))


def middle(lines: Sequence[Line], key: str) -> float | None:
  """Return the mean of a key over the lines that have it; None: no line has."""
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


def table(outcome: Outcome) -> Table:
  """Return all columns that are not empty."""
  experiment, by_row = outcome.experiment, outcome.by_row
  columns = {
    **setting_columns(experiment),
    **_score_columns(experiment, by_row),
    "status": [
      _setting(_status(row, by_row[row.name])) for row in experiment.rows
    ],
    **_measured_columns(outcome),
  }
  return Table(
    list(by_row), {t: c for t, c in columns.items() if any(v.text for v in c)}
  )


def _numbers(
  values: Iterable[float | int | None],
  form: str = "{:.2f}",
  unit: float | None = None,
) -> list[Value]:
  """Return a column of numbers, divided by a unit."""
  return [
    Value.number(v / unit if unit and v is not None else v, form)
    for v in values
  ]


def _printed(
  shown: Callable[[float], str], values: Iterable[float | None]
) -> list[Value]:
  """Return a column of numbers that a function prints."""
  return [Value.number(x) if x is None else Value(shown(x), x) for x in values]


def _score_columns(
  experiment: experiment_lib.Experiment, grouped: dict[str, list[Line]]
) -> dict[str, list[Value]]:
  """Return the columns of mIoU, measured and in the paper."""
  of_rows = [scores(grouped[row.name]) for row in experiment.rows]
  means = [None if math.isnan(s.mean) else s.mean for s in of_rows]
  paper = [row.miou for row in experiment.rows]
  columns = {
    "mIoU": [Value.number(s.mean)._replace(text=str(s)) for s in of_rows],
    "seeds": _numbers((s.count or None for s in of_rows), "{}"),
    "paper": _numbers(paper),
  }
  if experiment.data:  # on other data only rows can be compared with each other
    columns["over the first"] = _printed(printed.gain, _gains(means, means))
    gains = _gains(paper, means)
    columns["paper's, over the first"] = _numbers(gains, "{:+.2f}")
  else:
    differences = (
      None if mean is None or miou is None else mean - miou
      for mean, miou in zip(means, paper, strict=True)
    )
    columns["difference"] = _printed(printed.gain, differences)
  return columns


def _measured_columns(outcome: Outcome) -> dict[str, list[Value]]:
  """Return the columns of COLUMNS, and time and commit of the trainings."""
  seconds, commits = [], []
  numbers: dict[str, list[float | None]] = {key: [] for _, key, _, _ in COLUMNS}
  for row in outcome.experiment.rows:
    seeds = outcome.by_row[row.name]
    values = {key: middle(seeds, key) for key in numbers}
    values |= outcome.costs.get(row.name, {})
    if not outcome.experiment.data:
      off = costs_lib.against_paper(row, outcome.costs.get(row.name, {}))
      values["off"] = None if off is None else 100 * off
      values["published"] = row.multiply_adds
    for key, column in numbers.items():
      column.append(values[key])
    taken = middle(seeds, "seconds")
    text = "" if taken is None else clocks.duration(taken)
    seconds.append(Value.number(taken)._replace(text=text))
    commits.append(_setting(", ".join(_distinct(seeds, "commit"))))
  return {
    **{
      title: _numbers(numbers[key], form, unit)
      for title, key, form, unit in COLUMNS
    },
    "time of a training": seconds,
    "commit": commits,
  }


def _gains(
  values: Sequence[float | None], means: Sequence[float | None]
) -> list[float | None]:
  """Return the gains of values over that of the first row with a mean."""
  first = next((i for i, x in enumerate(means) if x is not None), None)
  base = None if first is None else values[first]
  return [None if x is None or base is None else x - base for x in values]


def _distinct(lines: Sequence[Line], key: str) -> list[str]:
  return sorted({line[key] for line in lines if line.get(key)})


def _status(row: experiment_lib.Row, lines: Sequence[Line]) -> str:
  """Return "finished", or the number of seeds in each state."""
  if row.cell is None:
    return row.why
  kinds = [line["status"] for line in lines]
  counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
  if set(counts) <= {"finished"}:
    return "finished" if counts else "not run"
  if set(counts) == {"not run"}:
    return "not run"
  return ", ".join(f"{n} {kind}" for kind, n in counts.items())


def title(experiment: experiment_lib.Experiment) -> str:
  """Return an experiment's title, the first line about it."""
  return experiment.about.splitlines()[0].rstrip(".")


def as_csv(outcome: Outcome) -> str:
  """Return report.csv: a line for each row and seed, mIoU in percent."""
  experiment, lines = outcome.experiment, outcome.lines
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
  lines = list(lines) or [
    {"row": row.name, "seed": None} for row in experiment.rows
  ]
  for line in lines:
    if line["row"] not in by_name:
      continue
    row = by_name[line["row"]]
    of_classes = line.get("iou") or {}
    writer.writerow([
      *(row.name, line["seed"]),
      *(row.settings.get(key, "") for key in keys),
      *(_percent(line.get("miou")), row.miou, row.multiply_adds),
      *(outcome.costs.get(row.name, {}).get(key) for key in counted),
      *(line.get(key) for key in plain),
      *(_percent(of_classes.get(name)) for name in classes),
    ])  # fmt: skip
  return text.getvalue()


def _percent(value: float | None) -> float | None:
  return None if value is None else round(100 * value, 4)
