"""Palette files, overlays and strips."""

import numpy as np
from PIL import Image
import pytest

from deeplax.reports import pictures

PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def _labels(height=6, width=9, k=3):
  return (
    np.random.default_rng(0).integers(0, k, (height, width)).astype(np.uint8)
  )


def test_an_index_png_keeps_indices_and_shows_colors(tmp_path):
  labels = _labels()
  labels[0, 0] = 255
  pictures.index_png(tmp_path / "mask.png", labels, PALETTE)
  with Image.open(tmp_path / "mask.png") as picture:
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.asarray(picture), labels)
    colors = np.asarray(picture.convert("RGB"))
  np.testing.assert_array_equal(colors, pictures.colors(labels, PALETTE))
  assert tuple(colors[0, 0]) == pictures.IGNORE_COLOR


def test_more_than_256_classes_become_a_16_bit_png(tmp_path):
  labels = np.arange(300, dtype=np.uint16).reshape(15, 20)
  pictures.index_png(tmp_path / "mask.png", labels, PALETTE)
  with Image.open(tmp_path / "mask.png") as picture:
    np.testing.assert_array_equal(np.asarray(picture), labels)


def test_a_black_class_leaves_the_image_as_it_is():
  image = np.full((6, 9, 3), 200, np.uint8)
  labels = _labels()
  mixed = pictures.overlay(image, labels, PALETTE, opacity=0.5)
  assert mixed.dtype == np.uint8 and mixed.shape == image.shape
  assert (mixed[labels == 0] == 200).all()
  assert (mixed[labels == 1] == (164, 100, 100)).all()


def test_classes_beyond_the_palette_are_gray():
  colors = pictures.colors(np.array([[7]]), PALETTE)
  assert tuple(colors[0, 0]) == (128, 128, 128)


def test_bytes_of_three_bands_are_shown_as_they_are():
  image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
  assert pictures.as_rgb(image) is image


@pytest.mark.parametrize(
  ("bands", "dtype", "shown"),
  [
    (1, np.uint8, (0, 0, 0)),
    (2, np.uint16, (0, 0, 0)),
    (3, np.int16, (0, 1, 2)),
    (7, np.uint8, (0, 1, 2)),
    (4, np.float32, (0, 1, 2)),
  ],
)
def test_other_bands_are_stretched_from_2_to_98_percent(bands, dtype, shown):
  # 0 to 100 times 2: the 2nd percentile is 4 and the 98th 196.
  values = np.arange(101).reshape(1, 101, 1) * 2
  image = np.concatenate([values + b for b in range(bands)], -1).astype(dtype)
  found = pictures.as_rgb(image)
  assert found.dtype == np.uint8 and found.shape == (1, 101, 3)
  expected = np.clip(np.rint((values[0, :, 0] - 4) / 192 * 255), 0, 255)
  for channel, band in enumerate(shown):
    np.testing.assert_array_equal(found[0, :, channel], expected)
    assert band < bands


def test_what_is_no_number_is_black_and_an_even_band_gray():
  image = np.ones((4, 5, 3), np.float32)
  image[..., 0] = np.arange(20).reshape(4, 5)
  image[0, 0, 0], image[3, 4, 0] = np.nan, np.inf
  image[..., 2] = np.nan
  found = pictures.as_rgb(image)
  assert found[0, 0, 0] == found[3, 4, 0] == 0 and found[3, 3, 0] == 255
  assert (found[..., 1] == 128).all() and (found[..., 2] == 0).all()


def test_a_strip_takes_images_of_many_bands():
  image = np.linspace(0, 9_000, 20 * 30 * 5).reshape(20, 30, 5)
  labels = np.ones((20, 30), np.uint8)
  sheet = pictures.strip(
    [image.astype(np.uint16)], [labels], [labels], PALETTE, "abc", width=60
  )
  part = np.asarray(sheet)[pictures.LINE + pictures.GAP :][:40, 6:66]
  assert part[0].mean() < 30 and part[-1].mean() > 225


@pytest.mark.parametrize("truth", [True, False])
def test_a_strip_shows_every_row_and_a_legend(truth):
  sizes = [(20, 30), (50, 10)]
  images = [np.full((*s, 3), 90, np.uint8) for s in sizes]
  predictions = [np.ones(s, np.uint8) for s in sizes]
  truths = [np.full(s, 255, np.uint8) if truth else None for s in sizes]
  names = ("background", "\u725b", "a very long name that does not fit in")
  sheet = pictures.strip(images, truths, predictions, PALETTE, names, width=60)
  pixels = np.asarray(sheet)
  assert pixels.shape[1] == 3 * 60 + 4 * pictures.GAP
  red = (pixels == (128, 0, 0)).all(-1).sum()
  assert red >= 60 * 40 + 60 * 300
  ignored = (pixels == pictures.IGNORE_COLOR).all(-1).sum()
  assert (ignored >= 60 * 340) == truth
