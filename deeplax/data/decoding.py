"""Decode images of any kind to RGB, and masks to the numbers in them.

Images become uint8 RGB, turned upright by their EXIF tag. A mask's palette is
never applied: its numbers are the indices.
"""

import io
import re
import struct
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ImageFile
from PIL import ImageOps

from deeplax import errors
from deeplax.data import color_masks
from deeplax.data.formats import npy
from deeplax.data.formats import pictures
from deeplax.data.formats import tiff

# What reading a spoiled file raises.
BROKEN = (*pictures.BROKEN, cv2.error)

# A quarter of white: 16-bit images that stay below hold fewer bits than that.
_DARK = 1 << 14
# The header of a binary PGM or PPM: width, height and the number for white,
# with comments anywhere between them.
_GAP = rb"(?:\s|#[^\n]*\n)+"
_NETPBM = re.compile(
  rb"P[56]" + _GAP + rb"\d{1,9}" + _GAP + rb"\d{1,9}" + _GAP + rb"(\d{1,5})\s"
)
# Bytes from which a file may hold an image too large for memory or OpenCV, and
# OpenCV's own limits (CV_IO_MAX_IMAGE_PIXELS and so on, by default).
_LARGE = 1 << 18
_OPENCV_PIXELS, _OPENCV_SIDE = 1 << 30, 1 << 20
_AS_BANDS = (
  "read its numbers as they are with --config.data.channels, such as "
  "'(0, 1, 2)' for its first three bands"
)

# Pillow's modes of one number per pixel: 1 bit, palette, gray, 16 and 32 bits,
# float.
_MASK_MODES = ("1", "P", "L", "I;16", "I;16B", "I;16L", "I", "F")
_PNG = b"\x89PNG\r\n\x1a\n"
# Gray, and how many numbers a pixel has, by PNG's types of color.
_PNG_GRAY, _PNG_CHANNELS = 0, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Compressions of TIFF that change numbers: JPEG of two kinds, and WebP.
_LOSSY_TIFF = (6, 7, 50001)
_LOSSY = (
  "{file} is {kind}: its compression changes labels near every edge, which "
  "cannot be undone. Save masks as PNG from where they were made"
)


def decode_image(data: bytes, file: str) -> np.ndarray:
  """Return an image of any kind as RGB uint8 [h, w, 3], upright.

  Colors are as stored: an alpha channel is dropped, not blended in. Of 16 bits
  the upper 8 are kept. Of several pictures in a file, the first is read.

  OpenCV reads JPEG in half of Pillow's time and to the same numbers, and
  refuses a file that was cut off. It paints over the transparent pixels of a
  GIF and multiplies the colors of a TIFF by their alpha, so these are read in
  other ways.

  Raises:
    InputError: The file is no whole picture, or its numbers are no brightness.
  """
  try:
    if data.startswith(tiff.MAGIC):
      image = _decode_tiff(data, file)
    elif data.startswith(b"GIF8"):
      image = _decode_by_pillow(data, file)
    elif white := _NETPBM.match(data):
      image = _decode_netpbm(data, int(white[1]), file)
    else:
      image = _decode_by_opencv(data, file)
  except BROKEN as e:
    raise errors.InputError(
      f"{file} is not a whole picture ({len(data)} bytes; "
      f"{pictures.first_line(e)}): it may be cut off or of an unknown kind. "
      "Replace it, or take it out of the data set"
    ) from e
  return _to_bytes(image, file)


def _decode_by_opencv(data: bytes, file: str) -> np.ndarray:
  if len(data) > _LARGE:
    height, width = image_header(data, file).size
    pictures.refuse_too_large((height, width), 12, file)
    if height * width > _OPENCV_PIXELS or max(height, width) > _OPENCV_SIDE:
      return _decode_by_pillow(data, file)
  _check_png(data)
  flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH
  return decode_by_opencv(data, flags)


def decode_by_opencv(data: bytes, flags: int) -> np.ndarray:
  """Return a picture as OpenCV decodes it.

  Args:
    data: The bytes of its file.
    flags: OpenCV's, cv2.IMREAD_*.

  Raises:
    ValueError: OpenCV cannot decode it.
  """
  array = np.frombuffer(data, np.uint8)
  image = cv2.imdecode(array, flags) if data else None
  if image is None:
    raise ValueError("OpenCV reads nothing")
  return image


def decode_png(data: bytes) -> np.ndarray:
  """Return a PNG's own numbers, [h, w, c]: gray, or RGB and perhaps alpha."""
  image = decode_by_opencv(data, cv2.IMREAD_UNCHANGED)
  image = image.reshape(*image.shape[:2], -1)
  order = (2, 1, 0, 3)[: image.shape[-1]] if image.shape[-1] > 1 else (0,)
  return image[..., order]


