"""Paddings of the two reference rules, and where the taps of a kernel read."""

from collections.abc import Sequence
from typing import NamedTuple

# ((top, bottom), (left, right))
Padding = tuple[tuple[int, int], tuple[int, int]]
# One for both axes, or (of the rows, of the columns).
Rate = int | tuple[int, int]


def pair(rate: Rate) -> tuple[int, int]:
  """Return (of the rows, of the columns)."""
  return (rate, rate) if isinstance(rate, int) else rate


def same(
  size: tuple[int, int], *, kernel: int, stride: int, rate: Rate
) -> Padding:
  """TensorFlow's SAME: as little as gives ceil(size / stride) outputs.

  An odd total puts the extra row or column behind, so with stride 2 the center
  taps of even and of odd sizes lie differently.
  """
  (height, width), (down, across) = size, pair(rate)
  return (
    _same(height, kernel, stride, down),
    _same(width, kernel, stride, across),
  )


def _same(n: int, kernel: int, stride: int, rate: int) -> tuple[int, int]:
  outputs = -(-n // stride)
  total = max((outputs - 1) * stride + (kernel - 1) * rate + 1 - n, 0)
  return total // 2, total - total // 2


def symmetric(*, kernel: int, rate: Rate) -> Padding:
  """The padding of slim's conv2d_same: set by the kernel, whatever the size."""
  down, across = ((kernel - 1) * step for step in pair(rate))
  return (down // 2, down - down // 2), (across // 2, across - across // 2)


def ceil(
  size: tuple[int, int], *, kernel: int, stride: int, rate: int
) -> Padding:
  """The padding of Caffe's pooling, which rounds its output up.

  It starts half a window before the map and ends with the last window that
  touches it: 3x3 windows with stride 2 over 8 pixels give 5 values, not 4.
  With stride 1 the size stays.
  """
  span = (kernel - 1) * rate + 1
  before = (span - 1) // 2

  def axis(n: int) -> tuple[int, int]:
    outputs = -(-(n + 2 * before - span) // stride) + 1 if stride > 1 else n
    return before, (outputs - 1) * stride + span - n - before

  height, width = size
  return axis(height), axis(width)


class Tap(NamedTuple):
  """Where one tap of a kernel meets the map, along one axis.

  Attributes:
    index: Of the tap in the kernel.
    shift: Where output 0 reads; before the map if negative.
    reads: Slice of the map it reads.
    before: Outputs that lie before the first that reads inside the map.
    behind: Outputs that lie behind the last.
  """

  index: int
  shift: int
  reads: slice
  before: int
  behind: int


def taps(
  size: int, *, kernel: int, stride: int, rate: int, padding: tuple[int, int]
) -> tuple[int, list[Tap]]:
  """Return the number of outputs and the taps that meet the map.

  A rate beyond the map's size leaves only the center: the others read zeros.
  """
  out = (size + sum(padding) - (kernel - 1) * rate - 1) // stride + 1
  live = []
  for index in range(kernel):
    shift = index * rate - padding[0]
    first = max(0, -(shift // stride))
    last = min(out - 1, (size - 1 - shift) // stride)
    if first <= last:
      reads = slice(first * stride + shift, last * stride + shift + 1, stride)
      live.append(Tap(index, shift, reads, first, out - 1 - last))
  return out, live


def both_taps(
  shape: Sequence[int],
  kernel: Sequence[int],
  stride: int,
  rate: Rate,
  padding: Padding,
) -> list[tuple[int, list[Tap]]]:
  """Return the `taps` of a convolution along its rows and along its columns.

  Args:
    shape: Of the map, [b, h, w, c].
    kernel: Shape of the kernel, [kh, kw, i, o].
  """
  return [
    taps(
      shape[1 + axis],
      kernel=kernel[axis],
      stride=stride,
      rate=pair(rate)[axis],
      padding=padding[axis],
    )
    for axis in (0, 1)
  ]
