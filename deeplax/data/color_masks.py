"""Masks of colors: each color stands for a class, or for ignored pixels.

A color is one number here, 0xRRGGBB: packed, colors are sorted and looked up
many times as fast as rows of three numbers.
"""

from collections.abc import Sequence
import dataclasses
import functools

import cv2
import numpy as np

from deeplax import errors
from deeplax.labels import IGNORE_LABEL

_UNKNOWN = 254  # what a color of no class becomes; classes end before it
_SHOWN = 16  # colors in a message, those of most pixels
_MANY = 8  # unknown colors from which they are taken for blended edges
_WAYS = (
  'Name the color of each class in classes.json, "colors": {"CLASS": '
  "[128, 64, 128], ...}, and such masks are read as they are; a palette PNG "
  "(mode P) is read as indices and needs no colors"
)
_ADD = (
  'Add it to its class in "colors", which may have several, "CLASS": '
  '[[128, 64, 128], [192, 0, 0]]; or have it ignored, "ignore_color": '
)
_BLENDED = (
  "So many are edges where JPEG, a smooth resize or a soft brush has blended "
  "the classes, which cannot be undone. Make the masks again from where they "
  "were drawn, and resize with the nearest neighbor only"
)
_GRAYS = (
  "All colors of this file are grays: if they are numbers of classes, not "
  'colors, leave "colors" out of classes.json, or take this file out'
)


@dataclasses.dataclass(frozen=True)
class Colors:
  """What the colors in the masks of a data set stand for.

  Attributes:
    labels: (color, its class or 255 for ignored), each color once.
    names: The names of the classes, for messages.
  """

  labels: tuple[tuple[int, int], ...]
  names: tuple[str, ...]

  def numbers(self, image: np.ndarray, file: str) -> np.ndarray:
    """Return the class or 255 of each pixel, uint8 [h, w].

    Args:
      image: RGB, uint8 [h, w, 3].
      file: Its name.

    Raises:
      InputError: A color is not listed: which, where, the nearest and the fix.
    """
    colors = packed(image)
    found = _lookup(self.labels)[colors]
    wrong = found == _UNKNOWN
    if wrong.any():
      raise errors.InputError(self._unlisted(colors, wrong, file))
    return found

  def _unlisted(self, colors: np.ndarray, wrong: np.ndarray, file: str) -> str:
    row, column = divmod(int(wrong.argmax()), wrong.shape[1])
    first = int(colors[row, column])
    unknown = np.unique(colors[wrong])
    near, label = min(self.labels, key=lambda item: _distance(item[0], first))
    whose = "ignored" if label == IGNORE_LABEL else repr(self.names[label])
    more = len(unknown) - 1
    others = f"; unlisted colors in all: {more + 1}" if more else ""
    every = np.unique(colors)
    if (every % 256 * 0x10101 == every).all():
      fix = _GRAYS
    elif len(unknown) >= _MANY:
      fix = _BLENDED
    else:
      fix = f"{_ADD}{list(unpacked(first))}"
    return (
      f"{file} has a color that classes.json does not list ({unpacked(first)} "
      f"in row {row}, column {column}; the nearest is {unpacked(near)}, "
      f"{whose}). {fix} ({wrong.mean():.2%} of its pixels are not listed"
      f"{others})"
    )


@functools.lru_cache(maxsize=4)
def _lookup(labels: tuple[tuple[int, int], ...]) -> np.ndarray:
  """Return the label of each of all 16.8 million colors.

  A search among those that are listed takes three times as long.
  """
  table = np.full(1 << 24, _UNKNOWN, np.uint8)
  for color, label in labels:
    table[color] = label
  return table


def packed(image: np.ndarray) -> np.ndarray:
  """Return the colors of an RGB image, uint8 [h, w, 3], as uint32 [h, w]."""
  four = cv2.cvtColor(image, cv2.COLOR_RGB2BGRA)
  four[..., 3] = 0
  return four.view("<u4")[..., 0]


def unpacked(color: int) -> tuple[int, int, int]:
  """Return a color as (red, green, blue)."""
  return color >> 16, color >> 8 & 255, color & 255


def _distance(one: int, other: int) -> int:
  pairs = zip(unpacked(one), unpacked(other), strict=True)
  return sum((a - b) ** 2 for a, b in pairs)


def refusal(channels: np.ndarray, what: str, file: str) -> str:
  """Return the message about a mask of several channels: why, and the fix.

  Args:
    channels: Its numbers, [h, w, c]; three are red, green and blue.
    what: How many channels it has, as text.
    file: Its name.
  """
  start = f"{file} has {what}"
  if channels.shape[-1] != 3 or channels.dtype not in (np.uint8, np.uint16):
    return (
      f"{start}; a mask holds one number per pixel, the class. Save the "
      "channel that holds the classes alone"
    )
  if (channels[..., :1] == channels).all():
    keep = 'PIL.Image.open(file).convert("RGB").getchannel(0).save(file)'
    if channels.dtype != np.uint8:  # of which Pillow drops half
      keep = "cv2.imwrite(file, cv2.imread(file, cv2.IMREAD_UNCHANGED)[..., 0])"
    if not file.lower().endswith((".png", ".tif", ".tiff", ".bmp")):
      # Saved as it is called, it might lose something.
      keep = keep.replace("save(file)", 'save("NAME.png")')
      keep += ", and take this file out"
    return f"{start}, all three alike: keep one of them, {keep}"
  bits = 8 * channels.dtype.itemsize
  wide = np.zeros(channels.shape[:2], np.uint32 if bits == 8 else np.uint64)
  for i in range(3):
    wide = wide << bits | channels[..., i]
  colors, counts = np.unique(wide, return_counts=True)
  colors = colors[np.argsort(-counts, kind="stable")]
  mask, shifts = (1 << bits) - 1, (2 * bits, bits, 0)
  first = [tuple(int(c) >> s & mask for s in shifts) for c in colors[:_SHOWN]]
  return f"{start} and holds colors ({_listed(first, len(colors))}). {_WAYS}"


def _listed(colors: Sequence[tuple[int, ...]], count: int) -> str:
  more = ", ..." if count > len(colors) else ""
  return ", ".join(str(color) for color in colors) + more
