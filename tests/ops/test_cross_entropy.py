from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplax.ops import backend
from deeplax.ops import cross_entropy


@pytest.fixture(params=["passes", "one_pass"], autouse=True)
def form(request):
  with backend.chosen(cross_entropy=request.param):
    yield request.param


def problem():
  rng = np.random.default_rng(0)
  logits = 5 * rng.normal(size=(2, 4, 5, 7)).astype(np.float32)
  labels = rng.integers(0, 7, (2, 4, 5))
  return logits, labels.astype(np.uint8)


def test_cross_entropy_and_its_gradient_equal_those_of_optax():
  logits, labels = problem()
  weights = np.random.default_rng(1).normal(size=labels.shape)
  weights = weights.astype(np.float32)

  @partial(jax.jit, static_argnums=0)
  def run(loss, logits):
    y, vjp = jax.vjp(lambda logits: loss(logits, labels), logits)
    return y, vjp(weights)[0]

  got = run(cross_entropy.cross_entropy, logits)
  want = run(optax.softmax_cross_entropy_with_integer_labels, logits)
  for g, w in zip(got, want, strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6)


def test_cross_entropy_of_half_precision_is_computed_in_float32():
  logits, labels = problem()
  half = jnp.asarray(logits, jnp.bfloat16)
  got = cross_entropy.cross_entropy(half, labels)
  want = cross_entropy.cross_entropy(half.astype(jnp.float32), labels)
  assert got.dtype == jnp.float32
  np.testing.assert_array_equal(got, want)


def test_cross_entropy_of_huge_logits_is_finite():
  logits = np.array([[1e4, -1e4], [-1e30, 0.0]], np.float32)
  labels = np.array([1, 1])
  got = cross_entropy.cross_entropy(logits, labels)
  np.testing.assert_allclose(got, [2e4, 0.0])


def test_the_best_class_is_the_first_of_the_largest():
  logits, labels = problem()
  logits = np.round(logits)  # many ties
  _, best = jax.jit(cross_entropy.with_best)(logits, labels)
  np.testing.assert_array_equal(best, logits.argmax(-1))
  _, best = cross_entropy.with_best(
    np.zeros((1, 5), np.float32), labels[0, 0, :1]
  )
  assert best.tolist() == [0]


def test_one_pass_reduces_the_classes_once(form):
  logits, labels = problem()
  jaxpr = jax.make_jaxpr(cross_entropy.with_best)(logits, labels)
  reductions = str(jaxpr).count("axes=(3,)") + str(jaxpr).count(
    "dimensions=(3,)"
  )
  assert (reductions == 1) == (form == "one_pass")
