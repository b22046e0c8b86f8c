"""Line plots as SVG text: panels side by side."""

from collections.abc import Callable, Sequence
import math
from typing import NamedTuple

import numpy as np

from deeplax.reports import html

# Okabe and Ito's palette, safe for the color-blind, without its yellow.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # the next for each round of colors
# Pixels.
WIDTH, HEIGHT = 400, 300  # of a panel's field
LEFT, TOP, BELOW = 60, 34, 48
ROW = 18  # of the legend


class Line(NamedTuple):
  """A curve.

  Attributes:
    name: In the legend.
    values: At each x; NaN: no point.
    spread: Half the length of the error bar at each x; NaN: no bar.
    label: Text beside its points, if colors do not tell enough curves apart.
  """

  name: str
  values: np.ndarray
  spread: np.ndarray
  label: str = ""


class Panel(NamedTuple):
  """Curves that share a y axis.

  Attributes:
    title: Above them.
    lines: The curves.
    x: Ascending, the same for all lines.
    label: Of the x axis.
    difference: Its axis includes 0, and its colors are not those of the two
      curves in the panels beside it.
  """

  title: str
  lines: Sequence[Line]
  x: Sequence[float | int]
  label: str
  difference: bool = False


def deviation(values: np.ndarray) -> np.ndarray:
  """Return the standard deviation of one run (n - 1); NaN of one alone.

  Args:
    values: [run, x].
  """
  if len(values) < 2:
    return np.full(values.shape[1], np.nan)
  return values.std(axis=0, ddof=1)


def ticks(low: float | int, high: float | int, most: int = 7) -> list[float]:
  """Return round numbers that enclose a range, about `most` of them."""
  if not high > low:
    low, high = low - 0.5, high + 0.5
  raw = (high - low) / (most - 1)
  unit = 10.0 ** math.floor(math.log10(raw))
  step = next(f * unit for f in (1, 2, 5, 10) if f * unit >= raw * (1 - 1e-9))
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  # Rounded: 3 * 0.1 is not 0.3.
  digits = max(0, -math.floor(math.log10(step)))
  return [round(i * step, digits) for i in range(first, last + 1)]


def svg(panels: Sequence[Panel]) -> str:
  """Return a picture of panels, from left to right."""
  legend = max(len(panel.lines) for panel in panels) * ROW
  step = LEFT + WIDTH + 20
  width, height = step * len(panels), TOP + HEIGHT + BELOW + legend
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} '
    f'{height}" width="{width}" height="{height}" '
    'font-family="sans-serif" font-size="12">',
    f'<rect width="{width}" height="{height}" fill="white"/>',
  ]
  for i, panel in enumerate(panels):
    parts.append(f'<g transform="translate({i * step + LEFT},{TOP})">')
    parts += _panel(panel)
    parts.append("</g>")
  return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel) -> list[str]:
  ends = [np.zeros(int(panel.difference))]
  for line in panel.lines:
    spread = np.nan_to_num(line.spread)
    ends += [line.values - spread, line.values + spread]
  limits = np.concatenate(ends)
  limits = limits[~np.isnan(limits)]
  if not limits.size:
    limits = np.zeros(1)
  marks = ticks(limits.min().item(), limits.max().item())
  right = ticks(0, max(panel.x))

  def place(at: float | int, value: float) -> tuple[float, float]:
    share = (value - marks[0]) / (marks[-1] - marks[0])
    return at / right[-1] * WIDTH, HEIGHT * (1 - share)

  parts = [
    f'<text x="{WIDTH / 2:g}" y="-14" text-anchor="middle" font-size="14">'
    f"{html.escape(panel.title)}</text>"
  ]
  for mark in marks:
    y = place(0, mark)[1]
    # A darker line at 0, to read gains by.
    stroke = "#888" if mark == 0 else "#ddd"
    parts.append(
      f'<path d="M0 {y:.1f}H{WIDTH}" stroke="{stroke}"/>'
      f'<text x="-8" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>'
    )
  for mark in right:
    left = place(mark, marks[0])[0]
    parts.append(
      f'<path d="M{left:.1f} {HEIGHT}v5" stroke="#444"/>'
      f'<text x="{left:.1f}" y="{HEIGHT + 19}" text-anchor="middle">{mark:g}'
      "</text>"
    )
  parts += [
    f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#444"/>',
    f'<text x="{WIDTH / 2:g}" y="{HEIGHT + 38}" text-anchor="middle">'
    f"{html.escape(panel.label)}</text>",
  ]
  for i, line in enumerate(panel.lines):
    kind = i + 2 * panel.difference
    color = COLORS[kind % len(COLORS)]
    dash = DASHES[kind // len(COLORS) % len(DASHES)]
    parts.append(
      f'<g stroke="{color}" fill="none" stroke-width="2">'
      f"{_line(line, panel.x, place, dash)}</g>"
    )
    y = HEIGHT + BELOW + 6 + i * ROW
    parts.append(
      f'<path d="M0 {y}h28" stroke="{color}" stroke-width="2" '
      f'stroke-dasharray="{dash}"/>'
      f'<text x="36" y="{y + 4}">{html.escape(line.name)}</text>'
    )
  return parts


def _line(
  line: Line,
  x: Sequence[float | int],
  place: Callable[[float | int, float], tuple[float, float]],
  dash: str,
) -> str:
  """Return the path, with a gap at each NaN, its points and their bars."""
  path, rest, down = [], [], False
  for at, value, spread in zip(x, line.values, line.spread, strict=True):
    if math.isnan(value):
      down = False
      continue
    left, y = place(at, value)
    path.append(f"{'L' if down else 'M'}{left:.1f} {y:.1f}")
    down = True
    rest.append(f'<circle cx="{left:.1f}" cy="{y:.1f}" r="2"/>')
    if line.label:
      rest.append(
        f'<text x="{left + 5:.1f}" y="{y + 4:.1f}" stroke="none" fill="#222">'
        f"{html.escape(line.label)}</text>"
      )
    if not math.isnan(spread):
      low, high = (place(at, value + s)[1] for s in (-spread, spread))
      rest.append(
        f'<path d="M{left:.1f} {low:.1f}V{high:.1f}M{left - 3:.1f} {low:.1f}h6'
        f'M{left - 3:.1f} {high:.1f}h6" stroke-width="1"/>'
      )
  return f'<path d="{"".join(path)}" stroke-dasharray="{dash}"/>' + "".join(
    rest
  )
