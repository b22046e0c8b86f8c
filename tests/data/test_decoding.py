import io
import itertools
import re
import struct
import zlib

import cv2
import numpy as np
from PIL import Image
from PIL import ImageOps
import PIL.Image
import pytest

from deeplax import errors
from deeplax.data import decoding
from deeplax.data import label_tables
from deeplax.data import spec
from tests.data import tiffs
from tests.data import trees


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
  data = io.BytesIO()
  picture.save(data, kind, **options)
  return data.getvalue()


def rgb() -> Image.Image:
  rng = np.random.default_rng(0)
  return Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))


GRAY = np.asarray(rgb())[..., 0]
COLORS = np.asarray(rgb())
ALPHA = np.tile(np.linspace(0, 255, 12).astype(np.uint8), (8, 1))
PALETTE = rgb().quantize(32)
PAINTED = np.asarray(PALETTE.convert("RGB"))
TWICE = PALETTE.transpose(Image.Transpose.ROTATE_180)
INKS = np.asarray(rgb().convert("CMYK"))


def with_alpha() -> Image.Image:
  return Image.fromarray(np.dstack([COLORS, ALPHA]))


def png16(image: np.ndarray) -> bytes:
  """Return a PNG of 16 bit, in whose lower 8 bits there is something else."""
  wide = (image.astype(np.uint16) << 8) + 200
  if wide.ndim == 3:
    wide = wide[..., [2, 1, 0, *range(3, wide.shape[-1])]]
  return cv2.imencode(".png", wide)[1].tobytes()


def tiff16(image: np.ndarray, **options) -> bytes:
  return tiffs.encoded((image.astype(np.uint16) << 8) + 200, **options)


def inks_jpeg(inks: np.ndarray, *, transform: int) -> bytes:
  """Return a JPEG of four inks, inverted as Adobe's programs write them.

  Args:
    inks: As Pillow shows them.
    transform: 0 for cyan, magenta, yellow and black; 2 if the first three are
      a luma and two chromas.
  """
  data = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
  place = data.index(b"Adobe") + 11
  assert data[place] == 0
  return data[:place] + bytes([transform]) + data[place + 1 :]


def black_and_white(kind: str, **options) -> bytes:
  return encoded(Image.fromarray(GRAY > 99), kind, **options)


