"""Images and masks that chance or malice changed: read, or one message.

`DEEPLAX_MUTATIONS=2000` tries as many of each kind.
"""

from collections.abc import Callable
import io
import pathlib
import struct
from typing import Any
import zlib

import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import bands
from deeplax.data import decoding
from deeplax.data import files
from tests import hostile
from tests.data import tiffs

# Beyond ten times the file: what an honest header of these may ask for, as the
# sizes in them are changed, too.
MEMORY = 1 << 26
SIZE = (12, 16)
RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (*SIZE, 3), np.uint8)
LABELS = RNG.integers(0, 4, SIZE, np.uint8)


def pillow(array: np.ndarray, kind: str, mode: str = "", **options) -> bytes:
  exif = Image.Exif()
  exif[274] = 3
  if kind in ("JPEG", "PNG", "WEBP"):
    options["exif"] = exif
  picture = Image.fromarray(array)
  if mode == "P":
    picture = picture.quantize(16)
  data = io.BytesIO()
  picture.save(data, kind, **options)
  return data.getvalue()


def numpy_(array: np.ndarray, *, packed: bool = False) -> bytes:
  data = io.BytesIO()
  if packed:
    np.savez_compressed(data, array)
  else:
    np.save(data, array)
  return data.getvalue()


WIDE = COLORS.astype(np.uint16) << 8
BANDS = RNG.normal(size=(*SIZE, 5)).astype(np.float32)
IMAGES = {
  "a.jpg": pillow(COLORS, "JPEG"),
  "progressive.jpg": pillow(COLORS, "JPEG", progressive=True),
  "a.png": pillow(COLORS, "PNG"),
  "palette.png": pillow(COLORS, "PNG", "P"),
  "a.gif": pillow(COLORS, "GIF", "P"),
  "a.bmp": pillow(COLORS, "BMP"),
  "a.webp": pillow(COLORS, "WEBP"),
  "lossless.webp": pillow(COLORS, "WEBP", lossless=True),
  "a.avif": pillow(COLORS, "AVIF"),
  "a.jp2": pillow(COLORS, "JPEG2000"),
  "a.ppm": pillow(COLORS, "PPM"),
  "a.tif": tiffs.encoded(COLORS),
  "big.tif": tiffs.encoded(WIDE, big=True, tile=(16, 16), deflate=True),
  "lzw.tif": pillow(COLORS, "TIFF", compression="tiff_lzw"),
  "jpeg.tif": pillow(COLORS, "TIFF", compression="jpeg"),
}
MANY_BANDS = {
  "a.npy": numpy_(BANDS),
  "a.npz": numpy_(BANDS, packed=True),
  "a.tif": tiffs.encoded(BANDS),
  "planes.tif": tiffs.encoded(WIDE, planar=True, deflate=True, order=">"),
  "a.png": pillow(COLORS, "PNG"),
}
FLOATS = LABELS.astype(np.float32)
MASKS = {
  "a.png": pillow(LABELS, "PNG"),
  "bits.png": pillow(LABELS, "PNG", bits=2),
  "palette.png": pillow(LABELS, "PNG", "P"),
  "one.png": pillow(LABELS > 1, "PNG"),
  "wide.png": pillow(LABELS.astype(np.uint16), "PNG"),
  "colors.png": pillow(COLORS, "PNG"),
  "a.tif": tiffs.encoded(LABELS[..., None]),
  "float.tif": tiffs.encoded(FLOATS[..., None], deflate=True),
  "big.tif": tiffs.encoded(FLOATS[..., None], big=True, tile=(16, 16)),
  "one.tif": pillow(LABELS > 1, "TIFF", compression="group4"),
  "a.gif": pillow(LABELS, "GIF"),
  "a.bmp": pillow(LABELS, "BMP"),
  "a.webp": pillow(LABELS, "WEBP", lossless=True),
  "a.pgm": pillow(LABELS, "PPM"),
  "a.npy": numpy_(LABELS),
  "a.npz": numpy_(FLOATS, packed=True),
}


def refused(
  tmp_path: pathlib.Path,
  name: str,
  valid: bytes,
  read: Callable[[bytes, str], Any],
  *,
  seed: int = 0,
) -> int:
  """Return how many changed copies of a file were refused."""

  def from_disk(path: str) -> None:
    read(files.read_bytes(pathlib.Path(path)), path)

  outcome = hostile.check(
    from_disk,
    tmp_path / "in" / name,
    hostile.mutations(valid, seed=seed),
    memory=MEMORY,
  )
  return outcome.refused


