"""An experiment as data: its rows, and the trainings that they share.

An experiment is a module here with

  BASE     a configuration's name, with or without `:<argument>`
  sweep()  yields the flat settings of each row: {"model.head": ...}
  PAPER    (optional) `papers.numbers(...)`, the published numbers of the rows
  SEEDS    (optional) default (0, 1, 2)
  MEASURE  (optional) flags of deeplax.evaluate, such as "--boundary"
  SAVINGS  (optional) pairs of rows whose costs the report compares
  FIELD_OF_VIEW  (optional) True: the report has a column of it

Besides keys of deeplax/settings/defaults.py a row may have "name", "base"
(another configuration than BASE), "crf" (True: behind the dense CRF) and
"not_here" (why it cannot be run). Rows that differ only in output stride,
scales and flip of `eval`, or in "crf", are evaluations of one training: a cell.
"""

import ast
from collections.abc import Sequence
import dataclasses
import functools
import json
import pathlib
import re
import traceback
from typing import Any, NamedTuple

import ml_collections

from deeplax import errors
from deeplax.ablation import papers
from deeplax.ablation import recipes
from deeplax.models import build
from deeplax.settings import find

# The tables. A checkout keeps their results beside them and its commands run
# there; an installed package is left as it is, for the folder one stands in.
FOLDER = find.shipped("experiments")
ROOT = pathlib.Path.cwd() if FOLDER.parent == find.PACKAGE else FOLDER.parent
RESULTS = ROOT / "experiments" / "results"
SEEDS = (0, 1, 2)
EVALUATED = ("eval.output_stride", "eval.scales", "eval.flip")
WORDS = ("name", "base", "crf", "not_here")
# What MEASURE may have, and the field of a result that it makes.
MEASURES = {
  "--trimap": "trimap",
  "--boundary": "boundary_f",
  "--objects": "objects",
}


class Evaluation(NamedTuple):
  """How a trained network is evaluated."""

  output_stride: int
  scales: tuple[float | int, ...]
  flip: bool
  crf: bool


@dataclasses.dataclass(frozen=True)
class Cell:
  """One training, whatever its seed.

  Attributes:
    name: Of its workdir.
    file: What --config is, without the flags.
    settings: The flags.
    unset: Keys that `file` sets and this cell does not.
    config: All of it.
    protocol: The configuration of the same row as its paper trains it.
  """

  name: str
  file: str
  settings: dict[str, Any]
  unset: tuple[str, ...]
  config: ml_collections.ConfigDict
  protocol: ml_collections.ConfigDict

  @functools.cached_property
  def flat(self) -> dict[str, Any]:
    """All of `config`: {"model.head": "aspp", ...}."""
    return flat(json.loads(self.config.to_json()))

  def flags(self) -> list[str]:
    """Return the command line's part that says what to train."""
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
    settings: As the experiment gives them, without its words.
    cell: What is trained; None: nothing, see `why`.
    evaluation: How it is evaluated.
    config: The training's; None where it is refused.
    why: It is not run.
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
  """All of it; `load` makes it."""

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
    """Return where its results are kept unless a command says otherwise."""
    words = [self.name, self.argument, self.data]
    return RESULTS / "_".join(filter(None, words))


def names() -> list[str]:
  """Return the experiments there are."""
  return sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if re.search(r"^def sweep\(", path.read_text(), re.M)
  )