KINDS = {
  "gray PNG": (encoded(Image.fromarray(GRAY)), GRAY),
  "gray JPEG": (encoded(Image.fromarray(GRAY), "JPEG", quality=100), None),
  "gray TIFF": (tiffs.encoded(GRAY[..., None]), GRAY),
  "gray TIFF, white is 0": (
    tiffs.encoded(GRAY[..., None], photometric=0),
    255 - GRAY,
  ),
  "gray and alpha PNG": (
    encoded(with_alpha().getchannel(0).convert("LA")),
    GRAY,
  ),
  "gray and alpha TIFF": (
    tiffs.encoded(np.dstack([GRAY, ALPHA]), extra=[2]),
    GRAY,
  ),
  "gray PNG, one transparent": (
    encoded(Image.fromarray(GRAY), transparency=int(GRAY[0, 0])),
    GRAY,
  ),
  "alpha PNG": (encoded(with_alpha()), COLORS),
  "alpha WebP": (
    encoded(with_alpha(), "WEBP", lossless=True, exact=True),
    COLORS,
  ),
  "alpha TIFF": (encoded(with_alpha(), "TIFF"), COLORS),
  "color TIFF": (encoded(rgb(), "TIFF", compression="tiff_lzw"), COLORS),
  "color TIFF by planes": (tiffs.encoded(COLORS, planar=True), COLORS),
  "color TIFF, JPEG inside": (
    encoded(rgb(), "TIFF", compression="jpeg", quality=100),
    None,
  ),
  "BMP": (encoded(rgb(), "BMP"), COLORS),
  "WebP": (encoded(rgb(), "WEBP", lossless=True), COLORS),
  "JPEG": (encoded(rgb(), "JPEG", quality=90), None),
  "progressive JPEG": (
    encoded(rgb(), "JPEG", quality=90, progressive=True),
    None,
  ),
  "palette PNG": (encoded(PALETTE), PAINTED),
  "palette TIFF": (encoded(PALETTE, "TIFF"), PAINTED),
  "palette BMP": (encoded(PALETTE, "BMP"), PAINTED),
  "palette PNG, one transparent": (encoded(PALETTE, transparency=3), PAINTED),
  "palette PNG, many transparent": (
    encoded(PALETTE, transparency=bytes(range(0, 256, 8))),
    PAINTED,
  ),
  "GIF": (encoded(PALETTE, "GIF"), PAINTED),
  "GIF, one transparent": (encoded(PALETTE, "GIF", transparency=3), PAINTED),
  "GIF, first of two": (
    encoded(PALETTE, "GIF", save_all=True, append_images=[TWICE]),
    PAINTED,
  ),
  "WebP, first of two": (
    encoded(
      rgb(),
      "WEBP",
      save_all=True,
      append_images=[TWICE.convert("RGB")],
      lossless=True,
    ),
    COLORS,
  ),
  "TIFF, first of two": (
    encoded(rgb(), "TIFF", save_all=True, append_images=[TWICE]),
    COLORS,
  ),
  "1 bit PNG": (black_and_white("PNG"), (GRAY > 99) * 255),
  "1 bit BMP": (black_and_white("BMP"), (GRAY > 99) * 255),
  "1 bit TIFF": (
    black_and_white("TIFF", compression="group4"),
    (GRAY > 99) * 255,
  ),
  "16 bit gray PNG": (png16(GRAY), GRAY),
  "16 bit color PNG": (png16(COLORS), COLORS),
  "16 bit alpha PNG": (png16(np.dstack([COLORS, ALPHA])), COLORS),
  "16 bit gray TIFF": (tiff16(GRAY[..., None]), GRAY),
  "16 bit color TIFF": (tiff16(COLORS), COLORS),
  "16 bit color TIFF by planes": (tiff16(COLORS, planar=True), COLORS),
  "16 bit alpha TIFF": (
    tiff16(np.dstack([COLORS, ALPHA]), extra=[2]),
    COLORS,
  ),
  "CMYK TIFF": (encoded(rgb().convert("CMYK"), "TIFF"), COLORS),
}


def test_images_of_every_kind_become_rgb_as_stored():
  for kind, (data, expected) in KINDS.items():
    if expected is None:  # what Pillow makes of the compressed picture
      expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    elif expected.ndim == 2:
      expected = np.repeat(expected[..., None], 3, axis=-1)
    image = decoding.decode_image(data, kind)
    assert image.dtype == np.uint8 and image.flags.c_contiguous, kind
    np.testing.assert_array_equal(image, expected, kind)
    assert decoding.image_header(data, "x") == ((8, 12), 1), kind


