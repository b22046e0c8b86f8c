import io
import itertools

import cv2
import numpy as np
from PIL import Image
from PIL import ImageOps
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


GREY = np.asarray(rgb())[..., 0]
COLOURS = np.asarray(rgb())
ALPHA = np.tile(np.linspace(0, 255, 12).astype(np.uint8), (8, 1))
PALETTE = rgb().quantize(32)
PAINTED = np.asarray(PALETTE.convert("RGB"))
TWICE = PALETTE.transpose(Image.Transpose.ROTATE_180)
INKS = np.asarray(rgb().convert("CMYK"))


def with_alpha() -> Image.Image:
  return Image.fromarray(np.dstack([COLOURS, ALPHA]))


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
  return encoded(Image.fromarray(GREY > 99), kind, **options)


KINDS = {
  "grey PNG": (encoded(Image.fromarray(GREY)), GREY),
  "grey JPEG": (encoded(Image.fromarray(GREY), "JPEG", quality=100), None),
  "grey TIFF": (tiffs.encoded(GREY[..., None]), GREY),
  "grey TIFF, white is 0": (
    tiffs.encoded(GREY[..., None], photometric=0),
    255 - GREY,
  ),
  "grey and alpha PNG": (
    encoded(with_alpha().getchannel(0).convert("LA")),
    GREY,
  ),
  "grey and alpha TIFF": (
    tiffs.encoded(np.dstack([GREY, ALPHA]), extra=[2]),
    GREY,
  ),
  "grey PNG, one transparent": (
    encoded(Image.fromarray(GREY), transparency=int(GREY[0, 0])),
    GREY,
  ),
  "alpha PNG": (encoded(with_alpha()), COLOURS),
  "alpha WebP": (
    encoded(with_alpha(), "WEBP", lossless=True, exact=True),
    COLOURS,
  ),
  "alpha TIFF": (encoded(with_alpha(), "TIFF"), COLOURS),
  "colour TIFF": (encoded(rgb(), "TIFF", compression="tiff_lzw"), COLOURS),
  "colour TIFF by planes": (tiffs.encoded(COLOURS, planar=True), COLOURS),
  "colour TIFF, JPEG inside": (
    encoded(rgb(), "TIFF", compression="jpeg", quality=100),
    None,
  ),
  "BMP": (encoded(rgb(), "BMP"), COLOURS),
  "WebP": (encoded(rgb(), "WEBP", lossless=True), COLOURS),
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
    COLOURS,
  ),
  "TIFF, first of two": (
    encoded(rgb(), "TIFF", save_all=True, append_images=[TWICE]),
    COLOURS,
  ),
  "1 bit PNG": (black_and_white("PNG"), (GREY > 99) * 255),
  "1 bit BMP": (black_and_white("BMP"), (GREY > 99) * 255),
  "1 bit TIFF": (
    black_and_white("TIFF", compression="group4"),
    (GREY > 99) * 255,
  ),
  "16 bit grey PNG": (png16(GREY), GREY),
  "16 bit colour PNG": (png16(COLOURS), COLOURS),
  "16 bit alpha PNG": (png16(np.dstack([COLOURS, ALPHA])), COLOURS),
  "16 bit grey TIFF": (tiff16(GREY[..., None]), GREY),
  "16 bit colour TIFF": (tiff16(COLOURS), COLOURS),
  "16 bit colour TIFF by planes": (tiff16(COLOURS, planar=True), COLOURS),
  "16 bit alpha TIFF": (
    tiff16(np.dstack([COLOURS, ALPHA]), extra=[2]),
    COLOURS,
  ),
  "CMYK TIFF": (encoded(rgb().convert("CMYK"), "TIFF"), COLOURS),
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
    assert decoding.image_size(data, "x") == ((8, 12), False), kind


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
  # Luma and chroma are those of the inks, as if these were colours; black is
  # stored inverted.
  ramp = np.linspace(0, 255, 16).astype(np.uint8)
  inks = np.stack(np.broadcast_arrays(ramp, ramp[:, None], 90, 40), axis=-1)
  colours = Image.fromarray(inks[..., :3].astype(np.uint8))
  stored = np.dstack([np.asarray(colours.convert("YCbCr")), 255 - inks[..., 3]])
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
    assert decoding.image_size(data, "x") == (expected.shape[:2], turned), case


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_images_that_would_be_dark_are_refused(kind, bits):
  image = COLOURS.astype(np.uint16) << (bits - 8)
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
  data = tiffs.encoded(COLOURS.astype(dtype))
  with pytest.raises(
    errors.InputError, match=r"x\.tif.* type .*data\.channels"
  ):
    decoding.decode_image(data, "x.tif")


def test_bands_that_are_no_colours_are_refused():
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
