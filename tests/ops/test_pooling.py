"""Max-pooling as Caffe rounds it, and at a rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import pooling


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
