"""From the numbers in a mask file to labels: tables of 256 entries.

Labels are classes 0 to k-1 and 255, which is ignored, whatever numbers the
files of a data set hold.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from deeplax.data import spec as spec_lib

# What a number that is no class becomes inside: neither a class nor ignored,
# so that training counts it and stops (255 would hide it).
ILLEGAL = 254
MAX_CLASSES = 254


def table(values: Mapping[int, int]) -> np.ndarray:
  """Return the table of {number in the file: class or 255}.

  All other numbers become illegal.
  """
  result = np.full(256, ILLEGAL, np.uint8)
  for value, label in values.items():
    result[value] = label
  return result


def plain(num_classes: int, ignore_label: int | None = 255) -> np.ndarray:
  """Return the table of masks that hold the class itself, or `ignore_label`."""
  values = {i: i for i in range(num_classes)}
  if ignore_label is not None:
    values[ignore_label] = spec_lib.IGNORE_LABEL
  return table(values)


def apply(raw: np.ndarray, table: np.ndarray) -> np.ndarray:
  """Map a mask's numbers, 8 bit or wider, to labels."""
  if raw.dtype == np.uint8:
    # The same, but NumPy would first make an index of 8 bytes of each pixel.
    return cv2.LUT(raw, table) if raw.ndim == 2 else table[raw]
  legal = (raw >= 0) & (raw < 256)
  return np.where(legal, table[np.where(legal, raw, 0)], np.uint8(ILLEGAL))
