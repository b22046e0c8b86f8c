"""Winograd's convolution equals the plain one, whatever the map's size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import dense
from deeplax.ops import winograd
from tests.ops import test_dense


def _conv(x, kernel, *, stride, **settings):
  assert stride == 1
  return winograd.conv(x, kernel, **settings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_and_gradients_are_those_of_the_definition(dtype):
  cases = [((13, 9), 1), ((16, 12), (1, 3)), ((9, 10), 2), ((1, 3), 1)]
  problems = [
    test_dense.problem(size, "same", dtype, stride=1, rate=rate)
    for size, rate in (cases if dtype == "float32" else cases[2:3])
  ]
  test_dense.check(_conv, problems)


def test_paddings_may_differ_on_every_side():
  (x, kernel, _), settings = test_dense.problem(
    (9, 12), "same", "float32", stride=1, rate=2
  )
  settings["padding"] = (3, 0), (2, 5)
  dy = np.random.default_rng(1).normal(size=(2, 8, 15, kernel.shape[3]))
  problem = [x, kernel, jnp.asarray(dy, jnp.float32)], settings
  test_dense.check(_conv, [problem])


def test_the_saving_is_told_by_the_map_and_the_rate():
  assert winograd.saving((16, 64), 1) == 36 / 16
  # 17 pixels take nine tiles of two; at rate 4 three, of each of 4 phases.
  assert winograd.saving((17, 17), 1) == pytest.approx(2.25 * (17 / 18) ** 2)
  assert winograd.saving((17, 17), 4) == pytest.approx(2.25 * (17 / 24) ** 2)
  assert winograd.saving((5, 5), (1, 8)) < 1


def _products(x, kernel, **settings):
  """Return how many matrix products and convolutions the CPU's form has."""
  with backend.target("cpu"):
    traced = jax.make_jaxpr(lambda x, k: dense.conv(x, k, **settings))(
      jax.ShapeDtypeStruct(x, jnp.float32),
      jax.ShapeDtypeStruct(kernel, jnp.float32),
    )
  names = [str(e.primitive) for e in traced.jaxpr.eqns]
  return names.count("dot_general"), names.count("conv_general_dilated")


def test_cpus_take_it_for_many_channels_where_tiles_fit():
  one, two, four = (((r, r), (r, r)) for r in (1, 2, 4))
  many, few = (3, 3, 128, 256), (3, 3, 128, 127)
  map_ = (1, 17, 17, 128)
  assert _products(map_, many, padding=one) == (16, 0)
  assert _products(map_, many, padding=two, rate=2) == (16, 0)
  assert _products(map_, many, padding=four, rate=4) == (0, 1)
  assert _products(map_, many, padding=one, stride=2) == (0, 1)
  assert _products(map_, few, padding=one) == (0, 1)
  assert _products(map_, (5, 5, 128, 128), padding=two) == (0, 1)
