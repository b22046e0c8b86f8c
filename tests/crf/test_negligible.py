"""Classes that are left out: never one that matters, and nothing else moves."""

import jax
import numpy as np
import pytest

from deeplax import crf
from deeplax.crf import dense
from deeplax.crf import negligible as negligible_lib
from tests.crf import truth

SIZE, CLASSES = (12, 14), 11
WEIGHTS = (4.0, 3.0)


def scene(present, below=9.0, seed=0):
  """Four colors, and probabilities of which only some classes matter."""
  rng = np.random.default_rng(seed)
  image = np.full((*SIZE, 3), 60, np.uint8)
  image[:6] += np.uint8(80)
  image[:, :7] += np.uint8(100)
  image += rng.integers(0, 6, image.shape, np.uint8)
  logits = rng.normal(size=(*SIZE, CLASSES))
  logits[..., present:] -= below
  return image, truth.softmax(logits).astype(np.float32)


def kernels(image):
  return (
    dense.appearance(image, sigma_alpha=67, sigma_beta=3),
    dense.smoothness(image.shape[:2], sigma_gamma=1),
  )


def chosen(image, probabilities, negligible, weights=WEIGHTS):
  peaks = probabilities.max((0, 1))
  return negligible_lib.split(
    peaks, kernels(image), weights, negligible=negligible
  )


@pytest.mark.parametrize("present", [2, 4, 5])
def test_few_classes_give_the_marginals_of_all(present):
  image, probabilities = scene(present)
  found = chosen(image, probabilities, 0.01)
  count = 4 if present <= 4 else 8
  assert len(found.active) == count and set(range(present)) <= {*found.active}
  expected = np.asarray(crf.dense_crf(image, probabilities))
  saving = np.asarray(crf.dense_crf(image, probabilities, negligible=0.01))
  assert expected[..., found.rest].max() < 0.01
  np.testing.assert_array_equal(saving.argmax(-1), expected.argmax(-1))
  np.testing.assert_allclose(saving, expected, atol=1e-3)
  np.testing.assert_allclose(saving.sum(-1), 1, atol=1e-5)


def test_a_class_is_left_out_if_its_bound_is_below():
  image, _ = scene(2)
  rows = [truth.lattice(np.float64(points)) for points in _features(image)]
  total = sum(w * k.sum(1).max() for w, k in zip(WEIGHTS, rows, strict=True))
  limit = 0.01 * np.exp(-total * 0.01)
  peaks = np.full(CLASSES, 1e-4, np.float32)
  peaks[[3, 5, 7, 8]] = 0.9
  for factor, count in ((0.99, 4), (1.01, 8)):
    peaks[10] = limit * factor
    found = negligible_lib.split(
      peaks, kernels(image), WEIGHTS, negligible=0.01
    )
    assert len(found.active) == count
    assert {3, 5, 7, 8} <= {*found.active}
    assert (10 in found.active) == (count == 8)


def _features(image):
  return truth.features(image, 67, 3), truth.features(image, 1)


def test_no_class_that_grows_above_the_bound_is_left_out():
  # A class that is unlikely everywhere, and gains from its own messages.
  image, probabilities = scene(CLASSES)
  probabilities[..., 5] = 0.02
  probabilities /= probabilities.sum(-1, keepdims=True)
  for seed in range(3):
    weights = tuple(np.random.default_rng(seed).uniform(0, 8, 2))
    for negligible in (0.03, 0.1, 0.9):
      found = chosen(image, probabilities, negligible, weights)
      w1, w2 = weights
      marginals = np.asarray(
        crf.dense_crf(image, probabilities, w1=w1, w2=w2, iterations=30)
      )
      assert np.all(marginals[..., found.rest] < negligible)


def test_all_classes_take_part_where_all_matter():
  image, probabilities = scene(CLASSES)
  assert not chosen(image, probabilities, 0.01).rest.size
  np.testing.assert_array_equal(
    crf.dense_crf(image, probabilities, negligible=0.01),
    crf.dense_crf(image, probabilities),
  )


def test_a_class_of_one_image_takes_part_in_its_batch():
  pairs = [scene(3), scene(6, seed=1)]
  images, probabilities = (np.stack(x) for x in zip(*pairs, strict=True))
  found = crf.dense_crf(images, probabilities, negligible=0.01)
  expected = crf.dense_crf(images, probabilities)
  np.testing.assert_allclose(found, expected, atol=1e-3)


def test_weights_of_zero_leave_the_probabilities():
  image, probabilities = scene(3)
  found = crf.dense_crf(image, probabilities, w1=0, w2=0, negligible=0.01)
  np.testing.assert_allclose(found, probabilities, atol=1e-4)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"negligible": -0.1}, "negligible -0.1"),
    ({"negligible": 1.0}, "negligible 1.0"),
    ({"compatibility": np.eye(CLASSES, dtype=np.float32)}, "compatibility"),
    ({"w1": -1.0}, "weights of 0 or more"),
  ],
)
def test_what_the_bound_does_not_hold_for_is_refused(changes, words):
  image, probabilities = scene(3)
  with pytest.raises(ValueError, match=words):
    crf.dense_crf(image, probabilities, **({"negligible": 0.01} | changes))


def test_values_that_are_traced_are_refused():
  image, probabilities = scene(3)

  def loss(values):
    return crf.dense_crf(image, values, negligible=0.01).sum()

  with pytest.raises(ValueError, match="inside jit and grad"):
    jax.grad(loss)(probabilities)
