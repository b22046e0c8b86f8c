"""Statistics of folded norms: measured right, and nothing else changes."""

import functools
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from deeplax.pretrained import folded_norms
from deeplax.pretrained import rules
from tests.models import test_programs
from tests.pretrained import toy


@functools.cache
def network():
  """A toy with folded norms, and pictures for it in two batches."""
  found = rules.load(toy.folded(), toy.TABLE, model=toy.Toy())
  variables = flax.traverse_util.unflatten_dict(found.values)
  rng = np.random.default_rng(2)
  batches = rng.uniform(-1, 1, (2, 3, 16, 12, 3)).astype(np.float32)
  return variables, batches, found.folded


@functools.cache
def measured():
  """The variables of `network` with what its pictures give."""
  variables, batches, folded = network()
  return folded_norms.with_statistics(
    toy.Toy(), variables, batches, modules=folded
  )


@functools.partial(jax.jit, static_argnames="train")
def apply(variables, images, *, train):
  return toy.Toy().apply(
    variables, images, train=train, method="coarse", mutable=["batch_stats"]
  )


def test_predictions_stay_and_training_sees_the_same_network():
  variables, batches, _ = network()
  found = measured()
  images = np.concatenate(batches)
  before, _ = apply(variables, images, train=False)
  after, _ = apply(found, images, train=False)
  np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
  # A training step over the same pictures normalizes by the same numbers.
  trained, _ = apply(found, images, train=True)
  scale = np.abs(np.asarray(before)).max()
  np.testing.assert_allclose(trained, before, atol=5e-3 * scale)
  # Without them it would be another network.
  other, _ = apply(variables, images, train=True)
  assert np.abs(np.asarray(other) - before).max() > 0.1 * scale


def test_mean_and_variance_are_those_of_the_convolution():
  variables, batches, _ = network()
  found = measured()
  kernel = variables["params"]["stem"]["kernel"]
  images = np.concatenate(batches)
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  y: Any = sum(
    padded[:, i : i + 16, j : j + 12] @ kernel[i, j]
    for i in range(3)
    for j in range(3)
  )
  stats = found["batch_stats"]["stem"]
  np.testing.assert_allclose(stats["mean"], y.mean((0, 1, 2)), rtol=1e-4)
  np.testing.assert_allclose(stats["var"], y.var((0, 1, 2)), rtol=5e-3)


def test_statistics_are_measured_in_float32_on_every_platform():
  def record(call, args, kwargs, context):
    return call(*args, **kwargs)

  variables, (images, _), _ = network()
  with jax.default_matmul_precision("default"):
    traced = folded_norms._intercepted(toy.Toy(), variables, record)
    program = traced.trace(images).jaxpr.jaxpr
  found = test_programs.precisions(program)
  assert len(found) >= 4 and {*found} == {jax.lax.Precision.HIGHEST}


def test_norms_that_were_not_folded_keep_theirs():
  variables, batches, _ = network()
  found = folded_norms.with_statistics(
    toy.Toy(), variables, batches, modules=[("stem",)]
  )
  for name in ("scale", "offset"):
    np.testing.assert_array_equal(
      found["params"]["blocks"][name], variables["params"]["blocks"][name]
    )
  assert (found["batch_stats"]["blocks"]["var"] == 1).all()
  assert (found["batch_stats"]["stem"]["var"] != 1).all()
