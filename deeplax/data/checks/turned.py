"""Photos that EXIF turns: whether their masks lie on the photo as it is shown.

A camera that was held upside down or on its side stores the pixels as its
sensor saw them, with a tag that says how to turn the photo. Images are read
upright. A mask drawn by a program that ignores the tag lies on the photo as it
is stored; where the numbers of rows and columns stay the same, only the edges
of the photo show that.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from deeplax.data.formats import tiff

COMPARED = 20  # turned photos that are compared with their masks
_SIDE = 256  # longest side at which they are compared, in pixels
# How much steeper the photo must be below the borders of its mask one way than
# the other. In 44 photos of CamVid and VOC, turned in four ways each, the right
# way was 1.4 times as steep or more on average, and never less steep.
_CLEARLY = 1.1
_MOST = 0.75  # share of the photos that give an answer
_BACK = {6: 8, 8: 6}  # orientations that another one undoes
_TURN = (
  "m = PIL.Image.open(mask); "
  "m.getexif()[274] = PIL.Image.open(photo).getexif()[274]; "
  "PIL.ImageOps.exif_transpose(m).save(mask)"
)


def fits(image: np.ndarray, label: np.ndarray, orientation: int) -> int:
  """Return 1 if a mask fits the photo upright, -1 as stored, 0 if either.

  Args:
    image: [h, w, c], upright.
    label: [h, w], uint8.
    orientation: EXIF's, by which the image was turned.
  """
  stored = tiff.upright(image, _BACK.get(orientation, orientation))
  if stored.shape != image.shape:
    return 1  # the mask has the size of the upright photo
  upright, stored = (_below_borders(i, label) for i in (image, stored))
  if upright > _CLEARLY * stored:
    return 1
  return -1 if stored > _CLEARLY * upright else 0


def _below_borders(image: np.ndarray, label: np.ndarray) -> float:
  """Return how much steeper an image is below a mask's borders than elsewhere.

  That is the mean slope of the gray levels there over that of all pixels.
  """
  height, width = label.shape
  scale = min(1.0, _SIDE / max(height, width))
  size = max(1, round(width * scale)), max(1, round(height * scale))
  small = np.ascontiguousarray(image[..., :3])
  small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
  gray = small.reshape(*size[::-1], -1).astype(np.float32).mean(axis=-1)
  label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
  x, y = (cv2.Sobel(gray, cv2.CV_32F, *d) for d in ((1, 0), (0, 1)))
  slope = np.hypot(x, y)
  # Or else a single bright line would outweigh all borders.
  slope = np.minimum(slope, np.percentile(slope, 95))
  window = np.ones((3, 3), np.uint8)
  border = cv2.dilate(label, window) != cv2.erode(label, window)
  if not border.any() or not slope.any():
    return 1.0
  return float(slope[border].mean() / slope.mean())


def message(
  file: str, turned: int, images: int, fitting: Sequence[int]
) -> tuple[str, bool]:
  """Return the message about turned photos, and whether it is a warning.

  Args:
    file: The name of one of them.
    turned: Their number.
    images: The number of images looked at.
    fitting: The results of `fits` for some of them.
  """
  text = (
    f"EXIF turns {turned} of {images} photos, as {file}. They are read upright"
  )
  wrong, decided = fitting.count(-1), sum(map(abs, fitting))
  if wrong and wrong >= _MOST * decided:
    return (
      f"{text}, but {wrong} of {len(fitting)} masks compared lie on the photo "
      "as it is stored: their borders follow its edges there. Turn each such "
      f"mask like its photo: {_TURN}",
      True,
    )
  text += ", and their masks must be drawn upright as well"
  if decided and not wrong:
    return f"{text}: by their edges, those compared are", False
  return f"{text}. Look at some of them: their edges do not show it", False
