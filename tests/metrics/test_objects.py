"""IoU and recall by object size, against a count object by object."""

import json

import numpy as np
import pytest
import scipy.ndimage

from deeplax.metrics import confusion
from deeplax.metrics import objects
from tests.metrics import pairs

K, NAMES, VOID = pairs.K, pairs.NAMES, pairs.VOID


def _components(mask):
  """The components of a mask, as masks."""
  parts, count = scipy.ndimage.label(mask, np.ones((3, 3)))
  return [parts == i for i in range(1, count + 1)]


def _size(mask):
  return sum(mask.sum() >= edge * mask.size for edge in objects.EDGES)


def _slow(labels, predictions):
  """Counts, object by object."""
  result = np.zeros((5, K, 4), np.int64)
  valid = labels != VOID
  for k in range(K):
    truth, found = labels == k, (predictions == k) & valid
    things = _components(truth)
    for thing in things:
      result[_size(thing), k] += (
        *(1, thing.sum()),
        *((thing & found).sum(), 0),
      )
    for part in _components(found):
      shared = [((part & thing).sum(), thing.sum()) for thing in things]
      owner = part
      if shared and max(shared)[0]:
        owner = things[shared.index(max(shared))]
      result[_size(owner), k, 3] += (part & ~truth).sum()
  return result


def test_counts_equal_a_count_object_by_object():
  for name, (labels, predictions) in pairs.CASES.items():
    counts = objects.count(labels, predictions, K)["objects"]
    assert counts.dtype == np.int64, name
    np.testing.assert_array_equal(counts, _slow(labels, predictions), name)


def test_sizes_add_up_to_the_confusion_matrix():
  for name, (labels, predictions) in pairs.CASES.items():
    matrix = confusion.count(labels, predictions, K)
    right = np.diagonal(matrix)
    _, true, hits, false = (
      objects.count(labels, predictions, K)["objects"].sum(axis=0).T
    )
    np.testing.assert_array_equal(true, matrix.sum(axis=1), name)
    np.testing.assert_array_equal(hits, right, name)
    np.testing.assert_array_equal(false, matrix.sum(axis=0) - right, name)


def test_what_is_predicted_in_void_changes_nothing():
  for name, (labels, predictions) in pairs.CASES.items():
    other = pairs.changed_in_void(labels, predictions)
    np.testing.assert_array_equal(
      objects.count(labels, predictions, K)["objects"],
      objects.count(labels, other, K)["objects"],
      name,
    )


def test_objects_of_a_made_up_image_are_right_by_hand():
  labels = np.zeros((64, 64), np.uint8)
  labels[2:4, 2:4] = 1  # 4 pixels of 4096: at 1/1024, in the second size
  labels[10:30, 10:30] = 1  # 400: the largest size
  labels[50, 50] = 1  # the smallest size
  predictions = np.zeros_like(labels)
  predictions[2:4, 2:6] = 1  # the second, 4 pixels too wide
  predictions[10:30, 10:20] = 1  # half of the large one
  predictions[60:62, 60:62] = 1  # nothing is there: a false object of 4
  result = objects.scores(objects.count(labels, predictions, 2), ("no", "yes"))
  rows = result["objects"]
  assert [row["iou"]["yes"] for row in rows] == [0.0, 1 / 3, None, None, 0.5]
  assert [row["recall"]["yes"] for row in rows] == [0.0, 1.0, None, None, 0.5]
  assert [row["objects"] for row in rows] == [1, 1, 0, 0, 2]
  assert rows[2]["miou"] is None and rows[2]["mean_recall"] is None
  assert rows[4]["miou"] == pytest.approx((0.5 + rows[4]["iou"]["no"]) / 2)
  edges = [0, 1 / 1024, 1 / 256, 1 / 64, 1 / 16, 1]
  assert [(row["from"], row["to"]) for row in rows] == [
    *zip(edges[:-1], edges[1:], strict=True)
  ]


def test_scores_survive_json():
  result = objects.scores(objects.count(*pairs.blobs(1), K), NAMES)
  assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_turning_the_image_changes_nothing():
  for seed in range(3):
    labels, predictions = pairs.blobs(seed, (40, 40), void=0.1)
    first = objects.count(labels, predictions, K)["objects"]
    turned = objects.count(np.rot90(labels), np.rot90(predictions), K)[
      "objects"
    ]
    np.testing.assert_array_equal(first, turned, f"{seed}")


def test_a_part_that_covers_two_objects_alike_belongs_to_the_larger():
  for turn in (np.array, np.flipud):
    labels = np.zeros((64, 64), np.uint8)
    labels[10, 10] = 1  # the smallest size
    labels[12:16, 10:14] = 1  # 16 pixels of 4096: the third size
    predictions = np.zeros_like(labels)
    predictions[10:13, 10] = 1  # one pixel of each, and one between them
    pair = turn(labels), turn(predictions)
    counts = objects.count(*pair, 2)["objects"][:, 1]
    assert counts[:, 2].tolist() == [1, 0, 1, 0, 0], turn
    assert counts[:, 3].tolist() == [0, 0, 1, 0, 0], turn
