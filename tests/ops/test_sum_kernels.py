"""The kernels, step by step on any machine, against sums in float64."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import norm
from deeplax.ops import sum_kernels
from tests.ops import kernels

# 19 channels are no multiple of a block, 300 pixels none of a program's.
SHAPE = (3, 10, 10, 19)


def problem(shape, dtype):
  """Return a map, a gradient, and four vectors."""
  rng = np.random.default_rng(0)
  maps = rng.normal(size=(2, *shape)).astype(dtype)
  vectors = rng.uniform(0.5, 1.5, (4, shape[-1])).astype(np.float32)
  return *map(jnp.asarray, maps), *map(jnp.asarray, vectors)


def close(got, *terms):
  for g, values in zip(got, terms, strict=True):
    axes = tuple(range(values.ndim - 1))
    # Terms of both signs: digits are lost by their size, not by their sum's.
    atol = 1e-6 * np.abs(values).sum(axes).max()
    np.testing.assert_allclose(g, values.sum(axes), rtol=0, atol=atol)


def check_sums(shape, dtype):
  x, _, shift, *_ = problem(shape, dtype)
  got = sum_kernels.sums(x, shift)
  moved = np.asarray(x, np.float64) - np.asarray(shift, np.float64)
  close(got, moved, moved**2)


def check_gradient_sums(shape, dtype, limit):
  arrays = problem(shape, dtype)
  x, dy, scale, offset, mean, var = arrays
  of = norm.Normed(x, scale, offset, mean, var, 1e-3, limit, None)
  got = sum_kernels.gradient_sums(dy, of)
  x, dy, scale, offset, mean, var = (np.asarray(a, np.float64) for a in arrays)
  y = (x - mean) / np.sqrt(var + 1e-3) * scale + offset
  if limit is not None:
    dy = np.where((y > 0) & (y < limit), dy, 0)
  close(got, dy, dy * (x - mean))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sums_equal_those_in_float64(dtype):
  with kernels.interpreted():
    check_sums(SHAPE, dtype)


@pytest.mark.parametrize(
  ("limit", "dtype"),
  [(None, jnp.float32), (2.0, jnp.bfloat16), (math.inf, jnp.float32)],
)
def test_gradients_outside_the_bounds_are_not_summed(limit, dtype):
  with kernels.interpreted():
    check_gradient_sums(SHAPE, dtype, limit)


@pytest.mark.slow  # runs the programs of a card one after another
@pytest.mark.parametrize("shape", [(2, 65, 67, 200), (1, 1, 1, 3), (9, 728)])
def test_the_share_for_a_card_gives_the_same(shape):
  with backend.target("gpu", interpreted=True):
    check_sums(shape, jnp.float32)
    check_gradient_sums(shape, jnp.float32, 2.0)