def load(
  name: str,
  *,
  data: str = "",
  full_size: bool = False,
  steps: int | None = None,
  flags: Sequence[str] = (),
) -> Experiment:
  """Return the experiment `<module>[:<argument>]`, all rows checked.

  Args:
    name: Of a module here, or the path of a file; an argument replaces that
      of every configuration, and `:debug` is the quick test of it.
    data: A recipe of `recipes`, in place of the table's own data.
    full_size: The recipe keeps the network.
    steps: Of each training; a table that varies them has its own scaled.
    flags: Further "key=value" settings of all trainings.

  Raises:
    InputError: No such experiment, or a row that its configuration refuses.
  """
  name, _, argument = name.partition(":")
  module = _module(name)
  if data and argument:
    raise errors.InputError(
      f"{name}:{argument} and --data={data}: choose one of them"
    )
  given = _rows_of(module)
  paper = getattr(module, "PAPER", None)
  if paper and len(paper.miou) != len(given):
    raise errors.InputError(
      f"{module.__file__} yields {len(given)} rows and PAPER has "
      f"{len(paper.miou)} numbers"
    )
  full = f"{data}-full" if data and full_size else data
  maker = _Maker(module.BASE, argument, full, steps, given, list(flags))
  titles = row_names(given)
  rows = []
  for i, settings in enumerate(given):
    row = maker.row(titles[i], settings)
    # The paper's numbers are of its own data and schedule.
    if paper and not argument:
      counts = paper.multiply_adds
      row = dataclasses.replace(
        row,
        miou=paper.miou[i],
        multiply_adds=counts[i] if counts else None,
      )
    rows.append(row)
  measure = tuple(getattr(module, "MEASURE", ()))
  for flag in measure:
    if flag.partition("=")[0] not in MEASURES:
      raise errors.InputError(
        f"{module.__file__}: MEASURE has {flag!r}; it may have "
        f"{', '.join(MEASURES)}"
      )
  pairs: Any = getattr(module, "SAVINGS", ())
  savings = tuple(pairs)
  for title in (title for pair in savings for title in pair):
    if title not in titles:
      raise errors.InputError(
        f"{module.__file__}: SAVINGS has {title!r}, which is no row; have "
        f"{titles}"
      )
  return Experiment(
    name=pathlib.Path(name).stem,
    about=(module.__doc__ or name).strip(),
    argument=argument,
    data=full,
    rows=tuple(rows),
    paper=paper,
    seeds=tuple(getattr(module, "SEEDS", SEEDS)),
    measure=measure,
    savings=savings,
    field_of_view=getattr(module, "FIELD_OF_VIEW", False),
  )


def _module(name: str) -> Any:
  """Return an experiment's module, of its name or its file."""
  path = pathlib.Path(name)
  if name in names():
    path = FOLDER / f"{name}.py"
  elif path.suffix != ".py":
    raise errors.InputError(
      f"no experiment {name!r} in experiments/; have {names()}. Your own may "
      "be anywhere: name its file, my_ablation.py"
    )
  elif not path.is_file():
    raise errors.InputError(f"no experiment {path}: there is no such file")
  try:
    module = find.load(path)
  except Exception as error:  # whatever a user's own file raises
    raise errors.InputError(f"{path}: {_where(error, path)}") from error
  if missing := [key for key in ("BASE", "sweep") if not hasattr(module, key)]:
    raise errors.InputError(f"{module.__file__} has no {', '.join(missing)}")
  return module


def _rows_of(module: Any) -> list[dict[str, Any]]:
  """Return what sweep() yields; it may be a user's own."""
  path = pathlib.Path(module.__file__)
  try:
    given = [dict(row) for row in module.sweep()]
  except errors.InputError:
    raise
  except Exception as error:
    raise errors.InputError(f"{path}: {_where(error, path)}") from error
  if not given:
    raise errors.InputError(f"{path}: sweep() yields no row")
  return given


def _where(error: Exception, path: pathlib.Path) -> str:
  """Return an error and the last line of a file that it went through."""
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if pathlib.Path(frame.filename).resolve() == path.resolve()
  ]
  line = f"line {lines[-1]}: " if lines else ""
  return f"{line}{type(error).__name__}: {error}"


def _with_argument(base: str, argument: str) -> str:
  return f"{base.partition(':')[0]}:{argument}" if argument else base


