"""Palette files, overlays and strips."""

import numpy as np
from PIL import Image
import pytest

from deeplax import visualize

PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def _labels(height=6, width=9, k=3):
  return (
    np.random.default_rng(0).integers(0, k, (height, width)).astype(np.uint8)
  )


def test_an_index_png_keeps_indices_and_shows_colours(tmp_path):
  labels = _labels()
  labels[0, 0] = 255
  visualize.index_png(tmp_path / "mask.png", labels, PALETTE)
  with Image.open(tmp_path / "mask.png") as picture:
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.asarray(picture), labels)
    colours = np.asarray(picture.convert("RGB"))
  np.testing.assert_array_equal(colours, visualize.colours(labels, PALETTE))
  assert tuple(colours[0, 0]) == visualize.IGNORE_COLOUR


def test_more_than_256_classes_become_a_16_bit_png(tmp_path):
  labels = np.arange(300, dtype=np.uint16).reshape(15, 20)
  visualize.index_png(tmp_path / "mask.png", labels, PALETTE)
  with Image.open(tmp_path / "mask.png") as picture:
    np.testing.assert_array_equal(np.asarray(picture), labels)


def test_a_black_class_leaves_the_image_as_it_is():
  image = np.full((6, 9, 3), 200, np.uint8)
  labels = _labels()
  mixed = visualize.overlay(image, labels, PALETTE, opacity=0.5)
  assert mixed.dtype == np.uint8 and mixed.shape == image.shape
  assert (mixed[labels == 0] == 200).all()
  assert (mixed[labels == 1] == (164, 100, 100)).all()


def test_classes_beyond_the_palette_are_grey():
  colours = visualize.colours(np.array([[7]]), PALETTE)
  assert tuple(colours[0, 0]) == (128, 128, 128)


@pytest.mark.parametrize("truth", [True, False])
def test_a_strip_shows_every_row_and_a_legend(truth):
  sizes = [(20, 30), (50, 10)]
  images = [np.full((*s, 3), 90, np.uint8) for s in sizes]
  predictions = [np.ones(s, np.uint8) for s in sizes]
  truths = [np.full(s, 255, np.uint8) if truth else None for s in sizes]
  names = ("background", "\u725b", "a very long name that does not fit in")
  sheet = visualize.strip(images, truths, predictions, PALETTE, names, width=60)
  pixels = np.asarray(sheet)
  assert pixels.shape[1] == 3 * 60 + 4 * visualize.GAP
  red = (pixels == (128, 0, 0)).all(-1).sum()
  assert red >= 60 * 40 + 60 * 300
  ignored = (pixels == visualize.IGNORE_COLOUR).all(-1).sum()
  assert (ignored >= 60 * 340) == truth
