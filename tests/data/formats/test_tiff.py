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
from tests.models import networks

LAYOUTS: list[dict[str, Any]] = [
  dict(planar=planar, tile=tile, deflate=deflate, order=order, big=big)
  for planar, tile, deflate, order, big in itertools.product(
    (False, True), (None, (16, 32)), (False, True), "<>", (False, True)
  )
]
DTYPES = ("u1", "u2", "i2", "u4", "f4", "f8")
BANDS = (1, 2, 5, 13)
COMPRESSIONS = (
  *("packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"),
  *("lzma", "zstd"),
)


def numbers(dtype, bands, size=(23, 37)):
  rng = np.random.default_rng(0)
  return rng.integers(0, 250, (*size, bands)).astype(dtype)


def read(data):
  return tiff.read(data, tiff.layout(io.BytesIO(data)))


# Each type meets each layout, each layout with some type each number of bands;
# the four turns together are all of them.
@pytest.mark.parametrize(
  "turn", [0, *(pytest.param(turn, marks=networks.SLOW) for turn in (1, 2, 3))]
)
def test_every_layout_is_read_as_it_was_written(turn):
  for (d, dtype), (n, settings) in itertools.product(
    enumerate(DTYPES), enumerate(LAYOUTS)
  ):
    bands = BANDS[(n + n // 4 + n // 16 + d + turn) % 4]
    image = numbers(dtype, bands)
    data = tiffs.encoded(image, **settings)
    found = read(data)
    case = f"{dtype}, {bands} bands, {settings}"
    assert found.dtype == image.dtype and found.dtype.isnative, case
    np.testing.assert_array_equal(found, image, err_msg=case)


def test_what_pillow_compresses_is_read():
  for compression, predictor in itertools.product(COMPRESSIONS, (1, 2)):
    image = numbers("u1", 3)
    data = io.BytesIO()
    Image.fromarray(image).save(
      data, "TIFF", compression=compression, tiffinfo={317: predictor}
    )
    np.testing.assert_array_equal(
      read(data.getvalue()), image, f"{compression} {predictor}"
    )


def test_what_opencv_compresses_is_read():
  for compression, (dtype, predictor) in itertools.product(
    (5, 8), (("u2", 1), ("u2", 2), ("f4", 2), ("f4", 3))
  ):
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
    np.testing.assert_array_equal(
      read(data.tobytes()), image, f"{dtype} {layout}"
    )


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


def test_orientations_are_those_of_pillow():
  for orientation in range(1, 9):
    image = numbers("u1", 3)
    exif = Image.Exif()
    exif[274] = orientation
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", exif=exif)
    with Image.open(data) as picture:
      expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(
      tiff.upright(image, orientation), expected, f"{orientation}"
    )
