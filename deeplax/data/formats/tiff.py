"""Read TIFF files of any number of bands, which no image library here does.

OpenCV reads up to four bands, multiplies colors by their alpha, and confuses
bands that are stored one after the other; Pillow reads 16 bits as 8. Here the
strips or tiles are put together according to TIFF 6.0 (sections 2, 7, 14 and
15; BigTIFF too), with floating point prediction as in Adobe's Photoshop TIFF
technical note 3. libtiff, through Pillow, decompresses them.
"""

import io
import struct
from typing import Any, NamedTuple

import numpy as np

from deeplax.data.formats import pictures

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF
GRAY = (0, 1)  # photometric interpretations: white is 0, black is 0
RGB = 2

_NO_COMPRESSION, _PACK_BITS = 1, 32773
# These two, LZW, Deflate by its two numbers, LZMA and Zstandard compress bytes,
# whatever they mean; JPEG and its like compress pictures.
_LZW, _DEFLATE = 5, (8, 32946)
_COMPRESSIONS = (*(_NO_COMPRESSION, _PACK_BITS, _LZW, *_DEFLATE, 34925, 50000),)
# Bytes that one stored byte may become, at most: 2 bytes stand for a run of
# 128, a code of 12 bits for a text of up to 4,096. The others have no limit.
_MOST = {_NO_COMPRESSION: 1, _PACK_BITS: 64, _LZW: 2731} | dict.fromkeys(
  _DEFLATE, pictures.DEFLATED
)
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of tags
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}  # sample formats; 4: unknown
_DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
_NO_PREDICTOR, _DIFFERENCE, _FLOAT_DIFFERENCE = 1, 2, 3


class Layout(NamedTuple):
  """How a file stores its first picture.

  Attributes:
    size: (height, width), as stored.
    bands: The numbers of a pixel.
    bits: The bits of a number; 0: they differ from band to band.
    dtype: The type of the numbers, in the file's byte order; None: NumPy has no
      such type, as for 1 bit.
    photometric: GRAY, RGB or another kind of color.
    orientation: 1 to 8, as EXIF's.
    compression: TIFF's number of the compression.
    predictor: TIFF's number of the rule by which differences are stored.
    planar: Whether the bands lie one after the other.
    tiled: Whether the picture is stored in tiles, not in strips.
    chunk: (height, width) of a tile or strip.
    places: (offset, length) of each tile or strip, in bytes.
  """

  size: tuple[int, int]
  bands: int
  bits: int
  dtype: np.dtype | None
  photometric: int
  orientation: int
  compression: int
  predictor: int
  planar: bool
  tiled: bool
  chunk: tuple[int, int]
  places: tuple[tuple[int, int], ...]

  @property
  def readable(self) -> bool:
    """Whether `read` can read the picture."""
    return self.dtype is not None and self.compression in _COMPRESSIONS


def layout(file: pictures.Stream) -> Layout:
  """Return the layout of a file's first picture.

  Raises:
    ValueError: The tags are not whole.
  """
  try:
    return _layout(*_tags(file))
  except (IndexError, KeyError, OverflowError, struct.error) as error:
    raise ValueError(f"its TIFF tags are not whole ({error})") from error


def _tags(
  file: pictures.Stream,
) -> tuple[dict[int, tuple[int, ...]], str]:
  """Return the whole numbers among the tags, and the byte order."""
  end = file.seek(0, io.SEEK_END)
  file.seek(0)
  header = file.read(16)
  order = {b"II": "<", b"MM": ">"}[header[:2]]
  big = header[2:4] in (b"+\0", b"\0+")
  place, count, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")

  def unpack(code: str, data: bytes) -> tuple[Any, ...]:
    return struct.unpack_from(order + code, data)

  (start,) = unpack(place, header[8 if big else 4 :])
  file.seek(start)
  (number,) = unpack(count, file.read(struct.calcsize(order + count)))
  step = struct.calcsize(order + entry)
  entries = file.read(min(number * step, end))
  tags = {}
  for i in range(number):
    tag, kind, length, field = unpack(entry, entries[i * step :])
    if kind not in _NUMBERS:
      continue
    code = f"{length}{_NUMBERS[kind]}"
    if (size := struct.calcsize(order + code)) > len(field):
      if size > end:  # a false length would take that much memory
        raise ValueError(f"tag {tag} is longer than the file")
      file.seek(unpack(place, field)[0])
      field = file.read(size)
    tags[tag] = unpack(code, field)
  return tags, order


def _layout(tags: dict[int, tuple[int, ...]], order: str) -> Layout:
  def one(tag: int, default: int) -> int:
    return tags.get(tag, (default,))[0]

  (height,), (width,), bands = tags[257], tags[256], one(277, 1)
  bits, formats = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
  bit = bits.pop() if len(bits) == 1 else 0
  dtype = None
  if bit and len(formats) == 1:
    name = f"{_KINDS.get(formats.pop(), '?')}{bit // 8}"
    if bit % 8 == 0 and name in _DTYPES:
      dtype = np.dtype(order + name)
  tiled = 322 in tags
  offsets, counts = (324, 325) if tiled else (273, 279)
  rows = min(one(278, height), height)
  return Layout(
    size=(height, width),
    bands=bands,
    bits=bit,
    dtype=dtype,
    photometric=one(262, 1),
    orientation=one(274, 1),
    compression=one(259, _NO_COMPRESSION),
    predictor=one(317, _NO_PREDICTOR),
    planar=one(284, 1) == 2,
    tiled=tiled,
    chunk=(tags[323][0], tags[322][0]) if tiled else (rows, width),
    places=tuple(zip(tags[offsets], tags[counts], strict=True)),
  )


