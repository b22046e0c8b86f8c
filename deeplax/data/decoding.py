"""Image and mask files decoded: pictures of any kind, masks as their numbers.

Images come out as uint8 RGB, turned upright by their EXIF tag. A palette PNG is
read as indices, never as colours.
"""

import io
import re

import cv2
import numpy as np
import PIL
from PIL import Image
from PIL import ImageOps

from deeplax import errors
from deeplax.data.formats import npy
from deeplax.data.formats import tiff

# What reading a spoilt file raises.
BROKEN = (
  *(OSError, SyntaxError, ValueError),
  *(cv2.error, Image.DecompressionBombError),
)

# A picture of 16 bit that stays below has not used them: a quarter of white.
_DARK = 1 << 14
# The header of a binary PGM or PPM up to its largest number: width, height and
# that, with comments anywhere between.
_GAP = rb"(?:\s|#[^\n]*\n)+"
_NETPBM = re.compile(
  rb"P[56]" + _GAP + rb"\d{1,9}" + _GAP + rb"\d{1,9}" + _GAP + rb"(\d{1,5})\s"
)
_AS_BANDS = (
  "read its numbers as they are with --config.data.channels, such as "
  "'(0, 1, 2)' for its first three bands"
)

# 1 bit, palette, grey, 16 bit, 32 bit: the modes that hold numbers.
_MASK_MODES = ("1", "P", "L", "I;16", "I;16B", "I;16L", "I")


def decode_image(data: bytes, file: str) -> np.ndarray:
  """Decode any picture to RGB uint8 [h, w, 3], upright.

  Colours are as stored: an alpha channel is dropped, not blended in. Of 16 bit
  the upper 8 are kept. Of several pictures in a file the first counts.

  OpenCV reads JPEG at half of Pillow's time and to the same numbers, and
  refuses a file that was cut off. It paints over what is transparent in a GIF
  and multiplies the colours of a TIFF with their alpha, so these are read
  otherwise.

  Raises:
    InputError: It is no whole picture, or its numbers are no brightness.
  """
  try:
    if data.startswith(tiff.MAGIC):
      image = _decode_tiff(data, file)
    elif data.startswith(b"GIF8"):
      image = _decode_by_pillow(data)
    elif white := _NETPBM.match(data):
      image = _decode_netpbm(data, int(white[1]))
    else:
      image = _decode_by_opencv(data)
  except BROKEN as e:
    raise errors.InputError(
      f"{file} is not a whole picture ({len(data)} bytes; {e}): it may be cut "
      "off or of an unknown kind. Replace it, or take it out of the data set"
    ) from e
  return _to_bytes(image, file)


def _decode_by_opencv(data: bytes) -> np.ndarray:
  flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH
  array = np.frombuffer(data, np.uint8)
  image = cv2.imdecode(array, flags) if data else None
  if image is None:
    raise ValueError("OpenCV reads nothing")
  return image


def _decode_netpbm(data: bytes, white: int) -> np.ndarray:
  """Return a PGM or PPM file, whose header says which number is white."""
  image = _decode_by_opencv(data)
  full = np.iinfo(image.dtype).max
  if white == full:
    return image
  return np.round(image * (full / max(white, 1))).astype(image.dtype)


