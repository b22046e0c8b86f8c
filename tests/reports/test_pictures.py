"""Palette files, overlays and strips."""

import numpy as np
from PIL import Image

from deeplax.data import spec as spec_lib
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


def test_classes_stay_untinted_by_their_number_whatever_their_color():
  image = np.full((6, 9, 3), 200, np.uint8)
  labels = _labels()
  sheet = np.zeros((8, 10, 3), np.uint8)
  pictures.overlay(
    image, labels, PALETTE, opacity=0.5, untinted={1}, out=sheet[:6, :9]
  )
  mixed = sheet[:6, :9]
  assert (mixed[labels == 0] == 100).all() and (mixed[labels == 1] == 200).all()
  assert (mixed[labels == 2] == (100, 164, 100)).all()
  assert not sheet[6:].any() and not sheet[:, 9:].any()


def test_classes_beyond_the_palette_are_gray():
  colors = pictures.colors(np.array([[7]]), PALETTE)
  assert tuple(colors[0, 0]) == (128, 128, 128)


SPEC = spec_lib.Spec(
  "toy",
  ("background", "\u725b", "a very long name that does not fit in"),
  PALETTE,
)


def test_a_strip_takes_images_of_many_bands():
  image = np.linspace(0, 9_000, 20 * 30 * 5).reshape(20, 30, 5)
  labels = np.ones((20, 30), np.uint8)
  example = {"image": image.astype(np.uint16), "label": labels}
  sheet = pictures.strip([example], [labels], SPEC, width=60)
  part = np.asarray(sheet)[pictures.LINE + pictures.GAP :][:40, 6:66]
  assert part[0].mean() < 30 and part[-1].mean() > 225


def test_a_strip_shows_every_row_and_a_legend():
  sizes = [(20, 30), (50, 10)]
  examples = [
    {
      "image": np.full((*s, 3), 90, np.uint8),
      "label": np.full(s, 255, np.uint8),
    }
    for s in sizes
  ]
  predictions = [np.ones(s, np.uint8) for s in sizes]
  sheet = pictures.strip(examples, predictions, SPEC, width=60)
  pixels = np.asarray(sheet)
  assert pixels.shape[1] == 3 * 60 + 4 * pictures.GAP
  red = (pixels == (128, 0, 0)).all(-1).sum()
  assert red >= 60 * 40 + 60 * 300
  ignored = (pixels == pictures.IGNORE_COLOR).all(-1).sum()
  assert ignored >= 60 * 340