def read(data: bytes, layout: Layout) -> np.ndarray:
  """Return the picture [h, w, bands] in the file's own type, as stored.

  Args:
    data: The bytes of the file.
    layout: The picture's, which is `readable`.

  Raises:
    ValueError: The file is not whole.
  """
  assert layout.dtype is not None
  (height, width), (rows, columns) = layout.size, layout.chunk
  if min(height, width, layout.bands, rows, columns) < 1:
    raise ValueError("it has no pixels")
  declared = height * width * layout.bands * layout.dtype.itemsize
  if declared > len(data) * _MOST.get(layout.compression, declared):
    # A false size would take that much memory.
    raise ValueError(
      f"{len(data)} bytes cannot hold {height}x{width} pixels of "
      f"{layout.bands} bands"
    )
  # Planar: all strips or tiles of the first band, then those of the next.
  planes = layout.bands if layout.planar else 1
  bands = layout.bands // planes
  parts = planes * -(-height // rows) * -(-width // columns)
  if len(layout.places) != parts:
    raise ValueError(f"it has {len(layout.places)} parts, not {parts}")
  corners = [
    (plane, top, left)
    for plane in range(planes)
    for top in range(0, height, rows)
    for left in range(0, width, columns)
  ]
  whole = (height, width, layout.bands)
  result = np.empty(whole, layout.dtype.newbyteorder("="))
  for (plane, top, left), place in zip(corners, layout.places, strict=True):
    # The last strip ends with the picture; a tile is always whole.
    part = rows if layout.tiled else min(rows, height - top)
    block = _block(data, place, layout, (part, columns, bands))
    target = result[top : top + rows, left : left + columns]
    target = target[..., plane : plane + bands]
    target[:] = block[: target.shape[0], : target.shape[1]]
  return result


def _block(
  data: bytes,
  place: tuple[int, int],
  layout: Layout,
  shape: tuple[int, int, int],
) -> np.ndarray:
  """Return the numbers of one strip or tile."""
  dtype = layout.dtype
  assert dtype is not None
  offset, length = place
  stored = data[offset : offset + length]
  row = shape[1] * shape[2] * dtype.itemsize
  predictor = layout.predictor
  if layout.compression in (_NO_COMPRESSION, _PACK_BITS):
    predictor = _NO_PREDICTOR
  if layout.compression != _NO_COMPRESSION:
    stored = _decompress(stored, layout.compression, (shape[0], row))
  if len(stored) < shape[0] * row:
    raise ValueError("it is cut off")
  if predictor == _FLOAT_DIFFERENCE:
    # A row holds the most significant bytes of all its numbers, then the next
    # ones; each byte is the difference to that of the pixel before (note 3).
    split = np.frombuffer(stored, np.uint8, shape[0] * row)
    split = split.reshape(shape[0], -1, shape[2])
    split = np.cumsum(split, axis=1, dtype=np.uint8)
    split = split.reshape(shape[0], dtype.itemsize, -1)
    joined = np.ascontiguousarray(split.transpose(0, 2, 1))
    return joined.view(dtype.newbyteorder(">")).reshape(shape)
  numbers = np.frombuffer(stored, dtype, shape[0] * row // dtype.itemsize)
  numbers = numbers.reshape(shape)
  if predictor == _NO_PREDICTOR:
    return numbers
  if predictor != _DIFFERENCE:
    raise ValueError(f"its predictor {predictor} is unknown")
  numbers = numbers.astype(dtype.newbyteorder("="))
  bits = numbers.view(f"u{dtype.itemsize}")  # sums wrap around
  return np.cumsum(bits, axis=1, dtype=bits.dtype).view(numbers.dtype)


def _decompress(
  stored: bytes, compression: int, shape: tuple[int, int]
) -> bytes:
  """Return the bytes of a strip, decompressed by libtiff as a gray picture."""
  tags = {
    256: shape[1],
    257: shape[0],
    258: 8,
    259: compression,
    262: 1,
    273: 8,  # the strip is next to the header
    277: 1,
    278: shape[0],
    279: len(stored),
  }
  directory = struct.pack("<H", len(tags))
  for tag, value in tags.items():
    directory += struct.pack("<HHII", tag, 4, 1, value)
  place = 8 + len(stored) + len(stored) % 2
  file = struct.pack("<2sHI", b"II", 42, place) + stored
  file = file.ljust(place, b"\0") + directory + bytes(4)
  try:
    with pictures.opened(io.BytesIO(file)) as picture:
      return picture.tobytes()
  except pictures.BROKEN as error:
    raise ValueError(f"it is not whole ({error})") from error


def read_upright(data: bytes, layout: Layout, file: str) -> np.ndarray:
  """Return the picture [h, w, bands] upright, in the file's own type.

  Raises:
    InputError: The picture does not fit into memory.
    ValueError: The file is not whole.
  """
  assert layout.dtype is not None
  # The array, and one more upright or of bytes.
  pixel = 2 * layout.bands * layout.dtype.itemsize
  pictures.refuse_too_large(layout.size, pixel, file)
  return upright(read(data, layout), layout.orientation)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
  """Turn [h, w, c] as an EXIF orientation says."""
  if orientation in (2, 3, 7, 8):
    image = image[:, ::-1]
  if orientation in (3, 4, 6, 7):
    image = image[::-1]
  return image.swapaxes(0, 1) if 5 <= orientation <= 8 else image