def _decode_by_pillow(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as picture:
    return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def _decode_tiff(data: bytes, file: str) -> np.ndarray:
  """Return [h, w, 3] of the file's own type."""
  layout = tiff.layout(io.BytesIO(data))
  if not (layout.readable and layout.photometric in (*tiff.GREY, tiff.RGB)):
    return _decode_by_pillow(data)  # palette, 1 bit, CMYK, JPEG inside
  # A second or fourth band is alpha.
  grey = layout.photometric in tiff.GREY and layout.bands <= 2
  if not grey and layout.bands != 3 and layout.photometric != tiff.RGB:
    raise errors.InputError(
      f"{file} has {layout.bands} bands that are not red, green and blue: "
      f"{_AS_BANDS}"
    )
  image = tiff.upright(tiff.read(data, layout), layout.orientation)
  if layout.photometric == tiff.GREY[0] and image.dtype.kind == "u":
    image = ~image
  image = image[..., :1].repeat(3, axis=-1) if grey else image[..., :3]
  return np.ascontiguousarray(image)


def _to_bytes(image: np.ndarray, file: str) -> np.ndarray:
  """Return uint8; 16 bit by their upper 8."""
  if image.dtype == np.uint8:
    return image
  if image.dtype != np.uint16:
    raise errors.InputError(
      f"{file} holds numbers of type {image.dtype}, which have no agreed black "
      f"and white: {_AS_BANDS}"
    )
  brightest = int(image.max())
  if 0 < brightest < _DARK:
    raise errors.InputError(
      f"{file} is 16 bit and its largest number is {brightest} of 65535, so it "
      "would be read as a dark or black picture. If the camera gives 12 or 14 "
      f"bits: {_AS_BANDS}; or multiply the numbers of all files by 16 or 4"
    )
  return (image >> 8).astype(np.uint8)


def decode_label(data: bytes, file: str) -> np.ndarray:
  """Decode a mask to its numbers: [h, w], uint8 or wider.

  Raises:
    InputError: It is no mask: JPEG, colours, or unreadable.
  """
  try:
    with Image.open(io.BytesIO(data)) as mask:
      if mask.format in ("JPEG", "MPO"):
        raise errors.InputError(
          f"{file} is a JPEG: its compression changes labels near every edge, "
          "which cannot be undone. Save masks as PNG from where they were made"
        )
      if mask.mode not in _MASK_MODES:
        raise errors.InputError(_colored(mask, file))
      ImageOps.exif_transpose(mask, in_place=True)
      raw = np.asarray(mask)
  except (OSError, SyntaxError, PIL.UnidentifiedImageError) as error:
    raise errors.InputError(
      f"{file} is not a readable mask ({error}). Masks are PNGs of one number "
      "per pixel: replace it, or take its pair out of the data set"
    ) from error
  return raw.astype(np.uint8) if raw.dtype == np.bool_ else raw


def _colored(mask: Image.Image, file: str) -> str:
  """Say what is wrong with a mask of colours, and how to mend it."""
  start = f"{file} has {len(mask.getbands())} channels (mode {mask.mode})"
  channels = np.asarray(mask.convert("RGB"))
  if (channels[..., :1] == channels).all():
    return (
      f"{start}, all three alike: keep one of them, "
      'PIL.Image.open(file).convert("RGB").getchannel(0).save(file)'
    )
  colors = np.unique(channels.reshape(-1, 3), axis=0)
  shown = ", ".join(str(tuple(int(v) for v in c)) for c in colors[:4])
  return (
    f"{start} and holds colours ({shown}{', ...' if len(colors) > 4 else ''}); "
    "a mask holds one number per pixel, the class. Replace each colour by its "
    'class index and save with PIL.Image.fromarray(index.astype("uint8"))'
    ".save(file); a palette PNG (mode P) is read as indices and is fine"
  )


def image_size(
  data: bytes | io.BytesIO | io.BufferedReader, file: str
) -> tuple[tuple[int, int], bool]:
  """Return ((height, width), was turned by EXIF) from an image's header.

  Args:
    data: The file, or all of its bytes.
    file: Its name.

  Raises:
    InputError: It has no header of a known kind.
  """
  stream = io.BytesIO(data) if isinstance(data, bytes) else data
  start = stream.read(4)
  stream.seek(0)
  try:
    if start in tiff.MAGIC:
      layout = tiff.layout(stream)
      (height, width), orientation = layout.size, layout.orientation
    elif npy.is_array(start):
      (height, width), orientation = npy.size(stream), 1
    else:
      with Image.open(stream) as image:
        width, height = image.size
        orientation = image.getexif().get(274, 1)
  except BROKEN as e:
    raise errors.InputError(
      f"{file} is not a readable picture ({e}): replace it, or take it "
      "out of the data set"
    ) from e
  # Orientations 5 to 8 exchange rows and columns.
  turned = orientation >= 5
  return ((width, height) if turned else (height, width)), turned
