"""Trimap, boundary F1 and boundary IoU against a plain form of each."""

import itertools
import json
import math

import numpy as np
import pytest
import scipy.ndimage

from deeplax.metrics import boundary
from deeplax.metrics import confusion
from tests.metrics import pairs

K, NAMES, VOID = pairs.K, pairs.NAMES, pairs.VOID
WIDTHS = (1, 2, 5, 40)
COUNTS = {
  "trimap": lambda a, b: boundary.count_trimap(a, b, K, widths=WIDTHS),
  "f": lambda a, b: boundary.count_f(a, b, K),
  "iou": lambda a, b: boundary.count_iou(a, b, K),
}
each_count = pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)


def _distance(shape, points):
  """Distance of every pixel to the nearest of some points, one by one."""
  rows, columns = np.indices(shape)
  result = np.full(shape, np.inf)
  for row, column in points:
    away = np.hypot(rows - row, columns - column)
    result = np.minimum(result, away)
  return result


def _neighbors(labels, row, column):
  for r, c in (
    *((row - 1, column), (row + 1, column)),
    *((row, column - 1), (row, column + 1)),
  ):
    if 0 <= r < labels.shape[0] and 0 <= c < labels.shape[1]:
      yield int(labels[r, c])


def _slow_trimap(labels, predictions):
  """Matrix by kind and width, pixel by pixel."""
  void = np.argwhere(labels == VOID)
  touching = [
    (row, column)
    for row, column in np.argwhere(labels != VOID)
    if any(
      other not in (VOID, labels[row, column])
      for other in _neighbors(labels, row, column)
    )
  ]
  result = np.zeros((2, len(WIDTHS), K, K), np.int64)
  starts = ((void, 0), (touching, 1))
  for kind, (points, first) in enumerate(starts):
    away = _distance(labels.shape, points) + first
    for n, width in enumerate(WIDTHS):
      inside = (away <= width + 1e-9) & (labels != VOID)
      np.add.at(result[kind, n], (labels[inside], predictions[inside]), 1)
  return result


def test_a_trimap_counts_the_pixels_near_the_boundary():
  for name, (labels, predictions) in pairs.CASES.items():
    counts = boundary.count_trimap(labels, predictions, K, widths=WIDTHS)
    assert counts["trimap"].dtype == np.int64, name
    np.testing.assert_array_equal(
      counts["trimap"], _slow_trimap(labels, predictions), name
    )
    sides = [
      (int(labels[row, column]), other)
      for row, column in np.ndindex(labels.shape)
      for other in _neighbors(labels, row, column)
    ]
    # Each side is met from both pixels.
    classes = sum(a != b and VOID not in (a, b) for a, b in sides) // 2
    void = sum(a != b and VOID in (a, b) for a, b in sides) // 2
    assert counts["borders"].tolist() == [classes, void], name


def test_the_widest_trimap_is_the_whole_image():
  labels, predictions = pairs.blobs(0)
  counts = boundary.count_trimap(labels, predictions, K, widths=(1, 99))
  whole = confusion.count(labels, predictions, K)
  np.testing.assert_array_equal(counts["trimap"][1, 1], whole)
  scores = boundary.trimap_scores(counts, NAMES, widths=(1, 99))
  assert scores["trimap"]["99"] == confusion.scores(whole, NAMES)["miou"]
  assert scores["trimap"]["1"] < scores["trimap"]["99"]


def test_a_trimap_names_the_border_it_lies_around():
  for name, kind in (
    *(("a void border", "void"), ("patches", "class")),
    *(("patches with void", "class"), ("one class, all right", "class")),
  ):
    labels, predictions = pairs.CASES[name]
    counts = boundary.count_trimap(labels, predictions, K, widths=(2,))
    assert boundary.trimap_kind(counts["borders"]) == kind, name
    scores = boundary.trimap_scores(counts, NAMES, widths=(2,))
    assert scores["trimap_kind"] == kind, name
    matrix = counts["trimap"][boundary.KINDS.index(kind), 0]
    if matrix.any():
      expected = confusion.scores(matrix, NAMES)
      assert scores["trimap"] == {"2": expected["miou"]}, name
      assert scores["trimap_accuracy"] == {"2": expected["pixel_accuracy"]}, (
        name
      )
      assert scores["trimap_iou"] == {"2": expected["iou"]}, name


