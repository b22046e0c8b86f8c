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
APART = 5  # error bars at one x
# A curve of more points than this is drawn without circles, and with a band in
# place of error bars.
POINTS = 16


class Line(NamedTuple):
  """A curve.

  Attributes:
    name: In the legend.
    values: At each x; NaN: no point.
    spread: Half the length of the error bar at each x; NaN: no bar.
    label: Text beside its points, if colors do not tell enough curves apart.
    marked: Whether it is thicker than the others.
  """

  name: str
  values: np.ndarray
  spread: np.ndarray
  label: str = ""
  marked: bool = False


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
    'font-family="sans-serif" font-size="13">',
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
  # From 0, unless that leaves half of the axis empty.
  left = min(panel.x) if 2 * min(panel.x) > max(panel.x) else 0
  right = ticks(left, max(panel.x))

  def place(at: float | int, value: float) -> tuple[float, float]:
    share = (value - marks[0]) / (marks[-1] - marks[0])
    x = (at - right[0]) / (right[-1] - right[0]) * WIDTH
    return x, HEIGHT * (1 - share)

  parts = [
    f'<text x="{WIDTH / 2:g}" y="-14" text-anchor="middle" font-size="15">'
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
    x = place(mark, marks[0])[0]
    parts.append(
      f'<path d="M{x:.1f} {HEIGHT}v5" stroke="#444"/>'
      f'<text x="{x:.1f}" y="{HEIGHT + 19}" text-anchor="middle">{mark:g}'
      "</text>"
    )
  parts += [
    f'<path d="M0 0V{HEIGHT}H{WIDTH}" fill="none" stroke="#444"/>',
    f'<text x="{WIDTH / 2:g}" y="{HEIGHT + 38}" text-anchor="middle">'
    f"{html.escape(panel.label)}</text>",
  ]
  aside = _aside(panel.lines)
  for i, line in enumerate(panel.lines):
    kind = i + 2 * panel.difference
    color = COLORS[kind % len(COLORS)]
    dash = DASHES[kind // len(COLORS) % len(DASHES)]
    width = 4 if line.marked else 2
    parts.append(
      f'<g color="{color}" stroke="{color}" fill="none" stroke-width="{width}">'
      f"{_line(line, panel.x, place, dash, aside[i])}</g>"
    )
    y = HEIGHT + BELOW + 6 + i * ROW
    weight = ' font-weight="bold"' if line.marked else ""
    parts.append(
      f'<path d="M0 {y}h28" stroke="{color}" stroke-width="{width}" '
      f'stroke-dasharray="{dash}"/>'
      f'<text x="36" y="{y + 4}"{weight}>{html.escape(line.name)}</text>'
    )
  return parts


def _aside(lines: Sequence[Line]) -> np.ndarray:
  """Return by how many pixels each error bar stands beside its point.

  Those at one x stand side by side, so that each can be read.

  Returns:
    [line, x].
  """
  bars = ~np.isnan([line.values + line.spread for line in lines])
  place = np.cumsum(bars, axis=0) - 1
  return (place - (bars.sum(axis=0) - 1) / 2) * APART


def _line(
  line: Line,
  x: Sequence[float | int],
  place: Callable[[float | int, float], tuple[float, float]],
  dash: str,
  aside: np.ndarray,
) -> str:
  """Return the path, with a gap at each NaN, its points and their bars."""
  dense = np.count_nonzero(~np.isnan(line.values)) > POINTS
  path, rest, down = [], [], False
  points = zip(x, line.values, line.spread, aside, strict=True)
  for at, value, spread, beside in points:
    if math.isnan(value):
      down = False
      continue
    left, y = place(at, value)
    path.append(f"{'L' if down else 'M'}{left:.1f} {y:.1f}")
    down = True
    if not dense:
      size = 4 if line.marked else 2
      rest.append(
        f'<circle cx="{left:.1f}" cy="{y:.1f}" r="{size}" fill="currentColor"/>'
      )
    if line.label:
      weight = ' font-weight="bold"' if line.marked else ""
      # Inside the picture: on the left of what stands at its right edge.
      end = left > WIDTH - 12
      words = ' text-anchor="end"' if end else ""
      rest.append(
        f'<text x="{left + (-7 if end else 7):.1f}" y="{y - 5:.1f}"{words} '
        f'stroke="none" fill="#222"{weight}>{html.escape(line.label)}</text>'
      )
    if not dense and not math.isnan(spread):
      low, high = (place(at, value + s)[1] for s in (-spread, spread))
      bar = left + beside
      rest.append(
        f'<path d="M{bar:.1f} {low:.1f}V{high:.1f}M{bar - 2:.1f} {low:.1f}h4'
        f'M{bar - 2:.1f} {high:.1f}h4" stroke-width="1"/>'
      )
  band = _band(line, x, place) if dense else ""
  drawn = f'<path d="{"".join(path)}" stroke-dasharray="{dash}"/>'
  return band + drawn + "".join(rest)


def _band(
  line: Line,
  x: Sequence[float | int],
  place: Callable[[float | int, float], tuple[float, float]],
) -> str:
  """Return the area of a curve's spread, over the x that have one."""
  known = np.flatnonzero(~np.isnan(line.values + line.spread))
  if not known.size:
    return ""
  ends = []
  for sign, places in ((1, known), (-1, known[::-1])):
    for i in places.tolist():
      at, y = place(x[i], line.values[i] + sign * line.spread[i])
      ends.append(f"{at:.1f} {y:.1f}")
  return (
    f'<path d="M{"L".join(ends)}Z" stroke="none" fill="currentColor" '
    'fill-opacity="0.12"/>'
  )
