import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import dense
from tests.ops import test_depthwise
from tests.ops import truth

FEATURES = 4


def problem(size, rule, dtype, *, kernel=3, stride, rate):
  (x, k, dy), settings = test_depthwise.problem(
    size, rule, "float32", kernel=kernel, stride=stride, rate=rate
  )
  rng = np.random.default_rng(rate)
  k = rng.normal(size=(*k.shape[:2], x.shape[3], FEATURES))
  dy = rng.normal(size=(*dy.shape[:3], FEATURES))
  return [jnp.asarray(a, dtype) for a in (x, k, dy)], settings


def check(conv, problems):
  test_depthwise.check(conv, problems, expected=truth.convolution)


@test_depthwise.RATES
def test_conv_equals_a_convolution_with_zeros_in_its_holes(rate, dtype):
  problems = [
    problem(size, rule, dtype, stride=stride, rate=rate)
    for size, stride, rule in test_depthwise.CASES[dtype]
  ]
  check(dense.conv, problems)


@pytest.mark.parametrize("rate", [(1, 3), (12, 2)])
def test_conv_takes_a_rate_of_rows_and_one_of_columns(rate):
  problems = [
    problem(size, rule, "float32", stride=stride, rate=rate)
    for size, stride, rule in test_depthwise.CASES["float32"]
  ]
  check(dense.conv, problems)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_1x1_conv_equals_a_convolution_at_either_stride(dtype):
  problems = [
    problem(size, "same", dtype, kernel=1, stride=stride, rate=1)
    for size in ((13, 9), (16, 12))
    for stride in (1, 2)
  ]
  check(dense.conv, problems)


def test_plain_conv_is_the_same_operation():
  problems = [
    problem((13, 9), "same", "float32", stride=1, rate=12),
    problem((16, 12), "same", "float32", kernel=1, stride=2, rate=1),
  ]
  check(dense.conv_plain, problems)


@pytest.mark.parametrize("kernel, rate", [(1, 1), (3, 12)])
def test_forms_for_cpu_hold_no_convolution_and_the_librarys_do(kernel, rate):
  arrays, settings = problem(
    (13, 9), "same", "float32", kernel=kernel, stride=1, rate=rate
  )

  def traced():
    run = test_depthwise.with_gradients(dense.conv, settings)
    return str(jax.make_jaxpr(run)(*arrays))

  with backend.target("cpu"):
    assert "conv_general_dilated" not in traced()
  with backend.target("gpu"):
    assert "conv_general_dilated" in traced()


def test_an_image_equals_a_convolution_where_its_layout_is_free():
  problems = []
  for size, rule, kernel, stride, rate in (
    ((13, 9), "same", 3, 2, 1),
    ((16, 12), "symmetric", 7, 2, 1),
    ((9, 9), "same", 3, 1, 2),
    ((5, 7), "same", 3, 1, 6),  # taps that never meet the map
    ((12, 9), "same", 1, 2, 1),
  ):
    (x, k, dy), settings = problem(
      size, rule, "float32", kernel=kernel, stride=stride, rate=rate
    )
    problems.append(([x[..., :3], k[:, :, :3], dy], settings))
  with backend.chosen(dense="free_layout"):
    check(dense.conv, problems)


def test_an_image_in_half_precision_rounds_once():
  (x, k, dy), settings = problem((13, 9), "same", "bfloat16", stride=2, rate=1)
  x, k = x[..., :3], k[:, :, :3]

  def run(form, *arrays):
    with backend.chosen(dense=form):
      y, _, dk = test_depthwise.with_gradients(dense.conv, settings)(*arrays)
    # Nothing asks for an image's own gradient.
    return [np.asarray(a, np.float32) for a in (y, dk)]

  wide = run("library", *(a.astype(jnp.float32) for a in (x, k, dy)))
  for g, w in zip(run("free_layout", x, k, dy), wide, strict=True):
    np.testing.assert_allclose(g, w, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize(
  "channels, kernel, convolutions",
  [(3, 3, 0), (16, 1, 0), (16, 3, 1), (dense.FEW_CHANNELS + 1, 1, 1)],
)
def test_a_free_layout_is_for_few_channels(channels, kernel, convolutions):
  x, k = jnp.ones((1, 9, 9, channels)), jnp.ones((kernel, kernel, channels, 4))
  side = kernel // 2, kernel // 2
  with backend.chosen(dense="free_layout"):
    traced = jax.make_jaxpr(
      lambda x, k: dense.conv(x, k, padding=(side, side))
    )(x, k)
  assert str(traced).count("conv_general_dilated[") == convolutions