@pytest.mark.parametrize("name", IMAGES)
def test_changed_images_are_read_or_refused(tmp_path, name):
  assert refused(tmp_path, name, IMAGES[name], decoding.decode_image)


@pytest.mark.slow  # 12 seconds; decoding reads the headers too
@pytest.mark.parametrize("name", [*IMAGES, "a.npy", "a.npz"])
def test_changed_headers_are_read_or_refused(tmp_path, name):
  data = IMAGES.get(name) or MANY_BANDS[name]
  assert refused(tmp_path, name, data, decoding.image_header)
  # From the file itself, as predict reads them.
  path = tmp_path / "in" / name

  def from_file(where: str) -> None:
    with open(where, "rb") as file:
      decoding.image_header(file, where)

  changed = hostile.mutations(data, seed=1)
  assert hostile.check(from_file, path, changed, memory=MEMORY).refused


@pytest.mark.parametrize("name", MANY_BANDS)
def test_changed_images_of_many_bands_are_read_or_refused(tmp_path, name):
  assert refused(tmp_path, name, MANY_BANDS[name], bands.read)


@pytest.mark.parametrize("name", MASKS)
def test_changed_masks_are_read_or_refused(tmp_path, name):
  assert refused(tmp_path, name, MASKS[name], decoding.decode_label)


def with_checksums(data: bytes) -> bytes:
  """Return a PNG whose chunks have the checksums of what they hold."""
  made, place = data[:8], 8
  while place + 8 <= len(data):
    length = int.from_bytes(data[place : place + 4], "big")
    body = data[place + 4 : place + 8 + length]
    check = zlib.crc32(body).to_bytes(4, "big")
    made += data[place : place + 4] + body + check
    place += 12 + length
  return made


@pytest.mark.parametrize("name", ["a.png", "bits.png", "palette.png"])
def test_changed_pngs_of_right_checksums_are_read_or_refused(tmp_path, name):
  def read(path: str) -> None:
    data = pathlib.Path(path).read_bytes()
    for decode in (decoding.decode_image, decoding.decode_label):
      decode(data, path)

  assert with_checksums(MASKS[name]) == MASKS[name]
  changed = map(with_checksums, hostile.mutations(MASKS[name]))
  path = tmp_path / "in" / name
  assert hostile.check(read, path, changed, memory=MEMORY).refused


class Trap:
  """Writes a file when it is unpickled."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def __reduce__(self):
    return (pathlib.Path.touch, (self.path,))


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_is_unpickled(tmp_path, packed):
  path = tmp_path / "trap"
  array = np.array([[[Trap(path)]]], dtype=object)
  data = numpy_(array, packed=packed)
  for read, raw in ((bands.read, data), (decoding.decode_label, data)):
    with pytest.raises(errors.InputError, match=r"a\.npy is not a"):
      read(raw, "a.npy")
  data = numpy_(array[0], packed=packed)
  with pytest.raises(errors.InputError, match=r"a\.npy is not a"):
    decoding.decode_label(data, "a.npy")
  assert not path.exists()


def test_what_a_library_says_is_cut(tmp_path):
  data = bytearray(numpy_(BANDS, packed=True))
  data[26:28] = b"\xff\x0f"  # the length of a name, which zipfile then prints
  with pytest.raises(errors.InputError, match=r"a\.npz is not a") as error:
    bands.read(bytes(data), "a.npz")
  assert len(str(error.value)) < 600


def test_a_false_size_takes_no_memory(tmp_path):
  array = np.zeros((1, 1, 1), np.uint8)
  png = bytearray(pillow(array[..., 0], "PNG"))
  png[16:24] = struct.pack(">II", 20_000, 50_000)
  for decode in (decoding.decode_image, decoding.decode_label):
    with pytest.raises(errors.InputError, match="cannot hold 50000x20000"):
      decode(with_checksums(bytes(png)), "a.png")
  header = numpy_(array)
  header = header.replace(b"(1, 1, 1), }      ", b"(99999, 99999, 9)}", 1)
  width = struct.pack("<HHII", 256, 4, 1, 1)
  false = struct.pack("<HHII", 256, 4, 1, 2**31 - 1)
  assert header != numpy_(array)
  for name, data in {
    "a.npy": header,
    "a.tif": tiffs.encoded(array).replace(width, false),
    "deflate.tif": tiffs.encoded(array, deflate=True).replace(width, false),
  }.items():
    outcome = hostile.check(
      lambda path: bands.read(pathlib.Path(path).read_bytes(), path),
      tmp_path / name / name,
      [data],
      memory=1 << 20,
    )
    assert outcome.refused == 1, name
