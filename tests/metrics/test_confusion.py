"""The confusion matrix against a count pixel by pixel."""

import itertools
import json

import numpy as np
import pytest

from deeplax.metrics import confusion
from deeplax.metrics import measures

NAMES = ("background", "sheep", "cow", "cat")


def _pair(seed=0, shape=(2, 13, 17), k=4):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, k, shape).astype(np.uint8)
  labels[rng.random(shape) < 0.2] = 255
  return labels, rng.integers(0, k, shape).astype(np.uint8)


def _count(labels, predictions, k):
  matrix = np.zeros((k, k), np.int64)
  for truth, predicted in zip(labels.flat, predictions.flat, strict=True):
    if truth != 255:
      matrix[truth, predicted] += 1
  return matrix


def test_count_equals_a_count_pixel_by_pixel():
  labels, predictions = _pair()
  matrix = confusion.count(labels, predictions, 4)
  assert matrix.dtype == np.int64
  np.testing.assert_array_equal(matrix, _count(labels, predictions, 4))


def _counted(labels, predictions, k, ignore_label):
  """The matrix as lists, or the text of the error."""
  try:
    return confusion.count(labels, predictions, k, ignore_label).tolist()
  except ValueError as error:
    return str(error)


def test_bytes_are_counted_as_other_integers_are():
  for k, ignore_label in itertools.product(
    (3, 4, 256, 300), (255, 0, 3, None, -1, 999)
  ):
    labels, predictions = _pair()
    if ignore_label != 255:
      labels = np.minimum(labels, 3)
    found, wide = (
      _counted(labels.astype(t), predictions.astype(t), k, ignore_label)
      for t in (np.uint8, np.int64)
    )
    assert found == wide, (k, ignore_label)
    assert isinstance(found, str) == (k == 3), (k, ignore_label)


def test_count_does_not_overflow_narrow_integers():
  labels = np.full((3, 3), 20, np.uint8)
  assert confusion.count(labels, labels, 21)[20, 20] == 9
  labels = np.full((2, 2), 299, np.uint16)
  assert confusion.count(labels, labels, 300)[299, 299] == 4


def test_ignored_pixels_change_nothing():
  labels, predictions = _pair()
  matrix = confusion.count(labels, predictions, 4)
  other = np.where(labels == 255, 3 - predictions, predictions)
  np.testing.assert_array_equal(confusion.count(labels, other, 4), matrix)


def test_without_an_ignore_label_every_pixel_counts():
  labels = np.array([0, 1, 1, 2])
  matrix = confusion.count(labels, labels, 3, ignore_label=None)
  assert matrix.sum() == 4


def test_scores_equal_set_arithmetic():
  labels, predictions = _pair()
  result = confusion.scores(confusion.count(labels, predictions, 4), NAMES)
  valid = labels != 255
  ious, recalls = [], []
  for k, name in enumerate(NAMES):
    truth, predicted = valid & (labels == k), valid & (predictions == k)
    ious.append((truth & predicted).sum() / (truth | predicted).sum())
    recalls.append((truth & predicted).sum() / truth.sum())
    precision = (truth & predicted).sum() / predicted.sum()
    assert result["iou"][name] == pytest.approx(ious[-1])
    assert result["recall"][name] == pytest.approx(recalls[-1])
    assert result["precision"][name] == pytest.approx(precision)
  assert result["miou"] == pytest.approx(np.mean(ious))
  assert result["mean_accuracy"] == pytest.approx(np.mean(recalls))
  accuracy = (labels == predictions)[valid].mean()
  assert result["pixel_accuracy"] == pytest.approx(accuracy)


def test_classes_without_a_union_are_left_out_of_the_mean():
  # As tf.metrics.mean_iou: a class that is only predicted counts with 0, one
  # that is neither there nor predicted does not count.
  labels = np.array([0, 0, 1, 1])
  predictions = np.array([0, 0, 1, 2])
  result = confusion.scores(confusion.count(labels, predictions, 4), NAMES)
  assert result["iou"] == {
    "background": 1.0,
    "sheep": 0.5,
    "cow": 0.0,
    "cat": None,
  }
  assert result["miou"] == pytest.approx(0.5)
  assert result["mean_accuracy"] == pytest.approx(0.75)
  # Nothing was called cat; no cow and no cat is there to be recalled.
  assert list(result["precision"].values()) == [1.0, 1.0, 0.0, None]
  assert list(result["recall"].values()) == [1.0, 0.5, None, None]
  assert result["confusion_matrix"][1] == [0, 1, 1, 0]


def test_images_of_any_size_add_up_to_the_data_set():
  pairs = [_pair(0, (5, 7)), _pair(1, (31, 2))]
  counts = [confusion.count(*pair, num_classes=4) for pair in pairs]
  joined = [
    np.concatenate([x.ravel() for x in side])
    for side in zip(*pairs, strict=True)
  ]
  np.testing.assert_array_equal(
    confusion.add(*counts),
    confusion.count(joined[0], joined[1], 4),
  )


@pytest.mark.parametrize("where", ["labels", "predictions"])
def test_values_that_are_no_class_are_named(where):
  arrays = {"labels": np.array([0, 1]), "predictions": np.array([0, 1])}
  arrays[where] = np.array([0, 38])
  with pytest.raises(ValueError, match=rf"{where} have values \[38\].*0\.\.3"):
    confusion.count(arrays["labels"], arrays["predictions"], 4)


def test_a_data_set_without_a_label_is_an_error():
  labels = np.full((3, 3), 255)
  matrix = confusion.count(labels, np.zeros_like(labels), 4)
  with pytest.raises(ValueError, match="every label is the ignore label"):
    confusion.scores(matrix, NAMES)


def test_class_names_must_fit_the_matrix():
  with pytest.raises(ValueError, match="2 different names"):
    confusion.scores(np.eye(2, dtype=np.int64), ("a", "a"))


def test_the_table_is_sorted_and_tells_confusions_in_words():
  matrix = np.diag([900, 77, 10, 0])
  matrix[1, 2] = 23
  result = confusion.scores(matrix, NAMES)
  lines = measures.table(result, NAMES).splitlines()
  assert [line.split()[0] for line in lines[1:5]] == [
    "background",
    "sheep",
    "cow",
    "cat",
  ]
  assert "100.0%" in lines[1] and "89.11%" in lines[1]
  # 77 of 100 sheep were found, and all that was called sheep was one.
  assert lines[2].split()[1:4] == ["77.0%", "100.0%", "77.0%"]
  assert lines[4].split()[1:4] == ["none", "none", "none"]
  assert lines[-1] == "most confused: 23% of sheep called cow"


def test_scores_survive_json():
  labels, predictions = _pair()
  result = confusion.scores(confusion.count(labels, predictions, 4), NAMES)
  again = json.loads(json.dumps(result, allow_nan=False))
  assert measures.table(again, NAMES) == measures.table(result, NAMES)