class _Maker:
  """Makes rows, and each cell once."""

  def __init__(
    self,
    base: str,
    argument: str,
    data: str,
    steps: int | None,
    given: list[dict[str, Any]],
    flags: list[str],
  ):
    self._base, self._argument, self._data = base, argument, data
    self._steps, self._given = steps, given
    self._flags = _parsed(flags)
    self._cells: dict[str, Cell] = {}
    self._known: dict[str, tuple[Cell | None, str]] = {}
    trained = [self._trained(settings) for settings in given]
    self._varied = varying(trained) if len(trained) > 1 else []

  def _trained(self, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a row trains, its configuration as "base"."""
    base = _with_argument(settings.get("base", self._base), self._argument)
    words = (*WORDS, *EVALUATED)
    return {
      "base": base,
      **{k: v for k, v in settings.items() if k not in words},
    }

  def row(self, name: str, settings: dict[str, Any]) -> Row:
    trained = self._trained(settings)
    base = trained.pop("base")
    shown = {k: v for k, v in settings.items() if k not in ("name", "not_here")}
    why = settings.get("not_here", "")
    cell = None
    if not why:
      key = repr((base, trained))
      if key not in self._known:
        self._known[key] = self._cell(base, trained)
      cell, why = self._known[key]
    plain = cell.config if cell else apply(configuration(base), trained, base)
    # A row that is not run for want of weights or data has its costs too.
    absent = settings.get("not_here") and not self._data
    known = plain if cell or absent else None
    evaluation = Evaluation(
      settings.get("eval.output_stride")
      or plain.eval.output_stride
      or plain.model.output_stride,
      tuple(float(s) for s in settings.get("eval.scales", plain.eval.scales)),
      settings.get("eval.flip", plain.eval.flip),
      settings.get("crf", False),
    )
    return Row(name, shown, cell, evaluation, known, why)

  def _cell(
    self, base: str, trained: dict[str, Any]
  ) -> tuple[Cell | None, str]:
    """Return the cell, or None and why there is none."""
    protocol = apply(configuration(base), trained, base)
    file = base
    settings = dict(trained)
    config = configuration(base)
    if self._data:
      file = f"{base}@{self._data}"
      data, _, full = self._data.partition("-")
      recipe = recipes.settings(config, data, full_size=bool(full))
      if self._steps and "train.total_steps" in recipe:
        recipe["train.total_steps"] = self._steps
      if why := self._not_with(recipe, config, trained):
        return None, why
      settings = recipes.scaled(config, recipe, trained)
      settings = {
        k: v for k, v in settings.items() if k not in recipes.fixed(recipe)
      }
      config = from_file(file)
    elif self._argument == "debug":
      # What a row says of batch, steps and crop is of the whole run.
      small = {key: look_up(config, key) for key in recipes.SCALED}
      whole = configuration(base.partition(":")[0])
      settings = recipes.scaled(whole, small, trained)
    settings = self._of_length(config, settings) | self._flags
    before = config.to_json()
    config = apply(config, settings, file)
    try:
      build.from_config(config.model, num_classes=2)
    except ValueError as error:
      if self._data:
        return None, f"not with --data={self._data}: {error}"
      raise errors.InputError(f"{base} with {settings}: {error}") from error
    unset = tuple(
      key
      for key, value in settings.items()
      if value is None and look_up(json.loads(before), key) is not None
    )
    name = ",".join(
      [
        *([f"base={base}"] if base != self._plain_base() else []),
        *_words({k: v for k, v in trained.items() if k in self._varied}),
      ]
    )
    name = _file_name(name) or "base"
    cell = Cell(name, _file(file, unset), settings, unset, config, protocol)
    for other in self._cells.values():
      if other.name != name and other.config.to_json() == config.to_json():
        return None, f"the same training as {other.name} at this size"
    return self._cells.setdefault(name, cell), ""

  def _plain_base(self) -> str:
    return _with_argument(self._base, self._argument)

  def _of_length(self, config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with those of a run of `steps` steps."""
    if not self._steps:
      return settings
    ratio = self._steps / config.train.total_steps
    found = dict(settings)
    for key in recipes.STEPS:
      value = settings.get(key, look_up(config, key))
      if key in settings and self._data:
        continue  # scaled already
      found[key] = max(1, round(value * ratio))
    total = found["train.total_steps"]
    for key in ("eval.every", "checkpoint.every"):
      found.setdefault(key, max(1, total // 2))
    if config.optim.slow_start_steps >= total:
      found.setdefault("optim.slow_start_steps", total // 10)
    return found

  def _not_with(
    self, recipe: dict[str, Any], config: Any, trained: dict[str, Any]
  ) -> str:
    """Return why a row does not apply to the reduced network, or ""."""
    where = f"not with --data={self._data}"
    start = trained.get("init.checkpoint", config.init.checkpoint)
    if start and "init.checkpoint" in recipe:
      return f"{where}: it starts from {start}, another network"
    for key in sorted(recipes.fixed(recipe) & set(trained) & set(self._varied)):
      # One value of those that rows have may stand for the recipe's.
      values = [s.get(key, look_up(config, key)) for s in self._given]
      stands = look_up(config, key)
      if stands not in values:
        stands = recipe[key]
      if trained[key] != stands:
        said = f"{where}: all trainings there have {key} {recipe[key]}"
        if stands == recipe[key]:
          return f"{said}, and this row is of {trained[key]}"
        return (
          f"{said}. The rows of {stands}, the table's own network, are run so; "
          f"this one differs from them by {trained[key]}, which it cannot there"
        )
    return ""


def _parsed(flags: list[str]) -> dict[str, Any]:
  """Return "key=value" texts as settings."""
  found = {}
  for flag in flags:
    key, equals, value = flag.partition("=")
    if not equals or "." not in key:
      raise errors.InputError(
        f"--set {flag}: give a key and a value, as data.root=/data"
      )
    try:
      found[key] = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      found[key] = value
  return found


def configuration(base: str) -> Any:
  """Return configuration `<name>[:<argument>]`, locked.

  Raises:
    InputError: There is none.
  """
  name, _, argument = base.partition(":")
  try:
    return find.load(find.own(name)).get_config(argument).lock()
  except (ImportError, ValueError) as error:
    raise errors.InputError(f"no configuration {base}: {error}") from error


def from_file(file: str) -> Any:
  """Return what `experiments/config.py:<file>` is."""
  return find.load(FOLDER / "config.py").get_config(file)


def apply(config: Any, settings: dict[str, Any], what: str) -> Any:
  """Return the configuration with settings; refuse what it refuses."""
  try:
    config.update_from_flattened_dict(settings)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.InputError(f"{what} with {settings}: {error}") from error
  return config


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """Return {"model.head": "aspp", ...} of what config.json holds."""
  found = {}
  for key, value in values.items():
    name = f"{prefix}{key}"
    if isinstance(value, dict):
      found |= flat(value, f"{name}.")
    else:
      found[name] = value
  return found


def look_up(config: Any, key: str) -> Any:
  """Return the value of a dotted key."""
  value: Any = config
  for part in key.split("."):
    value = value[part]
  return value


def _file(file: str, unset: Sequence[str]) -> str:
  """Return the value of --config, for commands that run in ROOT."""
  if unset or "@" in file:
    keys = f"+{','.join(unset)}" if unset else ""
    return f"{_shown(FOLDER / 'config.py')}:{file}{keys}"
  name, colon, argument = file.partition(":")
  return f"{_shown(find.own(name))}{colon}{argument}"


def _shown(path: pathlib.Path) -> pathlib.Path:
  return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def varying(settings: Sequence[dict[str, Any]]) -> list[str]:
  """Return the keys whose values differ between rows, in order."""
  keys = dict.fromkeys(key for row in settings for key in row)
  return [
    key for key in keys if len({repr(row.get(key)) for row in settings}) > 1
  ]


def _words(settings: dict[str, Any]) -> list[str]:
  return [f"{_short(key)}={_text(v)}" for key, v in settings.items()]


def _text(value: Any) -> str:
  """Return a value as part of a name: (1, 2, 4) is 1-2-4."""
  if isinstance(value, tuple):
    if len(value) > 4:
      return f"{value[0]}..{value[-1]}"
    return "-".join(map(str, value)) or "none"
  return str(value).replace("/", "-")


def _short(key: str) -> str:
  """Return a key's last word; of a pair that would be mixed up, both."""
  if key in ("decoder.output_stride", "model.decoder.output_stride"):
    return "decoder_stride"
  return key if key.startswith("eval.") else key.rsplit(".", 1)[-1]


def _file_name(text: str) -> str:
  return re.sub(r"[^\w.=,:-]+", "", text).replace(":", "-")


def row_names(given: Sequence[dict[str, Any]]) -> list[str]:
  """Name each row by the settings that vary: low_level_channels=48."""
  keys = [key for key in varying(given) if key not in ("name", "not_here")]
  found = [
    _file_name(
      row.get("name") or ",".join(_words({k: row[k] for k in keys if k in row}))
    )
    or "base"
    for row in given
  ]
  if len(set(found)) < len(found):
    raise errors.InputError(f"two rows of this sweep are the same: {found}")
  return found
