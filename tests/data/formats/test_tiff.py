import io
import itertools
from typing import Any

import cv2
import numpy as np
from PIL import Image
from PIL import ImageOps
import pytest

from deeplax.data.formats import tiff
from tests.data import tiffs

LAYOUTS: list[dict[str, Any]] = [
  dict(planar=planar, tile=tile, deflate=deflate, order=order, big=big)
  for planar, tile, deflate, order, big in itertools.product(
    (False, True), (None, (16, 32)), (False, True), "<>", (False, True)
  )
]


def numbers(dtype, bands, size=(23, 37)):
  rng = np.random.default_rng(0)
  return rng.integers(0, 250, (*size, bands)).astype(dtype)


def read(data):
  return tiff.read(data, tiff.layout(io.BytesIO(data)))


@pytest.mark.parametrize("bands", [1, 2, 5, 13])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8"])
def test_every_layout_is_read_as_it_was_written(dtype, bands):
  image = numbers(dtype, bands)
  for settings in LAYOUTS:
    data = tiffs.encoded(image, **settings)
    found = read(data)
    assert found.dtype == image.dtype and found.dtype.isnative, settings
    np.testing.assert_array_equal(found, image, err_msg=str(settings))


@pytest.mark.parametrize(
  "compression",
  [
    "packbits",
    "tiff_lzw",
    "tiff_adobe_deflate",
    "tiff_deflate",
    "lzma",
    "zstd",
  ],
)
@pytest.mark.parametrize("predictor", [1, 2])
def test_what_pillow_compresses_is_read(compression, predictor):
  image = numbers("u1", 3)
  data = io.BytesIO()
  Image.fromarray(image).save(
    data, "TIFF", compression=compression, tiffinfo={317: predictor}
  )
  np.testing.assert_array_equal(read(data.getvalue()), image)


@pytest.mark.parametrize("compression", [5, 8])
@pytest.mark.parametrize(
  ("dtype", "predictor"), [("u2", 1), ("u2", 2), ("f4", 2), ("f4", 3)]
)
def test_what_opencv_compresses_is_read(compression, dtype, predictor):
  image = numbers(dtype, 3) * np.dtype(dtype).type(7.3)
  _, data = cv2.imencode(
    ".tiff",
    image[..., ::-1],
    [
      *(cv2.IMWRITE_TIFF_COMPRESSION, compression),
      *(cv2.IMWRITE_TIFF_PREDICTOR, predictor),
    ],
  )
  layout = tiff.layout(io.BytesIO(data.tobytes()))
  assert (layout.compression, layout.predictor) == (compression, predictor)
  np.testing.assert_array_equal(read(data.tobytes()), image)


@pytest.mark.parametrize("deflate", [False, True])
def test_a_file_cut_off_anywhere_is_an_error(deflate):
  data = tiffs.encoded(numbers("u2", 5, (9, 8)), deflate=deflate)
  for length in (*range(0, len(data) - 4, 9), len(data) - 5):
    with pytest.raises(ValueError, match=r"whole|cut off|no pixels"):
      read(data[:length])


def test_one_bit_and_jpeg_are_not_read_here():
  for picture, options in (
    (Image.new("1", (9, 9)), {}),
    (Image.new("RGB", (16, 16)), {"compression": "jpeg"}),
  ):
    data = io.BytesIO()
    picture.save(data, "TIFF", **options)
    data.seek(0)
    assert not tiff.layout(data).readable


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(orientation):
  image = numbers("u1", 3)
  exif = Image.Exif()
  exif[274] = orientation
  data = io.BytesIO()
  Image.fromarray(image).save(data, "PNG", exif=exif)
  with Image.open(data) as picture:
    expected = np.asarray(ImageOps.exif_transpose(picture))
  np.testing.assert_array_equal(tiff.upright(image, orientation), expected)
