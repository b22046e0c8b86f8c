"""Max-pooling as Caffe rounds it and at a rate, and Caffe's averages."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import pooling
from deeplax.ops import true_size


@pytest.mark.parametrize("size", [1, 2, 7, 8, 33, 34])
def test_poolings_of_caffe_round_their_output_up(size):
  # Caffe's pooling_layer.cpp: ceil((n + 2 pad - k) / s) + 1.
  for kernel, pad in ((2, 0), (3, 1)):
    x = jnp.arange(size * size, dtype=jnp.float32).reshape(1, size, size, 1)
    y = pooling.max_pool(x, kernel, stride=2, padding="ceil")
    assert y.shape[1] == -(-(size + 2 * pad - kernel) // 2) + 1
    assert y[0, -1, -1, 0] == x.max() and jnp.isfinite(y).all()
    kept = pooling.max_pool(x, kernel, stride=1, padding="ceil")
    assert kept.shape == x.shape


def test_a_max_pool_at_a_rate_is_that_of_every_second_pixel():
  x = np.random.default_rng(0).normal(size=(2, 9, 11, 3)).astype(np.float32)
  found = pooling.max_pool(x, 3, stride=1, rate=2, padding="symmetric")
  expected = pooling.max_pool(x[:, ::2, ::2], 3, stride=1, padding="symmetric")
  np.testing.assert_array_equal(found[:, ::2, ::2], expected)


def averages(x, kernel):
  """Caffe's pooling_layer.cpp, AVE with stride 1: the padding counts."""
  reach = kernel // 2
  padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  height, width = x.shape[1:3]
  windows = [
    padded[:, i : i + height, j : j + width]
    for i, j in np.ndindex(kernel, kernel)
  ]
  return np.sum(windows, axis=0) / kernel**2


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 8), (41, 41)])
def test_averages_count_the_padding_as_caffe_s_do(size):
  x = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
  y = pooling.average_pool(x, 3)
  np.testing.assert_allclose(y, averages(x, 3), rtol=1e-6)
  # A constant falls off towards the edge: 4 of 9 pixels in a corner.
  assert pooling.average_pool(np.ones_like(x), 3)[0, 0, 0, 0] <= 0.45


def test_averages_of_bfloat16_are_rounded_once():
  x = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 9, 9, 4)))
  x = x.astype(jnp.bfloat16)
  found = pooling.average_pool(x, 3)
  assert found.dtype == jnp.bfloat16
  expected = averages(np.asarray(x, np.float32), 3)
  np.testing.assert_array_equal(found, expected.astype(jnp.bfloat16))


@pytest.mark.parametrize("size", [(3, 5), (6, 4)])
def test_averages_on_a_padded_map_are_those_of_the_true_one(size):
  x = np.random.default_rng(0).normal(size=(1, *size, 2)).astype(np.float32)
  wide = np.full((1, 9, 9, 2), np.nan, np.float32)
  wide[:, : size[0], : size[1]] = x

  def run(padded, true):
    with true_size.within(true_size.Extent((9, 9), true)):
      return pooling.average_pool(padded, 3)

  found = jax.jit(run)(wide, np.array(size, np.int32))
  np.testing.assert_allclose(
    found[:, : size[0], : size[1]], averages(x, 3), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ("kernel", "stride", "padding"),
  [(3, 2, "same"), (3, 2, "symmetric"), (3, 1, "ceil"), (2, 3, "same")],
)
def test_the_gradient_without_scatters_is_the_librarys(kernel, stride, padding):
  rng = np.random.default_rng(0)
  # Few values, so that windows have several largest ones.
  x = jnp.asarray(rng.integers(0, 3, (2, 9, 12, 3)), jnp.float32)
  pool = partial(
    pooling.max_pool, kernel=kernel, stride=stride, padding=padding
  )
  dy = jnp.asarray(rng.integers(-9, 9, pool(x).shape), jnp.float32)

  @jax.jit
  def gradient(x):
    return jax.vjp(pool, x)[1](dy)[0]

  expected = gradient(x)
  assert "scatter" in str(jax.make_jaxpr(gradient)(x))
  with backend.in_order():
    np.testing.assert_array_equal(gradient(x), expected)
    assert "scatter" not in str(jax.make_jaxpr(gradient)(x))
