"""Mean field, against the same sums in float64, and its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.crf import lattice
from deeplax.crf import mean_field
from tests.crf import truth

N, K = 40, 4
WEIGHTS = (4.0, 2.5)


def problem(seed=0):
  """Logits [n, k], and features of two kernels, each [d, n]."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(N, K)).astype(np.float32) * 2
  near = rng.normal(size=(5, N)).astype(np.float32)
  return logits, (near, near[:2] * np.float32(2))


@functools.cache
def kernels(seed=0):
  """The kernels of a problem, as matrices."""
  _, features = problem(seed)
  return [truth.lattice(f.T.astype(np.float64)) for f in features]


def lattices(features):
  return [lattice.build(f) for f in features]


RANDOM = np.random.default_rng(5).normal(size=(K, K)).astype(np.float32)


@pytest.mark.parametrize(
  "compatibility", [None, 1 - np.eye(K, dtype=np.float32), RANDOM]
)
@pytest.mark.parametrize("iterations", [0, 1, 10])
def test_marginals_are_those_of_float64(compatibility, iterations):
  logits, features = problem()
  found = mean_field.mean_field(
    logits,
    lattices(features),
    WEIGHTS,
    iterations=iterations,
    compatibility=compatibility,
  )
  expected = truth.mean_field(
    logits, kernels(), WEIGHTS, iterations, compatibility
  )
  np.testing.assert_allclose(found, expected, atol=2e-5)
  np.testing.assert_allclose(np.sum(found, -1), 1, atol=1e-6)


def test_an_isolated_label_takes_its_share_without_messages():
  logits, features = problem()
  kernels_of = lattices(features)
  found = mean_field.mean_field(
    logits, kernels_of, WEIGHTS, iterations=1, isolate_last=True
  )
  marginals = truth.softmax(logits.astype(np.float64))[:, :-1]
  expected = logits.astype(np.float64)
  for kernel, weight in zip(kernels(), WEIGHTS, strict=True):
    expected[:, :-1] += weight * kernel @ marginals
  np.testing.assert_allclose(found, truth.softmax(expected), atol=2e-5)
  with pytest.raises(ValueError, match="Potts"):
    mean_field.mean_field(
      logits, kernels_of, WEIGHTS, compatibility=RANDOM, isolate_last=True
    )


def test_each_weight_is_its_own_kernels():
  logits, features = problem()
  found = mean_field.mean_field(logits, lattices(features), (0.0, 2.0))
  one = mean_field.mean_field(logits, lattices(features)[1:], (2.0,))
  np.testing.assert_allclose(found, one, atol=1e-6)
  other = mean_field.mean_field(logits, lattices(features), (2.0, 0.0))
  assert np.abs(np.asarray(other) - np.asarray(one)).max() > 0.01


def test_one_class_is_certain():
  _, features = problem()
  logits = np.linspace(-9, 0, N, dtype=np.float32)[:, None]
  found = mean_field.mean_field(logits, lattices(features), WEIGHTS)
  np.testing.assert_array_equal(found, np.ones((N, 1)))


def _loss_and_parts(seed=1):
  logits, features = problem(seed)
  direction = np.random.default_rng(2).normal(size=(N, K))
  rng = np.random.default_rng(3)
  parts = {
    "logits": logits,
    "weights": np.array(WEIGHTS, np.float32),
    "compatibility": (1 - np.eye(K) + 0.1 * RANDOM).astype(np.float32),
  }
  towards = {k: rng.normal(size=v.shape) for k, v in parts.items()}
  return features, direction, parts, towards


@functools.cache
def _gradients():
  """The gradient of the loss with respect to each part."""
  features, direction, parts, _ = _loss_and_parts()
  built = lattices(features)

  def loss(parts):
    found = mean_field.mean_field(
      parts["logits"],
      built,
      list(parts["weights"]),
      iterations=3,
      compatibility=parts["compatibility"],
    )
    return (found * jnp.asarray(direction, jnp.float32)).sum()

  return jax.jit(jax.grad(loss))(parts)


@pytest.mark.parametrize("name", ["logits", "weights", "compatibility"])
def test_gradients_are_finite_differences_of_float64(name):
  _, direction, parts, towards = _loss_and_parts()
  plain = kernels(seed=1)

  def exact(step):
    moved = {k: v.astype(np.float64) for k, v in parts.items()}
    moved[name] = moved[name] + step * towards[name]
    found = truth.mean_field(
      moved["logits"], plain, moved["weights"], 3, moved["compatibility"]
    )
    return (found * direction).sum()

  gradient = np.asarray(_gradients()[name])
  slope = (exact(1e-5) - exact(-1e-5)) / 2e-5
  assert abs(slope) > 0.01
  assert (gradient * towards[name]).sum() == pytest.approx(slope, rel=2e-3)


def test_a_batch_is_as_each_of_its_images():
  logits, features = zip(*(problem(seed) for seed in range(2)), strict=True)
  own = [lattice.stack([lattices(f)[i] for f in features]) for i in range(2)]
  found = mean_field.mean_field(np.stack(logits), own, WEIGHTS)
  shared = [own[0], lattices(features[0])[1]]
  partly = mean_field.mean_field(np.stack(logits), shared, WEIGHTS)
  for i in range(2):
    one = mean_field.mean_field(logits[i], lattices(features[i]), WEIGHTS)
    np.testing.assert_allclose(found[i], one, atol=1e-6)
    mixed = [lattices(features[i])[0], lattices(features[0])[1]]
    one = mean_field.mean_field(logits[i], mixed, WEIGHTS)
    np.testing.assert_allclose(partly[i], one, atol=1e-6)


@pytest.mark.slow
def test_gradients_of_a_batch_are_those_of_its_images():
  logits, features = zip(*(problem(seed) for seed in range(2)), strict=True)
  own = [lattice.stack([lattices(f)[i] for f in features]) for i in range(2)]

  @jax.jit
  @jax.grad
  def gradient(logits, lattices):
    found = mean_field.mean_field(logits, lattices, WEIGHTS, iterations=2)
    return (found**2).sum()

  found = gradient(jnp.stack(logits), own)
  for i in range(2):
    expected = gradient(jnp.asarray(logits[i]), lattices(features[i]))
    np.testing.assert_allclose(found[i], expected, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"weights": (1.0,)}, "1 weights for 2 kernels"),
    ({"iterations": -1}, "iterations -1"),
    ({"log_probabilities": np.zeros((7, K), np.float32)}, "7 pixels and a"),
  ],
)
def test_what_does_not_fit_together_is_refused(changes, words):
  logits, features = problem()
  given = {
    "log_probabilities": logits,
    "lattices": lattices(features),
    "weights": WEIGHTS,
    **changes,
  }
  with pytest.raises(ValueError, match=words):
    mean_field.mean_field(**given)
