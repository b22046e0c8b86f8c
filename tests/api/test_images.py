"""Arrays, files and Pillow's pictures are one image, or are refused."""

import io

import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.api import images
from deeplax.data import decoding

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def _png(picture: Image.Image, **keywords) -> bytes:
  file = io.BytesIO()
  picture.save(file, format="PNG", **keywords)
  return file.getvalue()


def test_an_array_and_its_file_are_the_same(tmp_path):
  path = tmp_path / "a.png"
  Image.fromarray(RGB).save(path)
  for given in (RGB, path, str(path), Image.fromarray(RGB), Image.open(path)):
    np.testing.assert_array_equal(images.read(given, None), RGB)
    assert images.size(given) == (5, 7)


GRAY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
KINDS = {
  "gray": Image.fromarray(GRAY),
  "gray of 16 bits": Image.fromarray(GRAY.astype(np.uint16) * 257),
  "alpha": Image.fromarray(np.dstack([RGB, GRAY])),
  "palette": Image.fromarray(RGB).quantize(4),
  "one bit": Image.fromarray(GRAY > 99),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_pillow_is_what_its_file_is_decoded_to(kind):
  expected = decoding.decode_image(_png(KINDS[kind]), "a.png")
  assert expected.any()
  np.testing.assert_array_equal(images.read(KINDS[kind], None), expected)


def test_a_picture_on_its_side_is_turned_upright():
  exif = Image.Exif()
  exif[0x0112] = 6  # shown a quarter turn clockwise
  file = io.BytesIO()
  Image.fromarray(RGB).save(file, format="TIFF", exif=exif)
  read = images.read(Image.open(file), None)
  np.testing.assert_array_equal(read, np.rot90(RGB, k=-1))
  decoded = decoding.decode_image(file.getvalue(), "a.tif")
  np.testing.assert_array_equal(read, decoded)


def test_bands_are_read_as_they_are(tmp_path):
  bands = RNG.normal(size=(5, 7, 4)).astype(np.float32)
  np.save(tmp_path / "a.npy", bands)
  found = images.read(tmp_path / "a.npy", (3, 1))
  np.testing.assert_array_equal(found, bands[..., [3, 1]])
  np.testing.assert_array_equal(images.read(found, (3, 1)), found)


@pytest.mark.parametrize(
  "given, channels, told",
  [
    (RGB / 255.0, None, "float64 [5, 7, 3]: give RGB [h, w, 3] of uint8"),
    (RGB[None], None, "uint8 [1, 5, 7, 3]"),
    (RGB[..., 0], None, "uint8 [5, 7]"),
    (RGB[..., :2], None, "uint8 [5, 7, 2]"),
    (RGB[:0], None, "uint8 [0, 7, 3]"),
    ("nowhere/a.jpg", None, "nowhere/a.jpg cannot be read (No such file"),
    (RGB, (0, 1, 2, 3), "[h, w, 4], the bands (0, 1, 2, 3)"),
    (Image.fromarray(RGB), (0, 1, 2, 3), "an image is Image"),
    (Image.new("F", (7, 5)), None, "mode F"),
  ],
)
def test_what_is_no_image_is_refused(given, channels, told):
  with pytest.raises(errors.InputError) as error:
    images.read(given, channels)
  assert told in str(error.value)
