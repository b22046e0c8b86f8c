"""Write TIFF files of any layout by hand, to read them back."""

from collections.abc import Sequence
import io
import struct
from typing import Literal
import zlib

import numpy as np

CODES = {3: "H", 4: "I", 16: "Q"}
FORMATS = {"u": 1, "i": 2, "f": 3}


def encoded(
  image: np.ndarray,
  *,
  photometric: int | None = None,
  extra: Sequence[int] = (),
  planar: bool = False,
  tile: tuple[int, int] | None = None,
  rows: int = 7,
  order: Literal["<", ">"] = "<",
  deflate: bool = False,
  orientation: int = 1,
  big: bool = False,
) -> bytes:
  """Return [h, w, c] as a TIFF file.

  Args:
    image: Its numbers.
    photometric: Default: RGB for three bands or more, else gray.
    extra: Meaning of the bands beyond the colors; 2 is alpha.
    planar: Bands one after the other.
    tile: (height, width), a multiple of 16 each; default: strips.
    rows: Of a strip.
    order: Of bytes, "<" or ">".
    deflate: Compress.
    orientation: As EXIF's.
    big: BigTIFF.
  """
  height, width, bands = image.shape
  planes = np.split(image, bands, axis=2) if planar else [image]
  parts = []
  for plane in planes:
    if tile:
      grid = [
        -size % side for size, side in zip(plane.shape[:2], tile, strict=True)
      ]
      plane = np.pad(plane, ((0, grid[0]), (0, grid[1]), (0, 0)))
      for top in range(0, height, tile[0]):
        for left in range(0, width, tile[1]):
          parts.append(plane[top : top + tile[0], left : left + tile[1]])
    else:
      parts += [plane[top : top + rows] for top in range(0, height, rows)]
  stored = [
    np.ascontiguousarray(part, image.dtype.newbyteorder(order)).tobytes()
    for part in parts
  ]
  if deflate:
    stored = [zlib.compress(part) for part in stored]
  if photometric is None:
    photometric = 2 if bands >= 3 else 1
  place, count = ("Q", "Q") if big else ("I", "H")
  file = io.BytesIO()
  file.write(b"II" if order == "<" else b"MM")
  file.write(struct.pack(f"{order}HHH", 43, 8, 0) if big else b"")
  file.write(b"" if big else struct.pack(f"{order}H", 42))
  start = file.tell()
  file.write(bytes(struct.calcsize(order + place)))
  offsets = []
  for part in stored:
    offsets.append(file.tell())
    file.write(part)
  tags = {
    256: (4, [width]),
    257: (4, [height]),
    258: (3, [8 * image.itemsize] * bands),
    259: (3, [8 if deflate else 1]),
    262: (3, [photometric]),
    274: (3, [orientation]),
    277: (3, [bands]),
    284: (3, [2 if planar else 1]),
    338: (3, list(extra)),
    339: (3, [FORMATS[image.dtype.kind]] * bands),
    324 if tile else 273: (16 if big else 4, offsets),
    325 if tile else 279: (4, [len(part) for part in stored]),
  }
  tags |= {322: (4, [tile[1]]), 323: (4, [tile[0]])} if tile else {}
  tags |= {} if tile else {278: (4, [rows])}
  fields = []
  for tag, (kind, values) in sorted(tags.items()):
    if not values:
      continue
    data = struct.pack(f"{order}{len(values)}{CODES[kind]}", *values)
    width_of_field = struct.calcsize(order + place)
    if len(data) > width_of_field:
      at = file.tell()
      file.write(data)
      data = struct.pack(order + place, at)
    head = struct.pack(f"{order}HH{place}", tag, kind, len(values))
    fields.append(head + data.ljust(width_of_field, b"\0"))
  directory = file.tell()
  file.write(struct.pack(order + count, len(fields)))
  file.write(b"".join(fields) + bytes(struct.calcsize(order + place)))
  file.seek(start)
  file.write(struct.pack(order + place, directory))
  return file.getvalue()