def test_a_trimap_around_a_step_is_right_by_hand():
  # Columns 0 to 2 are sky, 3 to 5 road; predicted is the step one too late.
  labels = np.repeat(np.array([[0, 0, 0, 1, 1, 1]], np.uint8), 4, axis=0)
  predictions = np.roll(labels, 1, axis=1)
  predictions[:, 0] = 0
  counts = boundary.count_trimap(labels, predictions, 2, widths=(1, 2, 3))
  scores = boundary.trimap_scores(counts, ("sky", "road"), widths=(1, 2, 3))
  assert scores["trimap_accuracy"] == {"1": 0.5, "2": 0.75, "3": 5 / 6}
  assert scores["trimap_iou"]["1"] == {"sky": 0.5, "road": 0.0}
  assert scores["trimap"]["2"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_an_image_without_a_boundary_has_no_trimap():
  counts = boundary.count_trimap(*pairs.one_class(), K, widths=(1, 40))
  scores = boundary.trimap_scores(counts, NAMES, widths=(1, 40))
  assert (
    scores["trimap"] == scores["trimap_accuracy"] == {"1": None, "40": None}
  )
  assert scores["trimap_iou"]["40"] == dict.fromkeys(NAMES)


@pytest.mark.parametrize("widths", [(), (2, 1), (1, 1), (0, 1)])
def test_widths_that_do_not_ascend_are_refused(widths):
  with pytest.raises(ValueError, match="must ascend and be 1 or more"):
    boundary.count_trimap(*pairs.one_class(), K, widths=widths)


def _boundary(mask):
  """Pixels of a mask beside one that is not of it; the frame is none."""
  inner = scipy.ndimage.binary_erosion(mask, border_value=1)
  return np.argwhere(mask & ~inner)


def _share(points, others, tolerance):
  if not len(points):
    return 0.0
  away = np.linalg.norm(points[:, None] - others[None], axis=-1)
  return (away < tolerance).any(axis=1).mean()


def _slow_f(labels, predictions):
  """F1 by class of the truth, point by point; None without a boundary."""
  predictions = np.where(labels == VOID, VOID, predictions)
  tolerance = 0.0075 * math.hypot(*labels.shape)
  result = {}
  for k in sorted(set(labels.ravel().tolist()) - {VOID}):
    true, found = _boundary(labels == k), _boundary(predictions == k)
    if len(true) + len(found):
      precision = _share(found, true, tolerance)
      recall = _share(true, found, tolerance)
      both = precision + recall
      result[k] = 2 * precision * recall / both if both else 0.0
  return result


def test_boundary_f_matches_point_by_point():
  for name, (labels, predictions) in pairs.CASES.items():
    expected = _slow_f(labels, predictions)
    counts = boundary.count_f(labels, predictions, K)["boundary_f"]
    assert counts.dtype == np.int64, name
    scores = boundary.f_scores({"boundary_f": counts}, NAMES)
    for k, of in enumerate(NAMES):
      assert scores["boundary_f_class"][of] == pytest.approx(
        expected.get(k), abs=1e-9
      ), name
    mean = np.mean(list(expected.values())) if expected else None
    assert scores["boundary_f"] == pytest.approx(mean, abs=1e-9), name


@pytest.mark.parametrize("tolerance", [0.03, 0.08])
def test_boundary_f_matches_further_away(tolerance):
  labels, predictions = pairs.blobs(7, void=0.1)
  shares = {}
  predicted = np.where(labels == VOID, VOID, predictions)
  for k in range(K):
    true, found = _boundary(labels == k), _boundary(predicted == k)
    limit = tolerance * math.hypot(*labels.shape)
    p, r = _share(found, true, limit), _share(true, found, limit)
    shares[NAMES[k]] = 2 * p * r / (p + r)
  counts = boundary.count_f(labels, predictions, K, tolerance=tolerance)
  scores = boundary.f_scores(counts, NAMES)
  assert scores["boundary_f_class"] == pytest.approx(shares, abs=1e-9)
  near = boundary.f_scores(boundary.count_f(labels, predictions, K), NAMES)
  assert scores["boundary_f"] > near["boundary_f"]


def test_boundary_f_is_the_mean_of_images_and_of_classes_in_the_truth():
  # SegNet's rule: road is only predicted in the first image, and sky alone
  # counts there; a mean over all boundaries would be another number.
  labels = np.zeros((6, 200), np.uint8)
  labels[:, 100:] = 2
  right = labels.copy()
  wrong = labels.copy()
  wrong[:, 100:] = 1
  first = boundary.count_f(labels, wrong, K)
  second = boundary.count_f(labels, right, K)
  total = {"boundary_f": first["boundary_f"] + second["boundary_f"]}
  scores = boundary.f_scores(total, NAMES)
  assert scores["boundary_f_class"]["sky"] == 1.0
  assert scores["boundary_f_class"]["road"] is None
  assert scores["boundary_f_class"]["tree"] == 0.5
  assert scores["boundary_f"] == pytest.approx((0.5 + 1.0) / 2)


def _slow_rim(mask, d):
  window = np.ones((3, 3), bool)
  return mask & ~scipy.ndimage.binary_erosion(mask, window, iterations=d)


def test_boundary_iou_compares_the_rims_of_each_class():
  for (name, (labels, predictions)), distance in itertools.product(
    pairs.CASES.items(), (0.02, 0.07)
  ):
    d = max(1, round(distance * math.hypot(*labels.shape)))
    predicted = np.where(labels == VOID, VOID, predictions)
    rows = []
    for k in range(K):
      true, found = _slow_rim(labels == k, d), _slow_rim(predicted == k, d)
      rows.append([(true & found).sum(), true.sum(), found.sum()])
    counts = boundary.count_iou(labels, predictions, K, distance=distance)
    np.testing.assert_array_equal(counts["boundary_iou"], rows, name)
    scores = boundary.iou_scores(counts, NAMES)
    expected = {
      of: both / (true + found - both) if true + found else None
      for of, (both, true, found) in zip(NAMES, rows, strict=True)
    }
    assert scores["boundary_iou_class"] == pytest.approx(expected), name
    there = [v for v in expected.values() if v is not None]
    mean = float(np.mean(there)) if there else None
    assert scores["boundary_iou"] == pytest.approx(mean), name


def test_boundary_iou_of_a_square_that_is_too_large_is_right_by_hand():
  # 50x50: d = round(0.02 * 70.7) = 1. The rims are 4 * 9 and 4 * 11 pixels
  # long and do not meet; the background's frame and hole do in the frame.
  labels, predictions = np.zeros((2, 50, 50), np.uint8)
  labels[20:30, 20:30] = 1
  predictions[19:31, 19:31] = 1
  counts = boundary.count_iou(labels, predictions, 2)["boundary_iou"]
  frame = 4 * 49
  assert counts.tolist() == [[frame, frame + 44, frame + 52], [0, 36, 44]]


def test_what_is_predicted_in_void_changes_nothing():
  for (name, (labels, predictions)), count in itertools.product(
    pairs.CASES.items(), COUNTS.values()
  ):
    other = pairs.changed_in_void(labels, predictions)
    first, second = count(labels, predictions), count(labels, other)
    for measure in first:
      np.testing.assert_array_equal(first[measure], second[measure], name)


def test_a_right_prediction_has_the_best_scores():
  for name, count in COUNTS.items():
    labels, predictions = pairs.CASES["patches with void"]
    predictions = np.where(labels == VOID, predictions, labels)
    scores = _scores(count(labels, predictions))
    assert set(scores) == {1.0}, name


@each_count
def test_predictions_of_the_wrong_size_and_values_are_named(count):
  labels, predictions = pairs.one_class()
  with pytest.raises(ValueError, match="must have the same height and width"):
    count(labels, predictions[1:])
  with pytest.raises(ValueError, match=r"predictions have values \[38\]"):
    count(labels, np.full_like(predictions, 38))
  with pytest.raises(ValueError, match=r"labels have values \[38\].*0\.\.4"):
    count(np.full_like(labels, 38), predictions)


def _scores(counts):
  """The mean scores in counts, whichever they are."""
  if "trimap" in counts:
    scores = boundary.trimap_scores(counts, NAMES, widths=WIDTHS)
    return list(scores["trimap"].values())
  if "boundary_f" in counts:
    return [boundary.f_scores(counts, NAMES)["boundary_f"]]
  return [boundary.iou_scores(counts, NAMES)["boundary_iou"]]


def test_more_than_255_classes_and_no_ignore_label_are_counted():
  labels, predictions = pairs.blobs(0)
  few = boundary.count_f(labels, predictions, K)["boundary_f"]
  wide = boundary.count_f(
    labels.astype(np.uint16) * 70,
    predictions.astype(np.uint16) * 70,
    300,
    ignore_label=None,
  )["boundary_f"]
  np.testing.assert_array_equal(wide[:-1:70][:K], few[:-1])
  np.testing.assert_array_equal(wide[-1], few[-1])


def test_scores_survive_json():
  labels, predictions = pairs.blobs(1, void=0.3)
  for count in COUNTS.values():
    counts = count(labels, predictions)
    assert json.loads(json.dumps(_scores(counts), allow_nan=False)) == _scores(
      counts
    )