@pytest.mark.parametrize("white", [1, 15, 100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_a_ppm_s_own_white_is_white(kind, white):
  bands = 3 if kind == "P6" else 1
  values = np.array([[0, white // 2, white]]).repeat(bands, axis=-1)
  head = f"{kind}\n# by a camera\n3 1\n{white}\n".encode()
  numbers = values.astype(np.uint8 if white < 256 else ">u2")
  image = decoding.decode_image(head + numbers.tobytes(), "a.ppm")
  expected = values[0, ::bands] / white * 255
  np.testing.assert_allclose(image[0, :, 0], expected, atol=1)
  assert image.shape == (1, 3, 3)


def test_a_jpeg_of_four_inks_is_what_pillow_makes_of_it():
  for transform in (0, 2):
    data = inks_jpeg(INKS, transform=transform)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    # A product of two inks, rounded in two ways.
    np.testing.assert_allclose(
      decoding.decode_image(data, "x").astype(int), expected.astype(int), atol=1
    )


def test_a_jpeg_of_luma_chroma_and_black_is_what_was_painted():
  # Luma and chroma are those of the inks, as if these were colors; black is
  # stored inverted.
  ramp = np.linspace(0, 255, 16).astype(np.uint8)
  inks = np.stack(np.broadcast_arrays(ramp, ramp[:, None], 90, 40), axis=-1)
  colors = Image.fromarray(inks[..., :3].astype(np.uint8))
  stored = np.dstack([np.asarray(colors.convert("YCbCr")), 255 - inks[..., 3]])
  data = inks_jpeg((255 - stored).astype(np.uint8), transform=2)
  paper = 255.0 - inks.astype(float)
  expected = paper[..., :3] * paper[..., 3:] / 255
  image = decoding.decode_image(data, "x")
  # The compression of 100 and three roundings; 4 was seen.
  np.testing.assert_allclose(image, expected, atol=5)


def test_exif_orientations_turn_the_image_upright():
  for kind, orientation in itertools.product(
    ("JPEG", "PNG", "WEBP", "TIFF"), range(1, 9)
  ):
    case = f"{kind} {orientation}"
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(rgb(), kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as picture:
      expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(
      decoding.decode_image(data, case), expected, case
    )
    turned = orientation >= 5
    header = decoding.image_header(data, "x")
    assert header.size == expected.shape[:2], case
    assert (header.orientation, header.exchanges) == (orientation, turned), case


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_images_that_would_be_dark_are_refused(kind, bits):
  image = COLORS.astype(np.uint16) << (bits - 8)
  data = cv2.imencode(".png", image)[1].tobytes()
  if kind == "TIFF":
    data = tiffs.encoded(image)
  with pytest.raises(errors.InputError) as error:
    decoding.decode_image(data, "x.png")
  assert f"x.png is 16 bit and its largest number is {image.max()}" in str(
    error.value
  )
  assert "--config.data.channels" in str(error.value)


def test_a_black_image_of_16_bit_is_black():
  data = tiffs.encoded(np.zeros((3, 4, 3), np.uint16))
  assert not decoding.decode_image(data, "x").any()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u4"])
def test_numbers_without_black_and_white_are_refused(dtype):
  data = tiffs.encoded(COLORS.astype(dtype))
  with pytest.raises(
    errors.InputError, match=r"x\.tif.* type .*data\.channels"
  ):
    decoding.decode_image(data, "x.tif")


def test_bands_that_are_no_colors_are_refused():
  data = tiffs.encoded(np.zeros((3, 4, 5), np.uint8), photometric=1)
  with pytest.raises(errors.InputError, match=r"has 5 bands.*data\.channels"):
    decoding.decode_image(data, "x.tif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("keep", [0.0, 0.6])
def test_cut_off_image_is_an_error_that_names_it(kind, keep):
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)
  data = encoded(Image.fromarray(noise), kind)
  with pytest.raises(errors.InputError, match=r"a\.jpg is not a whole"):
    decoding.decode_image(data[: int(keep * len(data))], "a.jpg")


def test_masks_keep_their_numbers():
  labels = trees.labels(0, 3, 20, 255)
  plain = encoded(Image.fromarray(labels))
  colored = Image.fromarray(labels)
  colored.putpalette([v for c in spec.color_map(256) for v in c])
  wide = encoded(Image.fromarray(labels.astype(np.uint16) + 300))
  one_bit = encoded(Image.fromarray(labels > 0))
  np.testing.assert_array_equal(decoding.decode_label(plain, "x"), labels)
  np.testing.assert_array_equal(
    decoding.decode_label(encoded(colored), "x"), labels
  )
  np.testing.assert_array_equal(
    decoding.decode_label(wide, "x"), labels + 300.0
  )
  np.testing.assert_array_equal(decoding.decode_label(one_bit, "x"), labels > 0)
  assert decoding.decode_label(one_bit, "x").dtype == np.uint8


def test_numbers_without_a_class_become_illegal_not_ignored():
  table = label_tables.plain(3, ignore_label=7)
  raw = np.array([[0, 2, 7, 3, 255]])
  for dtype in (np.uint8, np.uint16, np.int32):
    np.testing.assert_array_equal(
      label_tables.apply(raw.astype(dtype), table), [[0, 2, 255, 254, 254]]
    )
  np.testing.assert_array_equal(
    label_tables.apply(np.array([[-1, 256, 65535]]), table), 254
  )


def png(labels: np.ndarray, bits: int, kind: int, interlaced=False) -> bytes:
  """Return a PNG of few bits: kind 0 is gray, 3 a palette."""

  def chunk(tag: bytes, body: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(tag + body))
    return struct.pack(">I", len(body)) + tag + body + check

  passes = [(0, 0, 1, 1)]
  if interlaced:  # Adam7, PNG's only one
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)]
    passes += [(0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
  rows = b""
  for left, top, across, down in passes:
    for row in labels[top::down, left::across]:
      parts = row[:, None] >> np.arange(bits - 1, -1, -1) & 1
      rows += b"\0" + np.packbits(parts.ravel()).tobytes()
  size = labels.shape[::-1]
  head = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, interlaced)
  colors = bytes(v for c in spec.color_map(2**bits) for v in c)
  palette = chunk(b"PLTE", colors) if kind == 3 else b""
  body = chunk(b"IHDR", head) + palette + chunk(b"IDAT", zlib.compress(rows))
  return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def tiff_of_few_bits(labels: np.ndarray, bits: int, photometric: int) -> bytes:
  parts = labels[..., None] >> np.arange(bits - 1, -1, -1) & 1
  rows = np.packbits(parts.reshape(len(labels), -1), axis=1)
  data = tiffs.encoded(rows[..., None], photometric=photometric, rows=99)
  # It is half as wide, or less, in bytes: the tags say how many numbers.
  for tag, old, new in (
    (256, rows.shape[1], labels.shape[1]),
    (258, 8, bits),
  ):
    for code in ("<HHIHxx", "<HHII"):
      field = struct.pack(code, tag, 3 if "x" in code else 4, 1, old)
      data = data.replace(field, struct.pack(code, tag, field[2], 1, new))
  return data


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", ["PNG", "palette PNG", "interlaced", "TIFF"])
def test_masks_of_few_bits_keep_their_numbers(bits, kind):
  labels = np.arange(13 * 12).reshape(13, 12).astype(np.uint8) % 2**bits
  data = {
    "PNG": lambda: png(labels, bits, 0),
    "palette PNG": lambda: png(labels, bits, 3),
    "interlaced": lambda: png(labels, bits, 0, interlaced=True),
    "TIFF": lambda: tiff_of_few_bits(labels, bits, 1),
  }[kind]()
  found = decoding.decode_label(data, "x")
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("most", [3, 15, 255, 300, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_portable_graymaps_keep_their_numbers(most, plain):
  labels = np.arange(12).reshape(3, 4).astype(np.uint16) * (most // 12 or 1)
  labels = np.minimum(labels, most).astype(np.uint16)
  data = b"P%d 4 3 %d\n" % (2 if plain else 5, most)
  if plain:
    data += b" ".join(b"%d" % v for v in labels.ravel().tolist())
  else:
    data += labels.astype("u1" if most < 256 else ">u2").tobytes()
  np.testing.assert_array_equal(decoding.decode_label(data, "x"), labels)


WIDE = ["u2", "i2", "u4", "i4", "u8", "i8", "i1", "f2", "f4", "f8"]


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("kind", ["TIFF", "Deflate", "npy"])
def test_masks_of_wide_numbers_are_read(dtype, kind):
  labels = trees.labels(0, 3, 20, 100)
  wide = labels.astype(dtype)
  data = io.BytesIO()
  np.save(data, wide)
  if kind == "npy":
    data = data.getvalue()
  else:
    data = tiffs.encoded(wide[..., None], deflate=kind == "Deflate")
  found = decoding.decode_label(data, "x")
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("void", [-9999, np.nan, -np.inf, 65535, 0.5])
def test_what_is_no_number_of_8_bit_stays_as_it_is(void):
  wide = np.where(np.eye(9, dtype=bool), void, 3.0).astype(np.float32)
  found = decoding.decode_label(tiffs.encoded(wide[..., None]), "x")
  np.testing.assert_array_equal(found, wide)
  labels = label_tables.apply(found, label_tables.plain(4))
  np.testing.assert_array_equal(labels, np.where(np.eye(9) > 0, 254, 3))


def test_a_signed_byte_is_not_taken_for_255():
  labels = trees.labels(0, -1, 3, dtype=np.int8)
  found = decoding.decode_label(tiffs.encoded(labels[..., None]), "x")
  np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "JPEG"])
def test_masks_whose_compression_loses_something_are_refused(kind):
  picture = Image.fromarray(trees.labels(0, 40, 200))
  options = {"compression": "jpeg"} if kind == "TIFF" else {}
  data = encoded(picture, kind, **options)
  with pytest.raises(errors.InputError, match=r"x\.tif is .*near every edge"):
    decoding.decode_label(data, "x.tif")


def grays_as_colors(kind: str, labels: np.ndarray) -> tuple[str, bytes]:
  """Return the name and bytes of a mask whose channels are all alike."""
  channels = np.repeat(labels[..., None], 3, axis=-1)
  if kind == "16 bit PNG":
    channels = channels.astype(np.uint16)
    return "a.png", cv2.imencode(".png", channels)[1].tobytes()
  if kind == "16 bit TIFF":
    return "a.tif", tiffs.encoded(channels.astype(np.uint16))
  if kind == "gray and alpha PNG":
    return "a.png", encoded(Image.fromarray(labels).convert("LA"))
  if kind == "WebP":
    picture = Image.fromarray(channels)
    return "a.webp", encoded(picture, "WEBP", lossless=True)
  return "a.png", encoded(Image.fromarray(channels))


@pytest.mark.parametrize(
  "kind",
  ["PNG", "gray and alpha PNG", "16 bit PNG", "16 bit TIFF", "WebP"],
)
def test_the_advice_for_channels_that_are_alike_works(
  kind, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  labels = trees.labels(0, 3, 20, 255)
  file, data = grays_as_colors(kind, labels)
  path = tmp_path / file
  path.write_bytes(data)
  with pytest.raises(errors.InputError, match="all three alike") as error:
    decoding.decode_label(data, file)
  code = str(error.value).partition("keep one of them, ")[2]
  code, _, _ = code.partition(", and take this file out")
  exec(code, {"file": file, "PIL": PIL, "cv2": cv2})
  (path,) = [p for p in tmp_path.iterdir() if kind != "WebP" or p != path]
  found = decoding.decode_label(path.read_bytes(), path.name)
  np.testing.assert_array_equal(found, labels)


def test_colors_of_16_bit_are_named_as_they_are():
  image = np.zeros((4, 5, 3), np.uint16)
  image[..., 0] = 3  # the blue of OpenCV
  data = cv2.imencode(".png", image)[1].tobytes()
  with pytest.raises(errors.InputError, match=r"colors \(\(0, 0, 3\)\)"):
    decoding.decode_label(data, "x")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_of_colors_is_refused_with_its_first_colors(dtype):
  top = int(np.iinfo(dtype).max)
  few = [(top, 0, 0), (0, 0, top), (0, top, 1), (7, 8, 9), (7, 8, 9)]
  many = [(i, 0, 1) for i in range(20)]
  mask = np.array([few * 4, many], dtype)
  data = cv2.imencode(".png", mask[..., ::-1])[1].tobytes()
  shown = f"(7, 8, 9), (0, 0, {top}), (0, {top}, 1), ({top}, 0, 0), (0, 0, 1), "
  shown += ", ".join(f"({i}, 0, 1)" for i in range(1, 12)) + ", ..."
  with pytest.raises(errors.InputError, match=re.escape(f"({shown})")):
    decoding.decode_label(data, "a.png")
