"""All measures together: counts that add up, and a table to read."""

import numpy as np
import pytest

from deeplax import parallel
from deeplax.metrics import boundary
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.metrics import objects
from tests import processes
from tests.metrics import pairs

K, NAMES = pairs.K, pairs.NAMES
ALL = measures.Measures(trimap=(1, 5, 40), boundary=True, objects=True)
IMAGES = [pairs.blobs(seed, (30 + seed, 44), void=0.1) for seed in range(5)]


def _counts(images):
  total = measures.empty(K, ALL)
  for labels, predictions in images:
    total = measures.add(total, measures.count(labels, predictions, K, ALL))
  return total


def _same(first, second):
  assert first.keys() == second.keys()
  for name in first:
    np.testing.assert_array_equal(first[name], second[name])


def test_no_image_counts_nothing():
  empty = measures.empty(K, ALL)
  assert {c.dtype for c in empty.values()} == {np.dtype(np.int64)}
  assert not any(counts.any() for counts in empty.values())
  one = measures.count(*IMAGES[0], K, ALL)
  _same(measures.add(empty, one), one)


def test_images_in_any_order_have_exactly_the_same_counts():
  _same(_counts(IMAGES), _counts(IMAGES[::-1]))


def test_counts_of_processes_add_up_to_those_of_one(monkeypatch):
  # The third process has no image.
  shares = [_counts(IMAGES[0::2]), _counts(IMAGES[1::2]), _counts([])]
  found = processes.Processes(monkeypatch, 3).run(
    lambda rank: {k: parallel.summed(v) for k, v in shares[rank].items()}
  )
  for total in found:
    _same(total, _counts(IMAGES))


def test_scores_are_those_of_each_measure_alone():
  counts = _counts(IMAGES)
  assert measures.scores(counts, NAMES, ALL) == {
    **boundary.trimap_scores(counts, NAMES, widths=ALL.trimap),
    **boundary.f_scores(counts, NAMES),
    **boundary.iou_scores(counts, NAMES),
    **objects.scores(counts, NAMES),
  }


def test_nothing_chosen_counts_and_scores_nothing():
  assert measures.count(*IMAGES[0], K, measures.CONFUSION_ONLY) == {}
  assert measures.scores({}, NAMES, measures.CONFUSION_ONLY) == {}


@pytest.mark.parametrize("all_void", [False, True])
def test_the_table_shows_what_was_measured(all_void):
  labels, predictions = pairs.blobs(0)
  result = confusion.scores(confusion.count(labels, predictions, K), NAMES)
  plain = measures.table(result, NAMES)
  counted = np.full_like(labels, 255) if all_void else labels
  counts = measures.count(counted, predictions, K, ALL)
  result |= measures.scores(counts, NAMES, ALL)
  table = measures.table(result, NAMES)
  rows = [line.split() for line in table.splitlines()]
  # The classes in the same order, with more columns; the same confusions.
  for line in plain.splitlines():
    assert line.split() in [row[: len(line.split())] for row in rows]
  if all_void:
    assert table.splitlines()[K + 1].endswith(
      "boundary F1 none   boundary IoU none"
    )
    assert ["40", "none", "none"] in rows
    return
  band = f"{result['trimap']['5']:.1%}"
  assert ["5", band, f"{result['trimap_accuracy']['5']:.1%}"] in rows
  pole = f"{result['boundary_f_class']['pole']:.1%}"
  (row,) = (row for row in rows if row[:1] == ["pole"])
  assert row[-2:] == [pole, f"{result['boundary_iou_class']['pole']:.1%}"]
  largest = result["objects"][-1]
  (row,) = (row for row in rows if row[:3] == ["6.25%", "to", "100.00%"])
  assert row[3:5] == [str(largest["objects"]), f"{largest['miou']:.1%}"]
