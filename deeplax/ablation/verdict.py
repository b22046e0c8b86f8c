"""Which row of a table scores best, and what its seeds allow to say of it."""

from collections.abc import Iterable, Mapping, Sequence
import math
import statistics
from typing import NamedTuple

from deeplax.ablation import tables
from deeplax.metrics import printed


class Best(NamedTuple):
  """The best row.

  Attributes:
    row: Its name.
    near: The rows whose mean is within the spread of that.
  """

  row: str
  near: tuple[str, ...]


def best(outcome: tables.Outcome) -> Best | None:
  """Return the row of the highest mean mIoU; None: fewer than two have one.

  Without a spread, of one seed for each row, no row is called near.
  """
  scored = _scored(outcome)
  if len(scored) < 2:
    return None
  first = max(scored, key=lambda row: scored[row].mean)
  most = spread(scored.values())
  near = [
    row
    for row, score in scored.items()
    if row != first and scored[first].mean - score.mean <= most
  ]
  return Best(first, tuple(near))


def spread(of_rows: Iterable[tables.Scores]) -> float:
  """Return the standard deviation of one run, in points.

  It is the root of the mean variance of the rows; NaN without two seeds of one.
  """
  known = [s.std for s in of_rows if not math.isnan(s.std)]
  return (
    math.sqrt(statistics.fmean(s * s for s in known)) if known else math.nan
  )


def _error(deviation: float, one: int, other: int) -> float:
  """Return the standard error of the difference of two rows of these seeds."""
  return deviation * math.sqrt(1 / one + 1 / other)


def noise(outcome: tables.Outcome) -> str:
  """Return a sentence about the spread of the seeds of a row."""
  of_rows = _scored(outcome).values()
  typical = spread(of_rows)
  if math.isnan(typical):
    return (
      "One seed, or none: there is no telling a difference from chance. The "
      "same recipe spans 0.5 points in v3's table 11."
    )
  count = max(s.count for s in of_rows)
  known = sum(s.count > 1 for s in of_rows)
  error = _error(typical, count, count)
  return (
    f"Standard deviation of one run: {printed.points(typical)} points, over "
    f"{known} rows of up to {count} seeds. Two rows of {count} seeds differ by "
    f"chance by {printed.points(error)} points; less than "
    f"{printed.points(2 * error)} means nothing."
  )


def sentence(outcome: tables.Outcome) -> str:
  """Return in a sentence or two which row is best, and which have no score."""
  return _of_best(outcome) + _of_missing(outcome)


def _scored(outcome: tables.Outcome) -> dict[str, tables.Scores]:
  found = {row: tables.scores(x) for row, x in outcome.by_row.items()}
  return {row: score for row, score in found.items() if score.count}


def _of_best(outcome: tables.Outcome) -> str:
  scored, found = _scored(outcome), best(outcome)
  if not scored:
    return "No row has a score."
  if found is None:
    ((row, score),) = scored.items()
    return f"Only {row} has a score: {_shown(score)}."
  top = f"{found.row} scores best, {_shown(scored[found.row])}"
  most = spread(scored.values())
  if math.isnan(most):
    return f"{top}; with single seeds the order of the rows may be chance."
  points = f"the spread of seeds, {printed.points(most)} points"
  if len(found.near) == len(scored) - 1:
    return f"{top}; {points}, is larger than the differences."
  if found.near:
    count = len(found.near)
    verb = "row is" if count == 1 else "rows are"
    return f"{top}; {count} more {verb} within {points}."
  return f"{top}; {_ahead(scored, found.row)}."


def _ahead(scored: Mapping[str, tables.Scores], first: str) -> str:
  """Return how far ahead the best row is of the next, and if that tells."""
  others = [row for row in scored if row != first]
  second = max(others, key=lambda row: scored[row].mean)
  gap = scored[first].mean - scored[second].mean
  counts = scored[first].count, scored[second].count
  least = 2 * _error(spread(scored.values()), *counts)
  text = f"{second} is next, {printed.points(gap)} points below"
  if gap < least:
    return (
      f"{text}: more than the spread of seeds, but less than the "
      f"{printed.points(least)} points that so few seeds tell from chance"
    )
  return f"{text}, which is more than chance ({printed.points(least)} points)"


def _shown(score: tables.Scores) -> str:
  seeds = "1 seed" if score.count == 1 else f"{score.count} seeds"
  return f"{score} mIoU ({seeds})"


def _of_missing(outcome: tables.Outcome) -> str:
  """Return a sentence about the rows without a score; "": there are none."""
  scored = _scored(outcome)
  kinds = [
    _kind(outcome.by_row[row.name])
    for row in outcome.experiment.rows
    if row.name not in scored
  ]
  if not kinds:
    return ""
  counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
  return f" Rows without a score: {', '.join(counts)}."


def _kind(lines: Sequence[tables.Line]) -> str:
  """Return what became of a row: not here, failed, not run."""
  kinds = {line["status"] for line in lines}
  if not kinds:
    return "not here"
  return "failed" if "failed" in kinds else "not run"
