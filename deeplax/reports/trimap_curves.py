"""Trimap curves of several runs: mIoU by distance from the boundaries."""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import functools
import glob
from typing import Any

from etils import epath
import numpy as np

from deeplax import atomic
from deeplax import errors
from deeplax import paths as paths_lib
from deeplax import text_files
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.metrics import printed
from deeplax.reports import line_plot
from deeplax.workdir import layout

# What is drawn, by the field of a result, and the same of the whole image.
MEASURES = {"trimap": "mIoU", "trimap_accuracy": "pixel accuracy"}
WHOLE = {"trimap": "miou", "trimap_accuracy": "pixel_accuracy"}
# Must be the same in all results, else their numbers do not compare, ...
SHARED = ("split", "images", "split_images", "trimap_kind")
# ... and in those of a group.
MODE = ("output_stride", "scales", "flip", "crf", "sizes", "window")
LISTED = 5  # files in a message


@dataclasses.dataclass(frozen=True)
class Curve:
  """Means of a group of results, in fractions.

  Attributes:
    name: Of the group.
    files: That were read.
    values: By measure, [result, width or at last the whole image]; NaN: no
      pixel.
  """

  name: str
  files: tuple[str, ...]
  values: dict[str, np.ndarray]

  def mean(self, measure: str) -> np.ndarray:
    """Return the mean over results, of each width and the whole image."""
    return self.values[measure].mean(axis=0)

  def std(self, measure: str) -> np.ndarray:
    """Return the standard deviation of one result (n - 1); NaN of one alone."""
    return line_plot.deviation(self.values[measure])


def run(args: argparse.Namespace) -> None:
  """Write the curves of runs to `args.out`: a plot, tables and numbers."""
  results = {
    name: [find(path, args.result) for path in paths]
    for name, paths in groups(args).items()
  }
  refuse_different(results)
  _, first = next(iter(results.values()))[0]
  fields = {key: first.get(key) for key in SHARED}
  widths = [int(width) for width in first["trimap"]]
  curves = [curve(name, found) for name, found in results.items()]
  text = markdown(curves, widths, fields)
  out = epath.Path(args.out)
  try:
    atomic.write_json(out / "curves.json", numbers(curves, widths, fields))
    atomic.write_text(out / "curves.md", text)
    atomic.write_text(out / "curves.svg", picture(curves, widths, fields))
  except OSError as error:
    raise errors.InputError(f"cannot write --out={out}: {error}") from error
  print(f"{text}\n{out / 'curves.svg'}")


def groups(args: argparse.Namespace) -> dict[str, list[str]]:
  """Return the runs of each group, those of --group last.

  Raises:
    InputError: There is none, two have the same name, or one has no run.
  """
  found = [(epath.Path(run).name or run, [run]) for run in args.runs]
  for text in args.group:
    name, equals, runs = text.partition("=")
    if not name or not equals:
      raise errors.InputError(
        f"--group={text}: give it a name, as --group='decoder=runs/decoder_*'"
      )
    paths = []
    for run in runs.split(","):
      matching = sorted(glob.glob(paths_lib.expanded(run)))
      if not matching:
        raise errors.InputError(f"--group={text}: nothing is named {run!r}")
      paths += matching
    if len(set(paths)) < len(paths):
      raise errors.InputError(f"--group={text} has a run twice")
    found.append((name, paths))
  if not found:
    raise errors.InputError("no run: give workdirs, or --group=NAME=RUN,RUN")
  names = [name for name, _ in found]
  for name in names:
    if names.count(name) > 1:
      raise errors.InputError(
        f"two curves would be named {name!r}: name them by --group=NAME=RUN"
      )
  return dict(found)


def find(path: epath.PathLike, pattern: str) -> tuple[str, dict[str, Any]]:
  """Return (file, result) of a workdir's one result with a trimap.

  Args:
    path: Of a workdir, or of a result.
    pattern: Of the result's name in the workdir's eval/.

  Raises:
    InputError: There is none, or more than one.
  """
  path = epath.Path(path)
  if not path.exists():
    raise errors.InputError(f"no workdir or result {path}")
  paths = (
    sorted((path / layout.EVALUATIONS).glob(pattern))
    if path.is_dir()
    else [path]
  )
  found = []
  for file in paths:
    result = text_files.read_json(
      file, fix="delete it, or evaluate again (python -m deeplax.evaluate)"
    )
    if "trimap" in result:
      found.append((str(file), result))
  if not found:
    where = path / layout.EVALUATIONS / pattern if path.is_dir() else path
    raise errors.InputError(
      f"no trimap in {where}. Run: python -m deeplax.evaluate --workdir="
      f"{path if path.is_dir() else 'DIR'} --no-sweep --trimap=1,2,5,10,20,40"
    )
  if len(found) > 1:
    names = [epath.Path(name).name for name, _ in found]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    raise errors.InputError(
      f"{path} has {len(names)} results with a trimap, "
      f"{', '.join(names[:LISTED])}{more}: choose one by --result=NAME"
    )
  return found[0]


def curve(name: str, results: Sequence[tuple[str, dict[str, Any]]]) -> Curve:
  """Return the curve of a group of (file, result)."""
  values = {
    measure: np.array(
      [[*result[measure].values(), result[WHOLE[measure]]]
       for _, result in results],
      np.float64,  # None becomes NaN
    )
    for measure in MEASURES
  }  # fmt: skip
  return Curve(name, tuple(file for file, _ in results), values)


