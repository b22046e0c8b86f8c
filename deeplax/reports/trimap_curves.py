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

# Titles of the measures that are drawn, by field of a result, ...
MEASURES = {"trimap": "mIoU", "trimap_accuracy": "pixel accuracy"}
# ... and the fields with the same measures of the whole image.
WHOLE_IMAGE = {"trimap": "miou", "trimap_accuracy": "pixel_accuracy"}
# Fields that must agree in all results, or they cannot be compared, ...
SHARED = ("split", "images", "split_images", "trimap_kind")
# ... and in the results of a group.
MODE = ("output_stride", "scales", "flip", "crf", "sizes", "window")
LISTED = 5  # files in a message


@dataclasses.dataclass(frozen=True)
class Curve:
  """The results of a group, as fractions.

  Attributes:
    name: Of the group.
    files: The results' files.
    values: By measure, [result, width, or the whole image as the last]; NaN: no
      pixel.
  """

  name: str
  files: tuple[str, ...]
  values: dict[str, np.ndarray]

  def mean(self, measure: str) -> np.ndarray:
    """Return the mean over the results, for each width and the whole image."""
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
  curves = [curve(name, of_group) for name, of_group in results.items()]
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
  """Return the runs of each group by its name, those of --group last.

  Raises:
    InputError: There is no group, two have the same name, or one has no run.
  """
  named = [(epath.Path(run).name or run, [run]) for run in args.runs]
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
    named.append((name, paths))
  if not named:
    raise errors.InputError("no run: give workdirs, or --group=NAME=RUN,RUN")
  names = [name for name, _ in named]
  for name in names:
    if names.count(name) > 1:
      raise errors.InputError(
        f"two curves would be named {name!r}: name them by --group=NAME=RUN"
      )
  return dict(named)


def find(path: epath.PathLike, pattern: str) -> tuple[str, dict[str, Any]]:
  """Return (file, result) of the only result of a workdir with a trimap.

  Args:
    path: A workdir or a result's file.
    pattern: Name of the result in the workdir's eval/, with wildcards.

  Raises:
    InputError: No result has a trimap, or several have.
  """
  path = epath.Path(path)
  if not path.exists():
    raise errors.InputError(f"no workdir or result {path}")
  paths = (
    sorted((path / layout.EVALUATIONS).glob(pattern))
    if path.is_dir()
    else [path]
  )
  results = []
  for file in paths:
    result = text_files.read_json(
      file, fix="delete it, or evaluate again (python -m deeplax.evaluate)"
    )
    if "trimap" in result:
      results.append((str(file), result))
  if not results:
    where = path / layout.EVALUATIONS / pattern if path.is_dir() else path
    raise errors.InputError(
      f"no trimap in {where}. Run: python -m deeplax.evaluate --workdir="
      f"{path if path.is_dir() else 'DIR'} --no-sweep --trimap=1,2,5,10,20,40"
    )
  if len(results) > 1:
    names = [epath.Path(name).name for name, _ in results]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    raise errors.InputError(
      f"{path} has {len(names)} results with a trimap, "
      f"{', '.join(names[:LISTED])}{more}: choose one by --result=NAME"
    )
  return results[0]


def curve(name: str, results: Sequence[tuple[str, dict[str, Any]]]) -> Curve:
  """Return the curve of a group's (file, result) pairs."""
  values = {
    measure: np.array(
      [[*result[measure].values(), result[WHOLE_IMAGE[measure]]]
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
  """Return the fields that must agree in all results."""
  return {key: result.get(key) for key in SHARED} | {
    "width": ", ".join(result["trimap"]),
    "class": ", ".join(result["iou"]),
  }


def _mode_of(result: dict[str, Any]) -> dict[str, Any]:
  """Return the fields that must agree in the results of a group."""
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
  """Return the gain of the second group over the first.

  Returns:
    mean: Difference of the means, for each width and the whole image.
    std: Standard deviation of the difference of two results, one of each group:
      the root of the sum of the variances; NaN if a group has only one result.
    standard_error: That of `mean`; it falls with the number of results.
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
  """Return the curves and the gain for JSON, as fractions, after `fields`."""
  columns = [*map(str, widths), "whole image"]
  named = functools.partial(confusion.by_name, class_names=columns)
  result: dict[str, Any] = {**fields, "groups": []}
  for curve in curves:
    group: dict[str, Any] = {"name": curve.name, "files": list(curve.files)}
    for measure in MEASURES:
      group[measure] = {
        "mean": named(curve.mean(measure)),
        "std": named(curve.std(measure)),
        "values": [named(row) for row in curve.values[measure]],
      }
    result["groups"].append(group)
  if len(curves) == 2:
    gains: dict[str, Any] = {"of": curves[1].name, "over": curves[0].name}
    for measure in MEASURES:
      gained = gain(curves[0], curves[1], measure)
      gains[measure] = {k: named(v) for k, v in gained.items()}
    result["gain"] = gains
  return result


def markdown(
  curves: Sequence[Curve], widths: Sequence[int], fields: dict[str, Any]
) -> str:
  """Return a Markdown table for each measure."""
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
  """Return the panels as SVG."""
  return line_plot.svg(panels(curves, widths, fields))


def panels(
  curves: Sequence[Curve],
  widths: Sequence[int],
  fields: dict[str, Any],
  *,
  marked: int | None = None,
) -> list[line_plot.Panel]:
  """Return the curves, and with two groups the gain.

  Args:
    curves: Of each group.
    widths: Of the bands, pixels.
    fields: That all results share.
    marked: The place of the curve that is thicker than the others.
  """
  around = measures.AROUND[fields["trimap_kind"]]
  label = f"width of the band: pixels from {around}"

  def line(name: str, mean: np.ndarray, std: np.ndarray) -> line_plot.Line:
    # Without the whole image, which has no width.
    return line_plot.Line(name, 100 * mean[:-1], 100 * std[:-1])

  found = []
  for measure, title in MEASURES.items():
    lines = [line(c.name, c.mean(measure), c.std(measure)) for c in curves]
    if marked is not None:
      lines[marked] = lines[marked]._replace(marked=True)
    found.append(line_plot.Panel(f"{title}, %", lines, widths, label))
  if len(curves) == 2:
    lines = []
    for measure, title in MEASURES.items():
      gained = gain(curves[0], curves[1], measure)
      lines.append(line(title, gained["mean"], gained["std"]))
    name = f"gain of {curves[1].name} over {curves[0].name}, points"
    found.append(line_plot.Panel(name, lines, widths, label, difference=True))
  return found
