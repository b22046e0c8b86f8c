"""Open pictures by Pillow: of the kinds that deeplax reads, and of any size.

Pillow knows many more kinds, some of which start other programs (PostScript),
and refuses pictures above 179 megapixels as a possible attack. Here the limit
is the free memory.
"""

from collections.abc import Iterator
import contextlib
import io
import struct
import threading
from typing import Any
import zlib

import PIL
from PIL import Image
from PIL import ImageFile
import psutil

from deeplax import errors

# Exceptions of Pillow's readers about a spoiled file.
BROKEN = (
  *(SyntaxError, ValueError, TypeError, AttributeError, RuntimeError),
  *(ArithmeticError, LookupError, MemoryError, EOFError, AssertionError),
  *(OSError, struct.error, zlib.error, Image.DecompressionBombError),
)
_KINDS = (
  *("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000", "AVIF"),
)
# PNG's chunks of text, and the keys under which programs store EXIF and XMP.
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TURNING = (b"Raw profile type exif", b"XML:com.adobe.xmp")
_LONGEST_KEY = 80
# Bytes that Deflate makes of one, at most (zlib.net, technical details).
DEFLATED = 1032
# Pixels below which any picture fits into memory.
_SMALL = 1 << 24

_lock = threading.Lock()
_inside = 0
_limit: int | None = None


@contextlib.contextmanager
def any_size() -> Iterator[None]:
  """Lift Pillow's limit of pixels, of which the process has one.

  The last of several threads to leave restores it.
  """
  global _inside, _limit
  with _lock:
    if not _inside:
      _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    _inside += 1
  try:
    yield
  finally:
    with _lock:
      _inside -= 1
      if not _inside:
        Image.MAX_IMAGE_PIXELS = _limit


class Bounded:
  """An open file of which no more bytes are read than it has.

  Python takes memory for all bytes that a reader asks for, and readers ask for
  as many as a false header says.
  """

  def __init__(self, file: io.BufferedReader | io.BytesIO):
    self._file = file
    self._end = file.seek(0, io.SEEK_END)
    file.seek(0)

  def read(self, size: int | None = -1) -> bytes:
    left = max(self._end - self._file.tell(), 0)
    return self._file.read(left if size in (None, -1) else min(size, left))

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)


Stream = io.BytesIO | io.BufferedReader | Bounded


@contextlib.contextmanager
def opened(
  stream: Stream,
) -> Iterator[ImageFile.ImageFile]:
  """Open a picture, whose pixels must be read inside the `with`.

  Raises:
    ValueError: The picture is of no known kind. Any of BROKEN may be raised as
      well, here and when the pixels are read.
  """
  with any_size():
    try:
      picture = Image.open(stream, formats=_KINDS)  # pyright: ignore
    except PIL.UnidentifiedImageError as error:
      raise ValueError("of no known kind") from error
    with picture:
      yield picture


def png(picture: Image.Image) -> bytes:
  """Return a picture as a PNG file."""
  data = io.BytesIO()
  picture.save(data, "PNG")
  return data.getvalue()


def first_line(error: BaseException) -> str:
  """Return the first line of a library's message."""
  text = str(error).strip().partition("\n")[0] or type(error).__name__
  return text if len(text) <= 200 else f"{text[:200]} ..."


def may_be_turned(png: Stream) -> bool:
  """Return whether a PNG has a chunk from which Pillow takes an orientation.

  Such a chunk may follow the pixels, all of which Pillow decodes to read it.
  """
  png.seek(8)  # behind the signature
  tagged = False
  while not tagged and len(start := png.read(8)) == 8:
    length, kind = struct.unpack(">I4s", start)
    text = png.read(min(length, _LONGEST_KEY)) if kind in _TEXTS else b""
    tagged = kind == b"eXIf" or text.startswith(_TURNING)
    png.seek(length - len(text) + 4, io.SEEK_CUR)  # past the checksum
  png.seek(0)
  return tagged


def refuse_too_large(size: tuple[int, int], pixel: int, file: str) -> None:
  """Refuse a picture that does not fit into memory.

  Args:
    size: (height, width).
    pixel: Bytes of memory that reading a pixel takes at most.
    file: The picture's name.

  Raises:
    InputError: The memory it takes, and the free memory.
  """
  pixels = size[0] * size[1]
  if pixels < _SMALL:
    return
  free = psutil.virtual_memory().available
  if pixels * pixel > free:
    raise errors.InputError(
      f"{file} has {size[0]}x{size[1]} pixels (height x width): reading it "
      f"takes {pixels * pixel / 1e9:.3g} GB of memory, and {free / 1e9:.3g} GB "
      "are free. Cut it into parts, or close other programs"
    )
