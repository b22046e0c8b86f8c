"""An experiment as data: its rows, and the trainings that they share.

Rows that differ only in how the network is evaluated share one training, a
cell. `load.py` makes all of this from a module of `experiments/`.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import re
from typing import Any, NamedTuple

import ml_collections

from deeplax import commands
from deeplax import errors
from deeplax.ablation import papers
from deeplax.settings import find
from deeplax.settings import own

# The tables' folder. A checkout keeps results beside it and runs commands in
# itself; with an installed package both happen in the current folder.
FOLDER = find.shipped("experiments")
INSTALLED = FOLDER.parent == find.PACKAGE
ROOT = pathlib.Path.cwd() if INSTALLED else FOLDER.parent
RESULTS = ROOT / "experiments" / "results"
# Package of the commands run and report, for `python -m`.
COMMANDS = "deeplax.experiments" if INSTALLED else "experiments"
# Flags that MEASURE may have, and the field of a result that each one adds.
MEASURES = {
  "--trimap": "trimap",
  "--boundary": "boundary_f",
  "--objects": "objects",
}


def command(name: str) -> str:
  """Return how to call run or report, in the form that the user typed."""
  return commands.as_typed(f"python -m {COMMANDS}.{name}")


class Evaluation(NamedTuple):
  """How a trained network is evaluated."""

  output_stride: int
  scales: tuple[float | int, ...]
  flip: bool
  crf: bool


@dataclasses.dataclass(frozen=True)
class Cell:
  """One training, for any seed.

  Attributes:
    name: Of its workdir.
    file: The value of --config.
    settings: The values of --config.KEY flags.
    unset: Keys that `file` sets and this cell sets to None.
    config: The whole configuration.
    protocol: The configuration of the paper's training of the same row.
  """

  name: str
  file: str
  settings: dict[str, Any]
  unset: tuple[str, ...]
  config: ml_collections.ConfigDict
  protocol: ml_collections.ConfigDict

  def flags(self) -> list[str]:
    """Return the flags of deeplax.main that set the configuration."""
    values = {k: v for k, v in self.settings.items() if v is not None}
    return [
      f"--config={self.file}",
      *(f"--config.{key}={value}" for key, value in values.items()),
    ]


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the table.

  Attributes:
    name: Unique.
    settings: Of the experiment's sweep, without name and not_here.
    cell: Its training; None: it has none, see `why`.
    evaluation: How it is evaluated.
    config: Of the training; None if it is refused.
    why: The reason not to run it; "": it is run.
    miou: The paper's, in percent.
    multiply_adds: The paper's, in billions.
  """

  name: str
  settings: dict[str, Any]
  cell: Cell | None
  evaluation: Evaluation
  config: ml_collections.ConfigDict | None
  why: str = ""
  miou: float | None = None
  multiply_adds: float | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A table: its rows, and settings of its runs and its report."""

  name: str
  about: str
  argument: str
  data: str
  rows: tuple[Row, ...]
  paper: papers.Paper | None
  seeds: tuple[int, ...]
  measure: tuple[str, ...]
  savings: tuple[tuple[str, str], ...]
  field_of_view: bool

  @property
  def cells(self) -> list[Cell]:
    """The trainings, each once, in the order of the rows."""
    return list({r.cell.name: r.cell for r in self.rows if r.cell}.values())

  def rows_of(self, cell: Cell) -> list[Row]:
    """Return the rows that evaluate a cell."""
    return [r for r in self.rows if r.cell and r.cell.name == cell.name]

  def out(self) -> pathlib.Path:
    """Return the default folder of its results."""
    words = [self.name, self.argument, self.data]
    return RESULTS / "_".join(filter(None, words))


def varying(settings: Sequence[dict[str, Any]]) -> list[str]:
  """Return the keys whose values differ between rows, in order."""
  keys = dict.fromkeys(key for row in settings for key in row)
  return [
    key for key in keys if len({repr(row.get(key)) for row in settings}) > 1
  ]


def row_names(sweep: Sequence[dict[str, Any]]) -> list[str]:
  """Return a name for each row, of the settings that vary."""
  keys = [key for key in varying(sweep) if key not in ("name", "not_here")]
  names = [
    _file_name(row["name"])
    if row.get("name")
    else name_of({key: row[key] for key in keys if key in row})
    for row in sweep
  ]
  if len(set(names)) < len(names):
    raise errors.InputError(f"two rows of this sweep are the same: {names}")
  return names


def name_of(settings: dict[str, Any]) -> str:
  """Return settings as a folder's name; "base" of no settings."""
  return _file_name(
    ",".join(f"{_short(k)}={_text(v)}" for k, v in settings.items())
  )


def _text(value: Any) -> str:
  """Return a value as part of a name: (1, 2, 4) is 1-2-4."""
  if isinstance(value, tuple):
    if len(value) > 4:
      return f"{value[0]}..{value[-1]}"
    return "-".join(map(str, value)) or "none"
  if own.is_own(value):
    return own.short(value).replace(".py:", ".").replace("(", "-")
  return str(value).replace("/", "-")


def _short(key: str) -> str:
  """Return a key's last word, or a longer name if that is ambiguous."""
  if key in ("decoder.output_stride", "model.decoder.output_stride"):
    return "decoder_stride"
  return key if key.startswith("eval.") else key.rsplit(".", 1)[-1]


def _file_name(text: str) -> str:
  return re.sub(r"[^\w.=,:-]+", "", text).replace(":", "-") or "base"
