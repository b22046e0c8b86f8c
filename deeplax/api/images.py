"""Images as callers have them: arrays, files, pictures of Pillow."""

from collections.abc import Sequence
import io
import os
from typing import Any

from jaxtyping import Num
import numpy as np
from PIL import Image
from PIL import ImageOps

from deeplax import errors
from deeplax import paths
from deeplax.data import bands
from deeplax.data import decoding
from deeplax.reports import label_pictures

Given = np.ndarray | str | os.PathLike[str] | Image.Image


def read(
  image: Given, channels: Sequence[int] | None
) -> Num[np.ndarray, "h w c"]:
  """Return an image [h, w, c] as training would read it.

  Args:
    image: RGB [h, w, 3] of uint8, or the bands of `channels`; a file; or a
      picture of Pillow.
    channels: `data.channels` of the run; None: it reads RGB.

  Raises:
    InputError: It is none of these, or the file is no image.
  """
  if isinstance(image, str | os.PathLike):
    path = paths.local(os.fspath(image))
    with errors.disk_errors(f"{path} cannot be read", "give an image's path"):
      data = path.read_bytes()
    reader = bands.Reader(channels) if channels else decoding.decode_image
    return reader(data, str(path))
  if isinstance(image, Image.Image) and channels is None:
    return _of_pillow(image)
  array = None if isinstance(image, Image.Image) else np.asarray(image)
  if channels:
    wanted = f"numbers [h, w, {len(channels)}], the bands {tuple(channels)}"
    fits = array is not None and array.dtype.kind in "iuf"
  else:
    wanted = "RGB [h, w, 3] of uint8, 0 to 255"
    fits = array is not None and array.dtype == np.uint8
  depth = len(channels) if channels else 3
  if array is None or not fits or array.shape[2:] != (depth,) or not array.size:
    is_now = type(image).__name__
    if array is not None:
      is_now = f"{array.dtype} {list(array.shape)}"
    raise errors.InputError(
      f"an image is {is_now}: give {wanted}, or the path of a file; of several "
      "a list"
    )
  return array


def _of_pillow(picture: Image.Image) -> np.ndarray:
  """Return a picture of Pillow as the same picture's file is decoded."""
  upright: Any = ImageOps.exif_transpose(picture)
  if upright.mode.startswith("I"):
    # 16 bits, which Pillow would clip instead of scaling them.
    file = io.BytesIO()
    upright.save(file, format="PNG")
    return decoding.decode_image(file.getvalue(), "the image")
  if upright.mode == "F":
    raise errors.InputError(
      "an image is Pillow's of mode F, whose numbers have no agreed black and "
      "white: give an array of uint8"
    )
  return np.asarray(upright.convert("RGB"))


def size(image: Given) -> tuple[int, int] | None:
  """Return (height, width) without reading an image; None: it is not known."""
  if isinstance(image, str | os.PathLike):
    return label_pictures.size(paths.local(os.fspath(image)))
  if isinstance(image, Image.Image):
    return image.height, image.width
  shape = np.shape(image)
  return (shape[0], shape[1]) if len(shape) == 3 else None
