"""Tables from the numbers in mask files to labels.

Labels are the classes 0 to k-1, and 255 for ignored pixels, whatever numbers
the files of a data set hold: those of 8 bits, and a few others such as -9999 or
NaN, by which maps mark missing data.
"""

from collections.abc import Mapping
import dataclasses
import math
import re

import cv2
import numpy as np

from deeplax.data import color_masks
from deeplax.labels import IGNORE_LABEL

# The label of numbers that are neither a class nor ignored: training counts its
# pixels and stops, where 255 would hide them.
ILLEGAL = 254
MAX_CLASSES = 254
# A number as text. No file holds integers of more digits.
_NUMBER = re.compile(
  r"[+-]?(nan|inf|(\d{1,20}(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?)", re.IGNORECASE
)

Number = int | float


@dataclasses.dataclass(frozen=True)
class Table:
  """The label of each number in the masks of a data set.

  Attributes:
    labels: The labels of the numbers 0 to 255.
    others: (number, label) of further numbers; all remaining ones are illegal.
    colors: What turns masks of colors into these numbers; None: they hold them.
  """

  labels: bytes
  others: tuple[tuple[Number, int], ...] = ()
  colors: color_masks.Colors | None = None

  @property
  def array(self) -> np.ndarray:
    """The labels of the numbers 0 to 255, uint8 [256]."""
    return np.frombuffer(self.labels, np.uint8)

  def items(self) -> dict[Number, int]:
    """Return the label of each number that has one."""
    low = {i: v for i, v in enumerate(self.labels) if v != ILLEGAL}
    return low | dict(self.others)


def from_labels(
  values: Mapping[int, int] | Mapping[Number, int],
  colors: color_masks.Colors | None = None,
) -> Table:
  """Return the table of {number in the file: class or 255}.

  All other numbers become illegal. `colors` make numbers of masks of colors.
  """
  low, others = np.full(256, ILLEGAL, np.uint8), []
  for value, label in values.items():
    if is_byte(value):
      low[int(value)] = label
    else:
      others.append((value, label))
  return Table(low.tobytes(), tuple(others), colors)


def plain(num_classes: int, ignore_label: int | None = IGNORE_LABEL) -> Table:
  """Return the table of masks that hold the class itself, or `ignore_label`."""
  values = {i: i for i in range(num_classes)}
  if ignore_label is not None:
    values[ignore_label] = IGNORE_LABEL
  return from_labels(values)


def is_byte(value: Number) -> bool:
  """Return whether a number is whole and of 8 bits."""
  return 0 <= value <= 255 and value == int(value)


def number(text: str) -> Number:
  """Return the number that `written` has written.

  Raises:
    ValueError: The text is no number.
  """
  if not _NUMBER.fullmatch(text.strip()):
    raise ValueError(f"{text!r} is no number")
  return plainest(float(text) if not text.isdecimal() else int(text))


def plainest(value: Number) -> Number:
  """Return a whole number as an int, and always the same NaN."""
  if math.isnan(value):
    return math.nan  # one object, or else sets would not find it
  # Beyond 2**53, floats skip whole numbers, so none was meant exactly.
  return int(value) if abs(value) < 2**53 and value == int(value) else value


def written(value: Number) -> str:
  """Return a number as text for messages and "label_map": -9999, nan, 0.5."""
  return repr(plainest(value))


def apply(raw: np.ndarray, table: Table) -> np.ndarray:
  """Map a mask's numbers, of any type, to labels."""
  array = table.array
  if raw.dtype == np.uint8:
    # NumPy would first make an index of 8 bytes for each pixel.
    return cv2.LUT(raw, array) if raw.ndim == 2 else array[raw]
  legal = (raw >= 0) & (raw <= 255)
  if raw.dtype.kind == "f":
    legal &= raw == np.floor(raw)
  labels = array[np.where(legal, raw, 0).astype(np.uint8)]
  labels = np.where(legal, labels, np.uint8(ILLEGAL))
  if raw.dtype.kind == "f" and table.others:
    raw = raw.astype(np.float64)  # or else comparing large numbers overflows
  for value, label in table.others:
    labels[np.isnan(raw) if math.isnan(value) else raw == value] = label
  return labels
