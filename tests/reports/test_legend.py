"""The legend hides nothing, and shows each class that is there."""

import numpy as np
import pytest

from deeplax.data import spec as spec_lib
from deeplax.reports import legend
from deeplax.reports import shown_classes

SPEC = spec_lib.Spec(
  "own",
  ("background", "road", "\u725b", "car"),
  ((0, 0, 0), (128, 64, 128), (0, 200, 0), (0, 0, 142)),
)
SHOWN = shown_classes.Shown(SPEC)


def count(pixels: np.ndarray, color: tuple[int, ...]) -> int:
  return int((pixels == color).all(-1).sum())


@pytest.mark.parametrize("size", [(375, 500), (1, 1), (2, 3000), (1500, 40)])
def test_the_sheet_leaves_room_for_the_picture(size):
  height, width = size
  sheet = legend.below(size, {1: 0.5, 0: 0.3, 3: 0.2}, SHOWN)
  assert sheet.shape[0] > height + legend.SMALLEST and sheet.shape[1] >= width
  assert (sheet[:height] == 255).all()
  foot = sheet[height:]
  # A patch of each color; that of the background is hollow.
  for color in SPEC.palette[1::2]:
    assert count(foot, color) > 100
  assert not count(foot, (0, 200, 0)) and not count(foot, (0, 0, 0))


def test_the_legend_is_sorted_and_wraps_in_the_picture_s_width():
  shares = {3: 0.6, 1: 0.4}
  one = legend.below((300, 400), shares, SHOWN)
  x = {
    color: np.nonzero((one == color).all(-1))[1].min()
    for color in (SPEC.palette[3], SPEC.palette[1])
  }
  assert x[SPEC.palette[3]] < x[SPEC.palette[1]]
  two = legend.below((300, 110), shares, SHOWN)
  rows = np.nonzero((two == SPEC.palette[1]).all(-1))[0]
  above = np.nonzero((two == SPEC.palette[3]).all(-1))[0]
  assert two.shape[1] == 110 and rows.min() > above.max()


def test_letters_grow_with_the_picture():
  shares = {1: 1.0}
  small, large = (
    legend.below(size, shares, SHOWN)[size[0] :]
    for size in ((300, 400), (3000, 4000))
  )
  assert len(large) > 4 * len(small)


def test_a_picture_without_any_of_the_classes_says_so():
  sheet = legend.below((20, 400), {}, SHOWN._replace(kept=frozenset({1})))
  assert (sheet[20:] < 100).any()