def refuse_different(
  groups: dict[str, list[tuple[str, dict[str, Any]]]],
) -> None:
  """Raise InputError unless all results can stand in one plot."""
  first = next(iter(groups.values()))[0]
  for results in groups.values():
    for result in results:
      _refuse(first, result, _data_of)
      _refuse(results[0], result, _mode_of)


def _data_of(result: dict[str, Any]) -> dict[str, Any]:
  """Return what must be the same in all results."""
  return {key: result.get(key) for key in SHARED} | {
    "width": ", ".join(result["trimap"]),
    "class": ", ".join(result["iou"]),
  }


def _mode_of(result: dict[str, Any]) -> dict[str, Any]:
  """Return what must be the same in the results of a group."""
  return {key: result.get(key) for key in MODE}


def _refuse(
  first: tuple[str, dict[str, Any]],
  second: tuple[str, dict[str, Any]],
  fields: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
  expected, own = fields(first[1]), fields(second[1])
  for key, value in expected.items():
    if value != own[key]:
      raise errors.InputError(
        f"{key} is {value} in {first[0]} and {own[key]} in {second[0]}: "
        "evaluate both alike, or choose other results by --result"
      )


def gain(first: Curve, second: Curve, measure: str) -> dict[str, np.ndarray]:
  """Return what the second group has more than the first.

  Returns:
    mean: Difference of the means, of each width and the whole image.
    std: Of the difference of two results, one of each group: the root of the
      sum of both variances; NaN if a group has one result.
    standard_error: Of `mean`, which more results make smaller.
  """
  one, two = (curve.std(measure) ** 2 for curve in (first, second))
  error = one / len(first.files) + two / len(second.files)
  return {
    "mean": second.mean(measure) - first.mean(measure),
    "std": np.sqrt(one + two),
    "standard_error": np.sqrt(error),
  }


def numbers(
  curves: Sequence[Curve], widths: Sequence[int], fields: dict[str, Any]
) -> dict[str, Any]:
  """Return all of it for JSON, in fractions; `fields` stand first."""
  columns = [*map(str, widths), "whole image"]
  named = functools.partial(confusion.by_name, class_names=columns)
  found: dict[str, Any] = {**fields, "groups": []}
  for one in curves:
    group: dict[str, Any] = {"name": one.name, "files": list(one.files)}
    for measure in MEASURES:
      group[measure] = {
        "mean": named(one.mean(measure)),
        "std": named(one.std(measure)),
        "values": [named(row) for row in one.values[measure]],
      }
    found["groups"].append(group)
  if len(curves) == 2:
    gains: dict[str, Any] = {"of": curves[1].name, "over": curves[0].name}
    for measure in MEASURES:
      gained = gain(curves[0], curves[1], measure)
      gains[measure] = {k: named(v) for k, v in gained.items()}
    found["gain"] = gains
  return found


def markdown(
  curves: Sequence[Curve], widths: Sequence[int], fields: dict[str, Any]
) -> str:
  """Return a table for each measure."""
  band = f"pixels from {measures.AROUND[fields['trimap_kind']]}"
  parts = [
    "# Trimap curves",
    f"{fields['split'] or 'Masks'}: {fields['images']} of "
    f"{fields['split_images']} images. In percent, mean ± standard deviation "
    "of one result.",
  ]
  for measure, title in MEASURES.items():
    columns = [(c.mean(measure), c.std(measure)) for c in curves]
    head = [band, *(f"{c.name} ({len(c.files)})" for c in curves)]
    if len(curves) == 2:
      gained = gain(curves[0], curves[1], measure)
      error = gained["standard_error"]
      columns += [(gained["mean"], gained["std"]), (error, error * np.nan)]
      head += ["gain", "standard error"]
    lines = [head]
    for i, label in enumerate([*map(str, widths), "whole image"]):
      lines.append(
        [label, *(printed.mean(100 * m[i], 100 * s[i]) for m, s in columns)]
      )
    parts += [f"## {title}", printed.markdown(lines)]
  if len(curves) == 2:
    parts.append(
      f"Gain: {curves[1].name} less {curves[0].name}, in points; its standard "
      "deviation is that of one result of each. The standard error is that of "
      "the mean gain."
    )
  return "\n\n".join(parts) + "\n"


def picture(
  curves: Sequence[Curve], widths: Sequence[int], fields: dict[str, Any]
) -> str:
  """Return the curves, and with two groups the gain, as SVG."""
  around = measures.AROUND[fields["trimap_kind"]]
  label = f"width of the band: pixels from {around}"

  def line(name: str, mean: np.ndarray, std: np.ndarray) -> line_plot.Line:
    # Without the whole image, which has no width.
    return line_plot.Line(name, 100 * mean[:-1], 100 * std[:-1])

  panels = []
  for measure, title in MEASURES.items():
    lines = [line(c.name, c.mean(measure), c.std(measure)) for c in curves]
    panels.append(line_plot.Panel(f"{title}, %", lines, widths, label))
  if len(curves) == 2:
    lines = []
    for measure, title in MEASURES.items():
      gained = gain(curves[0], curves[1], measure)
      lines.append(line(title, gained["mean"], gained["std"]))
    name = f"gain of {curves[1].name} over {curves[0].name}, points"
    panels.append(line_plot.Panel(name, lines, widths, label, difference=True))
  return line_plot.svg(panels)
