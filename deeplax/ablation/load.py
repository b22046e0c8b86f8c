"""Loads an experiment: its module, its rows, the cells that they share.

An experiment is a module of experiments/, or a file anywhere, with

  BASE     a configuration's name, with or without `:<argument>`
  sweep()  yields the flat settings of each row: {"model.head": ...}
  PAPER    (optional) `papers.numbers(...)`, the published numbers of the rows
  SEEDS    (optional) default (0, 1, 2); `:debug` takes the first
  MEASURE  (optional) flags of deeplax.evaluate, such as "--boundary"
  SAVINGS  (optional) pairs of rows whose costs the report compares
  FIELD_OF_VIEW  (optional) True: the report has a column of it

Besides keys of deeplax/settings/defaults.py a row may have "name", "base"
(another configuration than BASE), "crf" (True: behind the dense CRF) and
"not_here" (why it cannot be run). A file of the user's own, as in
{"model.decoder.kind": "my_decoder.py:MyDecoder"}, lies beside the experiment's
unless its whole path is given. Rows that differ only in output stride,
scales and flip of `eval`, or in "crf", are evaluations of one training: a cell.
"""

import ast
from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import re
from typing import Any

from deeplax import errors
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import recipes
from deeplax.models import build
from deeplax.settings import find
from deeplax.settings import own

SEEDS = (0, 1, 2)
EVALUATED = ("eval.output_stride", "eval.scales", "eval.flip")
WORDS = ("name", "base", "crf", "not_here")


def load(
  name: str,
  *,
  data: str = "",
  full_size: bool = False,
  steps: int | None = None,
  flags: Sequence[str] = (),
) -> experiment_lib.Experiment:
  """Return the experiment `<module>[:<argument>]` with all rows checked.

  Args:
    name: Of a module of experiments/, or the path of a file; an argument
      replaces that of every configuration, and `:debug` is the quick test.
    data: A recipe of `recipes`, in place of the table's own data.
    full_size: The recipe keeps the network.
    steps: Of each training; those of a table that varies them are scaled.
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
  sweep = _sweep(module)
  paper = getattr(module, "PAPER", None)
  if paper and len(paper.miou) != len(sweep):
    raise errors.InputError(
      f"{module.__file__} yields {len(sweep)} rows and PAPER has "
      f"{len(paper.miou)} numbers"
    )
  full = f"{data}-full" if data and full_size else data
  maker = _Maker(module.BASE, argument, full, steps, sweep, list(flags))
  titles = experiment_lib.row_names(sweep)
  seeds = tuple(getattr(module, "SEEDS", SEEDS))
  rows = [maker.row(*row) for row in zip(titles, sweep, strict=True)]
  # The paper's numbers are of its own data and schedule.
  if paper and not argument:
    counts = paper.multiply_adds or [None] * len(rows)
    rows = [
      dataclasses.replace(row, miou=miou, multiply_adds=count)
      for row, miou, count in zip(rows, paper.miou, counts, strict=True)
    ]
  return experiment_lib.Experiment(
    name=pathlib.Path(name).stem,
    about=(module.__doc__ or name).strip(),
    argument=argument,
    data=full,
    rows=tuple(rows),
    paper=paper,
    # What is made up has nothing to tell by its spread.
    seeds=seeds[:1] if argument == "debug" else seeds,
    measure=_measure(module),
    savings=_savings(module, titles),
    field_of_view=getattr(module, "FIELD_OF_VIEW", False),
  )


def _measure(module: Any) -> tuple[str, ...]:
  """Return MEASURE; refuse flags whose result the report does not use."""
  measure = tuple(getattr(module, "MEASURE", ()))
  for flag in measure:
    if flag.partition("=")[0] not in experiment_lib.MEASURES:
      raise errors.InputError(
        f"{module.__file__}: MEASURE has {flag!r}; it may have "
        f"{', '.join(experiment_lib.MEASURES)}"
      )
  return measure


def _savings(module: Any, rows: list[str]) -> tuple[tuple[str, str], ...]:
  """Return SAVINGS; refuse names that are not rows."""
  pairs: Any = getattr(module, "SAVINGS", ())
  savings = tuple(pairs)
  for name in (name for pair in savings for name in pair):
    if name not in rows:
      raise errors.InputError(
        f"{module.__file__}: SAVINGS has {name!r}, which is no row; have {rows}"
      )
  return savings


def _sweep(module: Any) -> list[dict[str, Any]]:
  """Return the rows of sweep(), which may be a user's own code."""
  path = pathlib.Path(module.__file__)
  try:
    sweep = [_whole(row, path.parent.resolve()) for row in module.sweep()]
  except errors.InputError:
    raise
  except Exception as error:
    raise errors.InputError(f"{path}: {find.where(error, path)}") from error
  if not sweep:
    raise errors.InputError(f"{path}: sweep() yields no row")
  return sweep


