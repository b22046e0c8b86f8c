"""How scores and tables are printed: percent, text for a terminal, Markdown.

What a person reads has one decimal, published figures as many as were printed
there; JSON and CSV keep whole values.
"""

from collections.abc import Sequence
import math

# The first line has the titles of the columns.
Table = Sequence[Sequence[str]]


def score(value: float | None, none: str = "none") -> str:
  """Return 0.7721 as 77.2%.

  Args:
    value: A share, 0 to 1; None: there is nothing to score.
    none: What stands for None.
  """
  return none if value is None else f"{points(100 * value)}%"


def share(value: float) -> str:
  """Return a share of pixels, which may be small: 0.0004 as 0.04%."""
  return f"{value:.2%}"


def points(value: float) -> str:
  """Return a score or a difference that is in percent: 1.41 as 1.4."""
  return f"{value:.1f}"


def gain(value: float) -> str:
  """Return a difference in percent with its sign: 1.41 as +1.4."""
  return f"{round(value, 1) + 0.0:+.1f}"  # never -0.0


def mean(value: float, deviation: float) -> str:
  """Return percents as 41.0 ± 1.4, less what is NaN."""
  if math.isnan(value):
    return ""
  spread = "" if math.isnan(deviation) else f" ± {points(deviation)}"
  return f"{points(value)}{spread}"


def text(table: Table) -> str:
  """Return a table for a terminal."""
  return "\n".join("  ".join(line) for line in _aligned(table))


def markdown(table: Table) -> str:
  """Return a Markdown table, its columns aligned in the source too."""
  escaped = [[cell.replace("|", "\\|") for cell in line] for line in table]
  head, *rows = _aligned(escaped)
  first, *others = map(len, head)
  rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]
  return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rows])


def _aligned(table: Table) -> list[list[str]]:
  """Pad cells to the width of their column: text on the left, numbers right."""
  first, *widths = (
    max(map(len, column)) for column in zip(*table, strict=True)
  )
  return [
    [name.ljust(first), *map(str.rjust, cells, widths)]
    for name, *cells in table
  ]
