"""Masks of colors become labels, or a message that finds the color."""

import io

import cv2
import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import color_masks
from deeplax.data import decoding
from tests.data import tiffs

ROAD, CAR, NIGHT_CAR, VOID = 0x804080, 0x00008E, 0x000046, 0x000000
COLORS = color_masks.Colors(
  ((ROAD, 0), (CAR, 1), (NIGHT_CAR, 1), (VOID, 255)), ("road", "car")
)
LABELS = np.array([[0, 1, 1], [255, 0, 1]], np.uint8)
RGB = np.array(
  [
    [(128, 64, 128), (0, 0, 142), (0, 0, 70)],
    [(0, 0, 0), (128, 64, 128), (0, 0, 142)],
  ],
  np.uint8,
)


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
  data = io.BytesIO()
  picture.save(data, format=kind, **options)
  return data.getvalue()


def refused(data: bytes) -> str:
  with pytest.raises(errors.InputError) as error:
    decoding.decode_label(data, "a.png", COLORS)
  return str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_each_color_becomes_its_class(kind):
  data = encoded(Image.fromarray(RGB), kind)
  found = decoding.decode_label(data, "a", COLORS)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, LABELS)


def test_colors_are_packed_as_they_are_written():
  np.testing.assert_array_equal(
    color_masks.packed(RGB)[0], [ROAD, CAR, NIGHT_CAR]
  )
  assert color_masks.unpacked(ROAD) == (128, 64, 128)


def test_alpha_is_dropped_and_a_palette_is_applied():
  alpha = np.array([[0, 9, 255], [0, 128, 255]], np.uint8)
  four = Image.fromarray(np.dstack([RGB, alpha]))
  indices = Image.fromarray(np.array([[2, 0, 1], [3, 2, 0]], np.uint8))
  indices.putpalette([0, 0, 142, 0, 0, 70, 128, 64, 128, 0, 0, 0])
  for picture in (four, indices):
    data = encoded(picture)
    found = decoding.decode_label(data, "a.png", COLORS)
    np.testing.assert_array_equal(found, LABELS)


def test_sixteen_bits_are_read_by_their_upper_eight():
  wide = RGB[..., ::-1].astype(np.uint16) * 257
  data = cv2.imencode(".png", wide)[1].tobytes()
  np.testing.assert_array_equal(
    decoding.decode_label(data, "a.png", COLORS), LABELS
  )
  data = tiffs.encoded(RGB, photometric=2)
  np.testing.assert_array_equal(
    decoding.decode_label(data, "a.tif", COLORS), LABELS
  )


def test_a_black_and_white_mask_can_be_named_by_its_colors():
  both = color_masks.Colors(((0, 0), (0xFFFFFF, 1)), ("ground", "cat"))
  for mode in ("L", "1"):
    white = np.array([[0, 255, 0]], np.uint8)
    data = encoded(Image.fromarray(white).convert(mode))
    found = decoding.decode_label(data, "a.png", both)
    np.testing.assert_array_equal(found, [[0, 1, 0]])


def test_an_unlisted_color_is_told_with_its_place_and_the_nearest():
  wrong = RGB.copy()
  wrong[1, 1] = (130, 64, 128)
  text = refused(encoded(Image.fromarray(wrong)))
  assert text.startswith("a.png has a color that classes.json does not list")
  for part in (
    "(130, 64, 128) in row 1, column 1",
    "the nearest is (128, 64, 128), 'road'",
    '"ignore_color": [130, 64, 128]',
    "16.67% of its pixels are not listed)",
  ):
    assert part in text
  wrong[0, 2] = (3, 0, 0)
  text = refused(encoded(Image.fromarray(wrong)))
  assert "(3, 0, 0) in row 0, column 2; the nearest is (0, 0, 0), ign" in text
  assert "unlisted colors in all: 2" in text


def test_many_unlisted_colors_are_blended_edges():
  small = np.zeros((6, 6, 3), np.uint8)
  small[:, 3:] = (128, 64, 128)
  large = cv2.resize(small, (60, 60), interpolation=cv2.INTER_LINEAR)
  text = refused(encoded(Image.fromarray(large)))
  assert "edges where JPEG, a smooth resize" in text


def test_numbers_where_colors_are_expected_are_told():
  data = encoded(Image.fromarray(np.array([[0, 1, 2]], np.uint8)))
  text = refused(data)
  assert "(1, 1, 1) in row 0, column 1" in text
  assert 'leave "colors" out of classes.json' in text


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_colors_that_compression_has_changed_are_refused(kind):
  text = refused(encoded(Image.fromarray(RGB), kind))
  assert "its compression changes labels" in text


def test_a_broken_mask_of_colors_is_refused():
  noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
  data = encoded(Image.fromarray(noise))
  assert "a.png is not a whole picture" in refused(data[: len(data) // 2])


def test_colors_that_nobody_has_named_are_refused_with_the_cure():
  with pytest.raises(errors.InputError) as error:
    decoding.decode_label(encoded(Image.fromarray(RGB)), "a.png")
  text = str(error.value)
  assert (
    "3 channels (mode RGB) and holds colors ((0, 0, 142), (128, 64, 128)"
    in text
  )
  assert 'in classes.json, "colors": {"CLASS": [128, 64, 128]' in text
