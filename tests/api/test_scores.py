"""`deeplax.scores`: of arrays, the numbers of evaluate."""

import numpy as np
import pytest

import deeplax
from deeplax.metrics import boundary

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, 255]], np.uint8)
FOUND = np.array([[0, 1, 1, 1], [0, 2, 0, 7]], np.int64)
# By hand: of 7 pixels 5 are right.
IOU = {"a": 2 / 4, "b": 2 / 3, "c": 1 / 2, "d": None}


def test_scores_are_counted_over_all_images():
  scores = deeplax.scores([FOUND], [TRUTH], list(IOU))
  assert scores["iou"] == IOU
  assert scores["miou"] == pytest.approx((2 / 4 + 2 / 3 + 1 / 2) / 3)
  assert scores["pixel_accuracy"] == pytest.approx(5 / 7)
  assert scores["images"] == 1
  two = deeplax.scores(iter([FOUND, TRUTH]), [TRUTH, TRUTH], list(IOU))
  assert two["iou"] == {"a": 5 / 7, "b": 4 / 5, "c": 3 / 4, "d": None}
  assert two["images"] == 2
  arrays = np.stack([FOUND, TRUTH]), np.stack([TRUTH, TRUTH])
  assert deeplax.scores(*arrays, list(IOU)) == two


def test_numbers_stand_for_names_and_another_label_is_ignored():
  scores = deeplax.scores([FOUND], [TRUTH], 4)
  assert scores["iou"] == {"0": 2 / 4, "1": 2 / 3, "2": 1 / 2, "3": None}
  truth = TRUTH.astype(np.int16)
  truth[truth == 255] = -1
  assert deeplax.scores([FOUND], [truth], 4, ignore_label=-1) == scores
  counted = deeplax.scores([TRUTH % 4], [TRUTH % 4], 4, ignore_label=None)
  assert counted["iou"]["3"] == 1.0


def test_boundaries_are_scored_when_asked_for():
  labels = np.zeros((40, 50), np.uint8)
  labels[10:30, 10:30] = 1
  labels[:, 45:] = 9
  shifted = np.roll(np.where(labels == 9, 0, labels), 2, axis=1)
  scores = deeplax.scores(
    [shifted], [labels], ["a", "b"], ignore_label=9, boundary=True
  )
  f = boundary.count_f(labels, shifted, 2, ignore_label=9)
  iou = boundary.count_iou(labels, shifted, 2, ignore_label=9)
  expected = boundary.f_scores(f, "ab") | boundary.iou_scores(iou, "ab")
  assert 0 < expected["boundary_iou"] < 1
  assert {key: scores[key] for key in expected} == expected
  assert "boundary_f" not in deeplax.scores([labels], [labels], 10)


@pytest.mark.parametrize(
  "found, truth, told",
  [
    ([FOUND, FOUND], [TRUTH], "more predictions than 1"),
    ([FOUND], [TRUTH, TRUTH], "more labels than 1"),
    (
      [FOUND[:1]],
      [TRUTH],
      "predictions are [2, 4] and [1, 4]",
    ),
    ([FOUND, FOUND + 9], [TRUTH, TRUTH], "image 2: predictions have values"),
    ([FOUND], [TRUTH + 0.5], "image 1 is float64 [2, 4]"),
    (FOUND, TRUTH, "image 1 is uint8 [4]: give integers [h, w]"),
    ([], [], "no pixel was counted"),
  ],
)
def test_what_cannot_be_scored_is_refused(found, truth, told):
  with pytest.raises(deeplax.InputError) as error:
    deeplax.scores(found, truth, 4)
  assert told in str(error.value)


def test_names_must_differ():
  with pytest.raises(deeplax.InputError, match="different names"):
    deeplax.scores([FOUND], [TRUTH], ["a", "a", "b", "c"])