def _decode_netpbm(data: bytes, white: int, file: str) -> np.ndarray:
  """Return a PGM or PPM image, stretched so that its number for white is."""
  image = _decode_by_opencv(data, file)
  full = np.iinfo(image.dtype).max
  if white == full:
    return image
  return np.round(image * (full / max(white, 1))).astype(image.dtype)


def _decode_by_pillow(data: bytes, file: str) -> np.ndarray:
  with pictures.opened(io.BytesIO(data)) as picture:
    pictures.refuse_too_large((picture.height, picture.width), 12, file)
    return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def _decode_tiff(data: bytes, file: str) -> np.ndarray:
  """Return [h, w, 3] of the file's own type."""
  layout = tiff.layout(io.BytesIO(data))
  if not (layout.readable and layout.photometric in (*tiff.GRAY, tiff.RGB)):
    return _decode_by_pillow(data, file)  # palette, 1 bit, CMYK, JPEG inside
  # A second band of gray, or a fourth one of RGB, is alpha.
  gray = layout.photometric in tiff.GRAY and layout.bands <= 2
  if not gray and layout.bands != 3 and layout.photometric != tiff.RGB:
    raise errors.InputError(
      f"{file} has {layout.bands} bands that are not red, green and blue: "
      f"{_AS_BANDS}"
    )
  image = tiff.read_upright(data, layout, file)
  if layout.photometric == tiff.GRAY[0] and image.dtype.kind == "u":
    image = ~image
  image = image[..., :1].repeat(3, axis=-1) if gray else image[..., :3]
  return np.ascontiguousarray(image)


def _to_bytes(image: np.ndarray, file: str) -> np.ndarray:
  """Return an image as uint8, the upper 8 bits of 16."""
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


def decode_label(
  data: bytes, file: str, colors: color_masks.Colors | None = None
) -> np.ndarray:
  """Return the numbers of a mask, [h, w], uint8 if all are 0 to 255.

  They are the file's own: gray of 2 or 4 bits is not stretched to 0 to 255, and
  whole numbers in floating point become integers. Of a mask of colors they are
  the classes of these; its alpha is dropped, and a palette is applied.

  Args:
    data: The bytes of the file.
    file: Its name.
    colors: What the colors stand for; None: the mask holds numbers.

  Raises:
    InputError: The file is no mask (a JPEG, or colors that nobody has named),
      or unreadable.
  """
  try:
    _refuse_lossy(data, file)
    if colors is not None:
      return colors.numbers(decode_image(data, file), file)
    if npy.is_array(data):
      raw = npy.read(data, dimensions=(2,))
    elif data.startswith(tiff.MAGIC):
      raw = _label_of_tiff(data, file)
    else:
      raw = _label_of_picture(data, file)
  except BROKEN as error:
    raise errors.InputError(
      f"{file} is not a readable mask ({pictures.first_line(error)}). Masks "
      "are PNGs of one number per pixel: replace it, or take its pair out of "
      "the data set"
    ) from error
  if raw.dtype.kind not in "buif":
    raise errors.InputError(
      f"{file} holds {raw.dtype}, not numbers: save the class of each pixel"
    )
  return _narrow(raw)


def _refuse_lossy(data: bytes, file: str) -> None:
  """Refuse a mask of a compression that changes labels."""
  kind = "a JPEG" if data.startswith(b"\xff\xd8\xff") else ""
  if _is_lossy_webp(data):
    kind = "WebP with loss"
  elif data.startswith(tiff.MAGIC):
    layout = tiff.layout(io.BytesIO(data))
    kind = "a JPEG in a TIFF" if layout.compression in _LOSSY_TIFF else ""
  if kind:
    raise errors.InputError(_LOSSY.format(file=file, kind=kind))


def _label_of_tiff(data: bytes, file: str) -> np.ndarray:
  layout = tiff.layout(io.BytesIO(data))
  if not layout.readable:
    return _label_of_picture(data, file)  # 1, 2 or 4 bit
  raw = tiff.read_upright(data, layout, file)
  if layout.bands > 1:
    raise errors.InputError(
      color_masks.refusal(raw, f"{layout.bands} channels", file)
    )
  return raw[..., 0]


