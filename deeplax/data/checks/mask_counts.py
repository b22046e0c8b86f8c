"""Count the numbers in masks, without reading their images."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from deeplax import ahead
from deeplax import clocks
from deeplax.data import decoding
from deeplax.data import files
from deeplax.data import label_tables

# Share of the pixels of no class that must lie between their neighbors; a
# class that classes.json does not name has pixels inside as well.
BETWEEN = 0.75


class MaskCounts(NamedTuple):
  """The pixels of one mask by number.

  Attributes:
    file: The mask's name.
    values: The numbers that occur, ascending and NaN last: int64, or float64
      if not all are whole.
    pixels: How many pixels have each of them, int64.
    blended: Whether most pixels of no class lie between their neighbors, as a
      smooth resize that mixes two classes makes them.
  """

  file: str
  values: np.ndarray
  pixels: np.ndarray
  blended: bool = False

  @property
  def numbers(self) -> list[label_tables.Number]:
    """The numbers that occur, whole ones as int."""
    return [label_tables.plainest(value) for value in self.values.tolist()]


def count(raw: np.ndarray, file: str, table: label_tables.Table) -> MaskCounts:
  """Return the counts of a decoded mask.

  Args:
    raw: Its numbers, [h, w].
    file: Its name.
    table: The label of each number.
  """
  if raw.dtype == np.uint8:
    # Five times as fast as np.bincount, which makes int64 of the mask first.
    pixels = np.array(Image.fromarray(raw).histogram(), np.int64)
    values = np.flatnonzero(pixels)
    pixels = pixels[values]
  else:  # more than 8 bits or floats, which are rare
    values, pixels = np.unique(raw, return_counts=True)
    values, pixels = _plainest(values), pixels.astype(np.int64)
  result = MaskCounts(file, values, pixels)
  if by_label(result, table)[label_tables.ILLEGAL]:
    return result._replace(blended=_blended(raw, table))
  return result


def _plainest(values: np.ndarray) -> np.ndarray:
  """Return numbers as int64, or as float64 if those cannot hold them."""
  if values.dtype.kind == "f":
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
      is_whole = np.abs(values) < 2.0**53
      is_whole &= values == np.floor(values)
    return values.astype(np.int64) if is_whole.all() else values
  wide = values.dtype == np.uint64 and values[-1] >= 1 << 63
  return values.astype(np.float64 if wide else np.int64)


def _blended(raw: np.ndarray, table: label_tables.Table) -> bool:
  """Return whether the pixels of no class are edges between classes."""
  bad = label_tables.apply(raw, table) == label_tables.ILLEGAL
  bad &= raw != 255  # the white of a black and white mask
  if raw.dtype.kind == "f":
    bad &= np.isfinite(raw)
    raw = np.clip(np.nan_to_num(raw, nan=-1.0), -1e30, 1e30)
  values = raw.astype(np.float32)
  window = np.ones((3, 3), np.uint8)
  between = cv2.erode(values, window) < values
  between &= values < cv2.dilate(values, window)
  return bool(bad.any()) and float(between[bad].mean()) > BETWEEN


def read(source: files.Source, index: int) -> MaskCounts:
  """Return the counts of an example's mask; its image is not decoded.

  Raises:
    InputError: The mask is no mask, or unreadable.
  """
  if not isinstance(source, files.Decoded):  # images made on the spot
    label = np.asarray(source[index]["label"])
    return count(label, str(index), label_table(source))
  data, file = source.mask(index)
  raw = decoding.decode_label(data, file, source.table.colors)
  return count(raw, file, source.table)


def label_table(source: files.Source) -> label_tables.Table:
  """Return the label of each number in the masks of a source."""
  if isinstance(source, files.Decoded):
    return source.table
  return label_tables.plain(source.spec.num_classes)


def by_label(counts: MaskCounts, table: label_tables.Table) -> np.ndarray:
  """Return the pixels of each of deeplax's labels, int64 [256]."""
  labels = label_tables.apply(counts.values, table)
  result = np.zeros(256, np.int64)
  np.add.at(result, labels, counts.pixels)
  return result


def each(
  function: Callable[[int], Any],
  indices: Sequence[int],
  *,
  threads: int,
  progress: Callable[[str], None],
  name: str,
) -> Iterator[Any]:
  """Yield function(index) in order, computed by several threads.

  Args:
    function: Of an index; what it raises ends the pass.
    indices: Of the examples.
    threads: At least 1.
    progress: Receives a line with the time left now and then.
    name: What is done, for that line.
  """
  report = clocks.Progress(len(indices), progress, name=name)
  results = ahead.in_threads(function, indices, threads=threads, n=2 * threads)
  for _, result in results:
    report.step()
    yield result
