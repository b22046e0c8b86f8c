"""The dense CRF of an image: against all pairs, and where it could break."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax import crf
from deeplax.crf import dense
from deeplax.crf import lattice
from deeplax.crf import mean_field
from deeplax.settings import defaults
from tests.crf import golden
from tests.crf import truth


def scene(size=(10, 12), classes=3, seed=0):
  """A picture of two flat halves with noise, and unsure probabilities."""
  rng = np.random.default_rng(seed)
  image = np.full((*size, 3), 60, np.uint8)
  image[:, size[1] // 2 :] = 190
  image += rng.integers(0, 6, image.shape, np.uint8)
  logits = rng.normal(size=(*size, classes))
  logits[:, : size[1] // 2, 0] += 1.0
  logits[:, size[1] // 2 :, 1] += 1.0
  return image, truth.softmax(logits).astype(np.float32)


def by_all_pairs(image, probabilities, **settings):
  shape = probabilities.shape
  kernels = [
    truth.gaussian(
      truth.features(image, settings["sigma_alpha"], settings["sigma_beta"])
    ),
    truth.gaussian(truth.features(image, settings["sigma_gamma"])),
  ]
  logits = np.log(np.maximum(probabilities, 1e-5)).reshape(-1, shape[-1])
  weights = (settings["w1"], settings["w2"])
  return truth.mean_field(logits, kernels, weights, 10).reshape(shape)


@pytest.mark.parametrize("name", list(golden.SETTINGS))
def test_marginals_are_near_the_sum_over_all_pairs(name):
  image, probabilities = golden.image(), golden.probabilities()
  settings = golden.SETTINGS[name]
  found = np.asarray(crf.dense_crf(image, probabilities, **settings))
  expected = by_all_pairs(image, probabilities, **settings)
  # What is left is the lattice's own error; pydensecrf has the same.
  agreement = (found.argmax(-1) == expected.argmax(-1)).mean()
  assert agreement > 0.95
  assert np.abs(found - expected).mean() < 0.02


def test_the_kernels_are_those_of_the_paper():
  image, probabilities = scene()
  found = crf.dense_crf(
    image, probabilities, w1=2.5, sigma_alpha=31, sigma_beta=13, w2=1.5,
    sigma_gamma=1.7, iterations=4,
  )  # fmt: skip
  given = [truth.features(image, 31, 13), truth.features(image, 1.7)]
  lattices = [lattice.build(f.T.astype(np.float32)) for f in given]
  logits = np.log(probabilities).reshape(-1, 3)
  expected = mean_field.mean_field(logits, lattices, (2.5, 1.5), iterations=4)
  np.testing.assert_allclose(
    found, np.reshape(expected, probabilities.shape), atol=1e-6
  )


def test_noise_gives_way_to_the_edges_of_the_image():
  image, probabilities = scene((24, 30))
  truth_labels = np.zeros((24, 30), int)
  truth_labels[:, 15:] = 1
  before = (probabilities.argmax(-1) == truth_labels).mean()
  after = crf.dense_crf(image, probabilities, sigma_beta=13)
  assert before < 0.75
  assert (np.asarray(after).argmax(-1) == truth_labels).mean() > 0.99


@pytest.mark.parametrize(
  ("classes", "size"),
  [
    (4, (1, 1)),
    (4, (1, 7)),
    (4, (9, 1)),
    (1, (2, 2)),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in ((1, (1, 1)), (1, (1, 7)), (1, (9, 1)), (4, (2, 2)))
    ),
  ],
)
def test_the_smallest_images_have_marginals(size, classes):
  image, probabilities = np.zeros((*size, 3), np.uint8), np.full(
    (*size, classes), 1 / classes, np.float32
  )  # fmt: skip
  found = np.asarray(crf.dense_crf(image, probabilities))
  np.testing.assert_allclose(found, 1 / classes, atol=1e-6)


def test_a_single_pixel_reinforces_itself():
  # K is 1 there: logits + (w1 + w2) marginals, ten times.
  probabilities = np.array([[[0.6, 0.4]]], np.float32)
  found = crf.dense_crf(np.zeros((1, 1, 3), np.uint8), probabilities)
  logits = np.log(probabilities[0].astype(np.float64))
  expected = truth.mean_field(logits, [np.eye(1)], [7], 10)
  np.testing.assert_allclose(np.asarray(found)[0], expected, atol=1e-5)


@pytest.mark.parametrize("value", [0, 255])
def test_a_constant_image_is_smoothed_as_a_whole(value):
  _, probabilities = scene((40, 50))
  image = np.full((40, 50, 3), value, np.uint8)
  found = np.asarray(crf.dense_crf(image, probabilities))
  assert np.isfinite(found).all()
  np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
  changed = found.argmax(-1) != probabilities.argmax(-1)
  assert 0.05 < changed.mean() < 0.9


def test_probabilities_of_zero_and_one_are_no_infinite_energies():
  image, probabilities = scene()
  hard = np.eye(3, dtype=np.float32)[probabilities.argmax(-1)]
  found = np.asarray(crf.dense_crf(image, hard))
  assert np.isfinite(found).all()
  soft = np.maximum(hard, 1e-5)
  np.testing.assert_allclose(found, crf.dense_crf(image, soft), atol=1e-6)
  nothing = np.asarray(crf.dense_crf(image, 0 * hard))
  np.testing.assert_allclose(nothing, 1 / 3, atol=1e-5)


def test_padding_changes_nothing():
  image, probabilities = scene((9, 11))
  expected = crf.dense_crf(image, probabilities)
  rng = np.random.default_rng(1)
  padded = rng.integers(0, 256, (13, 17, 3), np.uint8)
  padded[:9, :11] = image
  outside = rng.random((13, 17, 3)).astype(np.float32)
  outside /= outside.sum(-1, keepdims=True)
  inside = outside.copy()
  inside[:9, :11] = probabilities
  mask = np.zeros((13, 17), bool)
  mask[:9, :11] = True
  found = np.asarray(crf.dense_crf(padded, inside, mask=mask))
  np.testing.assert_allclose(found[:9, :11], expected, atol=1e-6)
  np.testing.assert_allclose(found[~mask], outside[~mask], atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_is_as_each_of_its_images(masked):
  given = [scene(seed=seed) for seed in range(2)]
  images, probabilities = map(np.stack, zip(*given, strict=True))
  masks = np.random.default_rng(4).random(images.shape[:3]) < 0.8
  found = crf.dense_crf(images, probabilities, mask=masks if masked else None)
  for i, one in enumerate(given):
    expected = crf.dense_crf(*one, mask=masks[i] if masked else None)
    np.testing.assert_allclose(found[i], expected, atol=1e-6)


def test_a_learned_compatibility_can_forbid_neighbors():
  image, probabilities = scene()
  potts = 1 - np.eye(3, dtype=np.float32)
  found = crf.dense_crf(image, probabilities, compatibility=potts)
  np.testing.assert_allclose(
    found, crf.dense_crf(image, probabilities), atol=2e-5
  )
  apart = potts.copy()
  apart[1, 0] = 20.0
  found = crf.dense_crf(image, probabilities, compatibility=apart)
  assert not (np.asarray(found).argmax(-1) == 1).any()


def test_gradients_reach_probabilities_and_weights():
  image, probabilities = scene()

  @jax.jit
  def loss(probabilities, w1, w2):
    found = crf.dense_crf(image, probabilities, w1=w1, w2=w2, iterations=3)
    return -jnp.log(found[..., 0]).sum()

  gradients = jax.grad(loss, (0, 1, 2))(probabilities, 4.0, 3.0)
  for name, gradient in zip(("p", "w1", "w2"), gradients, strict=True):
    assert np.isfinite(gradient).all() and np.asarray(gradient).any(), name
  step = 1e-2
  more, less = (loss(probabilities, 4.0 + s, 3.0) for s in (step, -step))
  slope = float(more - less) / (2 * step)
  assert float(gradients[1]) == pytest.approx(slope, rel=0.02)


def test_the_smoothness_kernel_of_a_size_is_built_once():
  first = dense.smoothness((7, 9), sigma_gamma=1)
  assert dense.smoothness((7, 9), sigma_gamma=1.0) is first
  assert dense.smoothness((9, 7), sigma_gamma=1) is not first


def test_the_defaults_are_those_of_the_configuration():
  signature = inspect.signature(crf.dense_crf)
  for key, value in defaults.base().eval.crf.items():
    assert signature.parameters[key].default == value, key


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"probabilities": np.ones((3, 4, 2), np.float32)}, r"\(3, 4\)"),
    ({"sigma_alpha": 0}, "sigma_alpha 0 must be a positive number"),
    ({"sigma_beta": -1.0}, "sigma_beta -1.0"),
    ({"sigma_gamma": float("nan")}, "sigma_gamma nan"),
    ({"sigma_beta": 1e-4}, "larger sigma"),
  ],
)
def test_wrong_arguments_are_named(changes, words):
  image, probabilities = scene()
  given = {"image": image, "probabilities": probabilities, **changes}
  with pytest.raises(ValueError, match=words):
    crf.dense_crf(**given)


def test_a_training_step_is_given_the_kernels():
  image, probabilities = scene()
  kernels = (
    dense.appearance(image, sigma_alpha=67, sigma_beta=3),
    dense.smoothness(image.shape[:2], sigma_gamma=1),
  )

  @jax.jit
  def step(probabilities, kernels, weights):
    unary = dense.log_probabilities(probabilities, kernels[0])
    return mean_field.mean_field(unary, kernels, weights)

  found = step(probabilities, kernels, (4.0, 3.0))[: 10 * 12]
  expected = np.reshape(crf.dense_crf(image, probabilities), (-1, 3))
  np.testing.assert_allclose(found, expected, atol=1e-6)