def _label_of_picture(data: bytes, file: str) -> np.ndarray:
  _check_png(data)
  with pictures.opened(io.BytesIO(data)) as mask:
    # The picture, its array and the mask upright, of 4 bytes a pixel at most.
    size = (mask.height, mask.width)
    pictures.refuse_too_large(size, 12, file)
    what = f"{len(mask.getbands())} channels (mode {mask.mode})"
    if mask.mode not in _MASK_MODES:
      wide = data.startswith(_PNG) and data[24] == 16  # Pillow drops half of it
      rgb = decode_png(data)[..., :3] if wide else mask.convert("RGB")
      raise errors.InputError(color_masks.refusal(np.asarray(rgb), what, file))
    levels = _levels(mask, data)
    ImageOps.exif_transpose(mask, in_place=True)
    raw = np.asarray(mask)
  if levels is None:
    return raw
  most = 255 if raw.dtype == np.uint8 else 65535
  return np.rint(raw * (levels / most)).astype(raw.dtype)


def is_colored_png(data: bytes) -> bool:
  """Return whether a file is a PNG that stores red, green and blue."""
  return data.startswith(_PNG) and data[25:26] in (b"\2", b"\6")


def _check_png(data: bytes) -> None:
  """Refuse a false size before its pixels take time and memory."""
  if not data.startswith(_PNG) or len(data) < 26:
    return
  width, height, bits, kind = struct.unpack(">IIBB", data[16:26])
  declared = height * (width * bits * _PNG_CHANNELS.get(kind, 1) // 8)
  if declared > pictures.DEFLATED * len(data):
    raise ValueError(f"{len(data)} bytes cannot hold {height}x{width} pixels")


def _levels(mask: ImageFile.ImageFile, data: bytes) -> int | None:
  """Return a mask's number for white if Pillow has stretched it, else None.

  Pillow turns gray of few levels into gray of 256 or of 65,536.
  """
  if mask.mode not in ("L", "I"):
    return None
  if data.startswith(_PNG):
    bits, kind = data[24], data[25]
    return 2**bits - 1 if kind == _PNG_GRAY and bits in (2, 4) else None
  if mask.format == "TIFF":
    bits = tiff.layout(io.BytesIO(data)).bits
    return 2**bits - 1 if bits in (2, 4) else None
  if mask.format == "PPM":
    kind, *_, arguments = mask.tile[0]
    if kind.startswith("ppm") and isinstance(arguments, tuple):
      return int(arguments[1])
  return None


def _is_lossy_webp(data: bytes) -> bool:
  """Return whether a file is a WebP with lossy compression (VP8)."""
  if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
    return False
  place = 12
  while place < len(data):  # chunks, padded to even lengths
    if data[place : place + 4] == b"VP8 ":
      return True
    length = int.from_bytes(data[place + 4 : place + 8], "little")
    place += 8 + length + length % 2
  return False


def _narrow(raw: np.ndarray) -> np.ndarray:
  """Return a mask's numbers as uint8 if all are 0 to 255 and whole."""
  if raw.dtype == np.uint8:
    return raw
  if not raw.size or not (raw.min() >= 0 and raw.max() <= 255):  # or NaN
    return raw
  narrow = raw.astype(np.uint8)
  return narrow if (narrow == raw).all() else raw


class Header(NamedTuple):
  """Size and orientation of an image.

  Attributes:
    stored: (height, width) as stored.
    orientation: EXIF's, 1 to 8; 1 is upright.
  """

  stored: tuple[int, int]
  orientation: int

  @property
  def exchanges(self) -> bool:
    """Whether rows and columns are exchanged to turn it upright."""
    return self.orientation >= 5

  @property
  def size(self) -> tuple[int, int]:
    """(height, width) upright."""
    height, width = self.stored
    return (width, height) if self.exchanges else (height, width)


def image_header(
  data: bytes | io.BytesIO | io.BufferedReader, file: str
) -> Header:
  """Return the header of an image, without decoding the image.

  Args:
    data: The open file, or all of its bytes.
    file: Its name.

  Raises:
    InputError: It has no header of a known kind.
  """
  file_object = io.BytesIO(data) if isinstance(data, bytes) else data
  stream = pictures.Bounded(file_object)
  start = stream.read(4)
  stream.seek(0)
  try:
    if start in tiff.MAGIC:
      layout = tiff.layout(stream)
      size, orientation = layout.size, layout.orientation
    elif npy.is_array(start):
      size, orientation = npy.size(stream), 1
    else:
      upright = start == _PNG[:4] and not pictures.may_be_turned(stream)
      with pictures.opened(stream) as image:
        size = image.height, image.width
        orientation = 1 if upright else image.getexif().get(274, 1)
  except BROKEN as e:
    raise errors.InputError(
      f"{file} is not a readable picture ({pictures.first_line(e)}): replace "
      "it, or take it out of the data set"
    ) from e
  # As other programs, take a number that EXIF does not define for upright.
  valid = isinstance(orientation, int) and 1 <= orientation <= 8
  return Header(size, orientation if valid else 1)
