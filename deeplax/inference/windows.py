"""Predict a large image in windows, and blend the windows' probabilities.

Where windows overlap, their probabilities are averaged by weights that fade
towards the windows' edges and sum to 1, so that no seam shows. Windows come row
by row, and a pixel is finished with the last window that covers it. Only
overlaps wait for later windows, so that memory does not grow with the number of
rows.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import NamedTuple, TypeVar

from jaxtyping import Float, Shaped
import numpy as np

from deeplax import ahead
from deeplax import clocks

Mode = TypeVar("Mode")

LEAST = 33  # pixels: two of the features at output stride 32


@dataclasses.dataclass(frozen=True)
class Windows:
  """The windows that an image is cut into.

  Attributes:
    size: Side of the square windows, pixels; best a multiple of the output
      stride, plus 1.
    overlap: The least number of pixels that neighbors share.

  Raises:
    ValueError: Windows are too small, or overlap by nothing or more than half.
  """

  size: int
  overlap: int

  def __post_init__(self):
    if self.size < LEAST:
      raise ValueError(f"window {self.size} must be {LEAST} pixels or more")
    if not 0 < self.overlap <= self.size // 2:
      raise ValueError(
        f"overlap {self.overlap} of windows of {self.size} pixels must be from "
        f"1 to half a window, {self.size // 2}"
      )

  def cut(self, size: tuple[int, int]) -> bool:
    """Return whether an image of this (height, width) needs windows."""
    return max(size) > self.size

  def starts(self, side: int) -> list[int]:
    """Return where the windows along a side begin, evenly spread."""
    free = max(side - self.size, 0)
    count = -(-free // (self.size - self.overlap)) + 1
    return [free * i // max(count - 1, 1) for i in range(count)]

  def weights(self, side: int) -> list[Float[np.ndarray, " n"]]:
    """Return each window's weights along a side; those of a pixel sum to 1.

    They rise over `overlap` pixels as a squared sine, except at the image's own
    edges.
    """
    starts, length = self.starts(side), min(self.size, side)
    ramp = np.sin(np.pi / 2 * (np.arange(self.overlap) + 0.5) / self.overlap)
    fading, total = [], np.zeros(side)
    for start in starts:
      weight = np.ones(length)
      if start > 0:
        weight[: self.overlap] *= ramp**2
      if start + length < side:
        weight[-self.overlap :] *= ramp[::-1] ** 2
      fading.append(weight)
      total[start : start + length] += weight
    return [
      (weight / total[start : start + length]).astype(np.float32)
      for start, weight in zip(starts, fading, strict=True)
    ]


class Place(NamedTuple):
  """A window: its place in the grid, and the pixels that it covers."""

  row: int
  column: int
  rows: slice
  columns: slice


class Blender:
  """Sums the weighted predictions of windows that come row by row."""

  def __init__(self, size: tuple[int, int], windows: Windows):
    self._size = size
    self._window = tuple(min(windows.size, side) for side in size)
    self._starts = tuple(windows.starts(side) for side in size)
    self._weights = tuple(windows.weights(side) for side in size)
    # Sums of overlaps that wait for a later window: from the row of windows
    # above, from this row for the one below, and from the window to the left.
    self._above: np.ndarray | None = None
    self._below: np.ndarray | None = None
    self._left: np.ndarray | None = None

  def places(self) -> Iterator[Place]:
    """Yield the windows in the order in which `add` must receive them."""
    height, width = self._window
    for row, top in enumerate(self._starts[0]):
      for column, left in enumerate(self._starts[1]):
        yield Place(
          row, column, slice(top, top + height), slice(left, left + width)
        )

  def add(
    self, place: Place, scores: Float[np.ndarray, "h w k"]
  ) -> tuple[slice, slice, Float[np.ndarray, "y x k"]]:
    """Add a window's scores; return rows, columns and scores now finished."""
    rows = self._weights[0][place.row][:, None, None]
    columns = self._weights[1][place.column][:, None]
    scores = scores * (rows * columns)
    if place.column == 0:
      self._above, self._below, self._left = self._below, None, None
    if self._left is not None:
      scores[:, : self._left.shape[1]] += self._left
    high = self._finished(0, place.row)
    wide = self._finished(1, place.column)
    # A copy: a view would keep the whole window.
    self._left = scores[:, wide:].copy()
    scores = scores[:, :wide]
    across = slice(place.columns.start, place.columns.start + wide)
    if self._above is not None:
      scores[: self._above.shape[0]] += self._above[:, across]
    waiting = scores[high:]
    if waiting.size:
      if self._below is None:
        shape = (waiting.shape[0], self._size[1], waiting.shape[2])
        self._below = np.empty(shape, np.float32)
      self._below[:, across] = waiting
    down = slice(place.rows.start, place.rows.start + high)
    return down, across, scores[:high]

  def _finished(self, axis: int, index: int) -> int:
    """Return how many pixels of a window no later one on the axis covers."""
    starts = self._starts[axis]
    if index + 1 == len(starts):
      return self._window[axis]
    return starts[index + 1] - starts[index]


def predict(
  image: Shaped[np.ndarray, "h w c"],
  windows: Windows,
  submit: Callable[[np.ndarray], Sequence[ahead.Result[np.ndarray]]],
  *,
  modes: Sequence[Mode],
  labels: bool,
  seconds: dict[Mode, float] | None = None,
  n: int | Callable[[], int] = 1,
  step: Callable[[], None] = lambda: None,
) -> list[np.ndarray]:
  """Return blended predictions at the image's size, one for each mode.

  Args:
    image: Of any size.
    windows: How it is cut.
    submit: Starts the predictions of a window, one for each mode:
      probabilities [h, w, k].
    modes: Keys of `seconds`, all different.
    labels: Return classes [h, w], uint8 or past 256 classes uint16; else
      probabilities [h, w, k], which take k times 4 bytes a pixel.
    seconds: Receives the seconds that the blending of each mode took.
    n: Windows submitted beyond the one that is blended.
    step: Called after each window.
  """
  size = image.shape[0], image.shape[1]

  def start(place: Place) -> ahead.Result[list[np.ndarray]]:
    pending = submit(image[place.rows, place.columns])
    return ahead.Result(lambda: [mode.result() for mode in pending])

  blenders = [Blender(size, windows) for _ in modes]
  outputs: list[np.ndarray] = []
  for place, predictions in ahead.ahead(blenders[0].places(), start, n):
    for i, mode in enumerate(modes):
      with clocks.timed(seconds, mode):
        rows, columns, block = blenders[i].add(place, predictions[i])
        if labels:
          dtype = np.uint8 if block.shape[2] <= 256 else np.uint16
          block = block.argmax(-1).astype(dtype)
        if len(outputs) == i:
          outputs.append(np.empty((*size, *block.shape[2:]), block.dtype))
        outputs[i][rows, columns] = block
    step()
  return outputs
