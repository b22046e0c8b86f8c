"""Photos that EXIF turns: do their masks lie on them as they are shown?

A camera that was held upside down or on its side stores what its sensor saw,
and a tag that says how to turn it. Images are read turned. Masks that were
drawn by a program that ignores the tag lie on the photo as it is stored; where
rows and columns stay as many, nothing else tells.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from deeplax.data.formats import tiff

# Photos to compare, of those that are turned.
COMPARED = 20
_SIDE = 256  # pixels to compare at
# How much more edge must lie below the borders of a mask one way than the other
# way. In 44 photos of CamVid and VOC, turned in four ways each, the right way
# had 1.4 times as much or more on average, and never less than the other.
_CLEARLY = 1.1
_MOST = 0.75  # of the photos that decide
_BACK = {6: 8, 8: 6}  # what undoes an orientation; all others undo themselves
_TURN = (
  "m = PIL.Image.open(mask); "
  "m.getexif()[274] = PIL.Image.open(photo).getexif()[274]; "
  "PIL.ImageOps.exif_transpose(m).save(mask)"
)


def fits(image: np.ndarray, label: np.ndarray, orientation: int) -> int:
  """Return 1 if a mask lies on a photo upright, -1 as stored, 0: cannot tell.

  Args:
    image: Upright, [h, w, c].
    label: Of 8 bit, [h, w].
    orientation: By which EXIF turned the image.
  """
  stored = tiff.upright(image, _BACK.get(orientation, orientation))
  if stored.shape != image.shape:
    return 1  # the mask has the size of the upright one
  upright, stored = (_below_borders(i, label) for i in (image, stored))
  if upright > _CLEARLY * stored:
    return 1
  return -1 if stored > _CLEARLY * upright else 0


def _below_borders(image: np.ndarray, label: np.ndarray) -> float:
  """Return the mean slope below a mask's borders over that of all pixels."""
  height, width = label.shape
  scale = min(1.0, _SIDE / max(height, width))
  size = max(1, round(width * scale)), max(1, round(height * scale))
  small = np.ascontiguousarray(image[..., :3])
  small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
  gray = small.reshape(*size[::-1], -1).astype(np.float32).mean(axis=-1)
  label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
  x, y = (cv2.Sobel(gray, cv2.CV_32F, *d) for d in ((1, 0), (0, 1)))
  slope = np.hypot(x, y)
  slope = np.minimum(slope, np.percentile(slope, 95))  # no single bright line
  window = np.ones((3, 3), np.uint8)
  border = cv2.dilate(label, window) != cv2.erode(label, window)
  if not border.any() or not slope.any():
    return 1.0
  return float(slope[border].mean() / slope.mean())


def told(
  file: str, turned: int, images: int, found: Sequence[int]
) -> tuple[str, bool]:
  """Return what to say, and whether it is a warning.

  Args:
    file: One of the photos.
    turned: How many are.
    images: How many were looked at.
    found: `fits` of some of them.
  """
  text = (
    f"EXIF turns {turned} of {images} photos, as {file}. They are read upright"
  )
  wrong, decided = found.count(-1), sum(map(abs, found))
  if wrong and wrong >= _MOST * decided:
    return (
      f"{text}, but {wrong} of {len(found)} masks compared lie on the photo as "
      "it is stored: their borders follow its edges there. Turn each such mask "
      f"like its photo: {_TURN}",
      True,
    )
  text += ", and their masks must be drawn upright, too"
  if decided and not wrong:
    return f"{text}: by their edges, those compared are", False
  return f"{text}. Look at some: edges cannot tell it here", False