def _whole(settings: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Any]:
  """Return settings in which files of the user's have their whole path."""
  return {
    key: own.absolute(key, value, folder) if own.is_own(value) else value
    for key, value in settings.items()
  }


def _with_argument(base: str, argument: str) -> str:
  return f"{base.partition(':')[0]}:{argument}" if argument else base


class _Maker:
  """Makes the rows of an experiment, and each of their cells once."""

  def __init__(
    self,
    base: str,
    argument: str,
    data: str,
    steps: int | None,
    sweep: list[dict[str, Any]],
    flags: list[str],
  ):
    self._base, self._argument, self._data = base, argument, data
    self._steps, self._sweep = steps, sweep
    self._flags = _parsed(flags)
    self._cells: dict[str, experiment_lib.Cell] = {}
    self._made: dict[str, tuple[experiment_lib.Cell | None, str]] = {}
    trained = [self._trained(settings) for settings in sweep]
    self._varied = experiment_lib.varying(trained) if len(trained) > 1 else []

  def _trained(self, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a row's settings of the training, its configuration as "base"."""
    base = _with_argument(settings.get("base", self._base), self._argument)
    words = (*WORDS, *EVALUATED)
    return {
      "base": base,
      **{k: v for k, v in settings.items() if k not in words},
    }

  def row(self, name: str, settings: dict[str, Any]) -> experiment_lib.Row:
    trained = self._trained(settings)
    base = trained.pop("base")
    shown = {
      key: own.short(value) if own.is_own(value) else value
      for key, value in settings.items()
      if key not in ("name", "not_here")
    }
    why = settings.get("not_here", "")
    cell = None
    if not why:
      key = repr((base, trained))
      if key not in self._made:
        self._made[key] = self._cell(base, trained)
      cell, why = self._made[key]
    plain = cell.config if cell else apply(configuration(base), trained, base)
    # A row that is not run for lack of weights or data has costs, too.
    absent = settings.get("not_here") and not self._data
    config = plain if cell or absent else None
    evaluation = experiment_lib.Evaluation(
      settings.get("eval.output_stride")
      or plain.eval.output_stride
      or plain.model.output_stride,
      tuple(float(s) for s in settings.get("eval.scales", plain.eval.scales)),
      settings.get("eval.flip", plain.eval.flip),
      settings.get("crf", False),
    )
    return experiment_lib.Row(name, shown, cell, evaluation, config, why)

  def _cell(
    self, base: str, trained: dict[str, Any]
  ) -> tuple[experiment_lib.Cell | None, str]:
    """Return the cell and "", or None and the reason."""
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
      if why := self._refusal(recipe, config, trained):
        return None, why
      settings = recipes.scaled(config, recipe, trained)
      settings = {
        k: v for k, v in settings.items() if k not in recipes.fixed(recipe)
      }
      config = from_file(file)
    elif self._argument == "debug":
      # A row's batch, steps and crop are those of the full-size run.
      small = {key: recipes.look_up(config, key) for key in recipes.SCALED}
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
      if value is None and recipes.look_up(json.loads(before), key) is not None
    )
    named = {k: v for k, v in trained.items() if k in self._varied}
    if base != _with_argument(self._base, self._argument):
      named = {"base": base, **named}
    name = experiment_lib.name_of(named)
    cell = experiment_lib.Cell(
      name, _file(file, unset), settings, unset, config, protocol
    )
    for other in self._cells.values():
      if other.name != name and other.config.to_json() == config.to_json():
        return None, f"the same training as {other.name} at this size"
    kept = self._cells.setdefault(name, cell)
    if kept.config.to_json() != cell.config.to_json():
      raise errors.InputError(
        f"two trainings would be called {name}: files of your own that differ "
        "in their folders alone. Give one another name"
      )
    return kept, ""

  def _of_length(self, config: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings, changed for a run of `steps` steps."""
    if not self._steps:
      return settings
    ratio = self._steps / config.train.total_steps
    scaled = dict(settings)
    for key in recipes.STEPS:
      value = settings.get(key, recipes.look_up(config, key))
      if key in settings and self._data:
        continue  # scaled already
      scaled[key] = max(1, round(value * ratio))
    total = scaled["train.total_steps"]
    for key in ("eval.every", "checkpoint.every"):
      scaled.setdefault(key, max(1, total // 2))
    if config.optim.slow_start_steps >= total:
      scaled.setdefault("optim.slow_start_steps", total // 10)
    return scaled

  def _refusal(
    self, recipe: dict[str, Any], config: Any, trained: dict[str, Any]
  ) -> str:
    """Return why a row does not apply to the reduced network, or ""."""
    where = f"not with --data={self._data}"
    start = trained.get("init.checkpoint", config.init.checkpoint)
    if start and "init.checkpoint" in recipe:
      return f"{where}: it starts from {start}, another network"
    for key in sorted(recipes.fixed(recipe) & set(trained) & set(self._varied)):
      # The row with the table's own value may run with the recipe's.
      values = [s.get(key, recipes.look_up(config, key)) for s in self._sweep]
      stands = recipes.look_up(config, key)
      if stands not in values:
        stands = recipe[key]
      if trained[key] != stands:
        text = f"{where}: all trainings there have {key} {recipe[key]}"
        if stands == recipe[key]:
          return f"{text}, and this row is of {trained[key]}"
        return (
          f"{text}. The rows of {stands}, the table's own network, are run so; "
          f"this one differs from them by {trained[key]}, which it cannot there"
        )
    return ""


def _parsed(flags: list[str]) -> dict[str, Any]:
  """Return "key=value" texts as settings."""
  settings = {}
  for flag in flags:
    key, equals, value = flag.partition("=")
    if not equals or "." not in key:
      raise errors.InputError(
        f"--set {flag}: give a key and a value, as data.root=/data"
      )
    try:
      settings[key] = ast.literal_eval(value)
    except (SyntaxError, ValueError):
      settings[key] = value
  return _whole(settings, pathlib.Path.cwd())


def apply(config: Any, settings: dict[str, Any], what: str) -> Any:
  """Return the configuration with settings; refuse those that it refuses."""
  try:
    config.update_from_flattened_dict(settings)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.InputError(f"{what} with {settings}: {error}") from error
  return config


def names() -> list[str]:
  """Return the names of all experiments."""
  return sorted(
    path.stem
    for path in experiment_lib.FOLDER.glob("*.py")
    if re.search(r"^def sweep\(", path.read_text(), re.M)
  )


def _module(name: str) -> Any:
  """Return the module of an experiment's name or file."""
  path = pathlib.Path(name)
  if name in names():
    path = experiment_lib.FOLDER / f"{name}.py"
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
    raise errors.InputError(f"{path}: {find.where(error, path)}") from error
  if missing := [key for key in ("BASE", "sweep") if not hasattr(module, key)]:
    raise errors.InputError(f"{module.__file__} has no {', '.join(missing)}")
  return module


def configuration(base: str) -> Any:
  """Return configuration `<name>[:<argument>]`, locked.

  Raises:
    InputError: No configuration has this name.
  """
  name, _, argument = base.partition(":")
  try:
    return find.load(find.own(name)).get_config(argument).lock()
  except ValueError as error:
    raise errors.InputError(f"no configuration {base}: {error}") from error


def from_file(file: str) -> Any:
  """Return the configuration `experiments/config.py:<file>`."""
  return find.load(experiment_lib.FOLDER / "config.py").get_config(file)


def _file(file: str, unset: Sequence[str]) -> str:
  """Return the value of --config, for commands that run in ROOT."""
  if unset or "@" in file:
    keys = f"+{','.join(unset)}" if unset else ""
    path = experiment_lib.FOLDER / "config.py"
    return f"{_shown(path)}:{file}{keys}"
  name, colon, argument = file.partition(":")
  return f"{_shown(find.own(name))}{colon}{argument}"


def _shown(path: pathlib.Path) -> pathlib.Path:
  root = experiment_lib.ROOT
  return path.relative_to(root) if path.is_relative_to(root) else path
