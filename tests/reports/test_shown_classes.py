"""Shares of classes as numbers and text, and the classes of --classes."""

import numpy as np
import pytest

from deeplax import errors
from deeplax.data import spec as spec_lib
from deeplax.reports import shown_classes

SHOWN = shown_classes.of_flag(None, spec_lib.CITYSCAPES)


def test_shares_are_of_all_pixels_and_sorted():
  labels = np.full((700, 10), 255, np.uint8)
  labels[:70] = 2
  labels[70:500] = 0
  labels[-1, -1] = 13
  found = SHOWN.shares(labels)
  assert list(found) == [0, 2, 13]
  np.testing.assert_allclose([*found.values()], [430 / 700, 0.1, 1 / 7000])
  assert SHOWN.line(found) == "road 61.4%, building 10.0%, car <0.1%"
  assert SHOWN.shares(labels.astype(np.uint16)) == found


def test_a_line_has_the_largest_and_counts_the_others():
  shares = {i: 0.2 - i / 100 for i in range(9)}
  assert SHOWN.line(shares) == (
    "road 20.0%, sidewalk 19.0%, building 18.0%, wall 17.0%, fence 16.0% and 4 "
    "more"
  )


def test_shares_are_rounded_and_small_ones_are_not_nothing():
  values = (1.0, 0.4126, 0.001, 0.0004, 0.0)
  shown = [shown_classes.percent(v) for v in values]
  assert shown == ["100.0%", "41.3%", "0.1%", "<0.1%", "0.0%"]


def test_classes_that_are_not_asked_for_become_255():
  shown = shown_classes.of_flag("Person, traffic  light", spec_lib.CITYSCAPES)
  assert shown.kept == {11, 6}
  for dtype in (np.uint8, np.uint16):
    labels = np.array([[0, 6, 11, 18, 255]], dtype)
    found = shown.filtered(labels)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, [[255, 6, 11, 255, 255]])
  assert shown.untinted == {255}
  assert shown.line({}) == "none of the classes asked for"


def test_backgrounds_stay_untinted_unless_they_are_asked_for():
  assert shown_classes.Shown(spec_lib.VOC2012).untinted == {0}
  assert not SHOWN.untinted
  asked = shown_classes.of_flag("background", spec_lib.VOC2012)
  assert 0 not in asked.untinted


@pytest.mark.parametrize(
  ("text", "parts"),
  [
    ("persn", ("no class 'persn' (did you mean 'person'?); its", "are road, ")),
    (
      "car,bus,trian",
      ("--classes=car,bus,trian: the run has no class 'trian'", "'train'"),
    ),
    ("zebra", ("the run has no class 'zebra'; its classes are",)),
    ("", ("no class ''",)),
    ("car,", ("no class ''",)),
  ],
)
def test_a_class_that_the_run_has_not_is_told(text, parts):
  with pytest.raises(errors.InputError) as error:
    shown_classes.of_flag(text, spec_lib.CITYSCAPES)
  for part in parts:
    assert part in str(error.value)
