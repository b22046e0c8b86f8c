"""The augmentation of an image and its label, as the reference does it.

Scale, pad at the bottom and right, crop, flip, in this order (tensorflow/models
deeplab, input_preprocess.py). Pure NumPy and OpenCV; images are [h, w, c] of
any type, labels [h, w]; sizes are (height, width).
"""

from typing import NamedTuple

import cv2
import numpy as np

from deeplax.labels import IGNORE_LABEL

Size = tuple[int, int]
Window = tuple[int, int, int, int]  # top, left, height, width


class Augmentation(NamedTuple):
  """The settings of `augment`.

  Attributes:
    crop_size: (height, width) of the result.
    pad_value: Of pixels outside the image, per channel; rounded for uint8
      (127.5 becomes 128).
    min_scale: The smallest random scale.
    max_scale: The largest.
    scale_step: The distance between the scales to draw from; 0 draws any scale.
    flip: Whether to mirror half of the examples.
  """

  crop_size: Size
  pad_value: tuple[float, ...]
  min_scale: float = 0.5
  max_scale: float = 2.0
  scale_step: float = 0.25
  flip: bool = True


def random_scale(rng: np.random.Generator, settings: Augmentation) -> float:
  """Draw a scale: one of min, min + step, ..., max, or any for step 0."""
  min_scale, max_scale = settings.min_scale, settings.max_scale
  if min_scale == max_scale:
    return min_scale
  if settings.scale_step == 0:
    return float(rng.uniform(min_scale, max_scale))
  count = int((max_scale - min_scale) / settings.scale_step + 1)
  return float(rng.choice(np.linspace(min_scale, max_scale, count)))


def scaled_size(size: Size, scale: float) -> Size:
  """Return the size after scaling: int(d * scale), as the reference."""
  return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def resize(
  image: np.ndarray, size: Size, window: Window | None = None
) -> np.ndarray:
  """Resize bilinearly with aligned corners.

  Args:
    image: [h, w, c].
    size: The size of the whole result.
    window: The part of the result to compute; all of it by default.
  """
  top, left, height, width = window or (0, 0, *size)
  if size == image.shape[:2]:
    return image[top : top + height, left : left + width]
  y, x = _step(image.shape[0], size[0]), _step(image.shape[1], size[1])
  # Only the pixels that the window reads, so that OpenCV's 16-bit coordinates
  # and float32 positions get small numbers, however large the image is.
  y0, x0 = int(top * y), int(left * x)
  y1 = int((top + height - 1) * y) + 2
  x1 = int((left + width - 1) * x) + 2
  matrix = np.array([[x, 0, left * x - x0], [0, y, top * y - y0]])
  part = image[y0:y1, x0:x1]
  # OpenCV takes half as long for four channels as for three, with the same
  # results.
  rgb = part.shape[-1] == 3 and part.dtype == np.uint8
  if rgb:
    part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
  parts = [
    cv2.warpAffine(
      bands,
      matrix,
      (width, height),
      flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
      borderMode=cv2.BORDER_REPLICATE,
    ).reshape(height, width, -1)
    for bands in _in_parts(part)
  ]
  if rgb:
    return cv2.cvtColor(parts[0], cv2.COLOR_RGBA2RGB)
  return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _in_parts(image: np.ndarray) -> list[np.ndarray]:
  """Split the bands into groups that OpenCV takes at once and places exactly.

  That is one, three or four bands; for two it rounds positions to 1/32.
  """
  fours, rest = divmod(image.shape[-1], 4)
  sizes = [4] * fours + [[], [1], [1, 1], [3]][rest]
  return np.split(image, np.cumsum(sizes)[:-1], axis=-1)


def resize_labels(
  label: np.ndarray, size: Size, window: Window | None = None
) -> np.ndarray:
  """Resize as `resize` does, but to the nearest neighbor."""
  top, left, height, width = window or (0, 0, *size)
  if size == label.shape:
    return label[top : top + height, left : left + width]
  rows = _nearest(label.shape[0], size[0])[top : top + height]
  columns = _nearest(label.shape[1], size[1])[left : left + width]
  return label[:, columns][rows]  # five times as fast as both at once


def _step(old: int, new: int) -> float:
  """Return the distance between two new pixels, in old pixels."""
  return (old - 1) / (new - 1) if new > 1 else 0.0


def _nearest(old: int, new: int) -> np.ndarray:
  """Return the old pixel for each new one; halves go up, as in TensorFlow."""
  positions = np.arange(new, dtype=np.float32) * np.float32(_step(old, new))
  return np.minimum((positions + np.float32(0.5)).astype(np.int64), old - 1)


def pad(
  image: np.ndarray,
  label: np.ndarray,
  *,
  size: Size,
  pad_value: tuple[float, ...],
) -> tuple[np.ndarray, np.ndarray]:
  """Pad at the bottom and right to at least `size`, labels with 255."""
  h, w = label.shape
  big = (max(h, size[0]), max(w, size[1]))
  if big == (h, w):
    return image, label
  value = np.asarray(pad_value)
  if image.dtype == np.uint8:
    value = np.rint(value)
  # NumPy is slow at repeating three numbers, so one row of them is made first.
  row = np.tile(value.astype(image.dtype), (big[1], 1))
  padded = np.empty((*big, image.shape[-1]), image.dtype)
  padded[:h, :w] = image
  padded[h:] = row
  padded[:h, w:] = row[w:]
  padded_label = np.full(big, IGNORE_LABEL, label.dtype)
  padded_label[:h, :w] = label
  return padded, padded_label


def crop(
  image: np.ndarray, label: np.ndarray, window: Window
) -> tuple[np.ndarray, np.ndarray]:
  """Cut a window out."""
  top, left, height, width = window
  part = np.s_[top : top + height, left : left + width]
  return image[part], label[part]


def flip(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mirror left and right."""
  return _mirrored(image), _mirrored(label)


def _mirrored(array: np.ndarray) -> np.ndarray:
  # NumPy mirrors bytes one by one, which takes ten times as long.
  if array.dtype == np.uint8 and array.shape[2:] in ((), (3,)):
    return cv2.flip(array, 1)
  return array[:, ::-1]


def augment(
  image: np.ndarray,
  label: np.ndarray,
  rng: np.random.Generator,
  settings: Augmentation,
) -> tuple[np.ndarray, np.ndarray]:
  """Return an image and its label after a random scale, padding, crop and flip.

  Only the pixels of the crop are computed: the result equals that of the four
  steps one after the other, in a fraction of the time and memory.
  """
  scale = random_scale(rng, settings)
  size = scaled_size((label.shape[0], label.shape[1]), scale)
  height, width = settings.crop_size
  top = int(rng.integers(max(size[0] - height, 0) + 1))
  left = int(rng.integers(max(size[1] - width, 0) + 1))
  window = (top, left, min(height, size[0]), min(width, size[1]))
  image = resize(image, size, window)
  label = resize_labels(label, size, window)
  # Padding lies at the bottom and right, where a crop reaches only if the
  # scaled image is smaller than the crop, and then the crop starts at 0.
  image, label = pad(
    image, label, size=settings.crop_size, pad_value=settings.pad_value
  )
  if settings.flip and rng.random() < 0.5:
    image, label = flip(image, label)
  return np.ascontiguousarray(image), np.ascontiguousarray(label)
