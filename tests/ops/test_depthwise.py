import contextlib
from functools import partial
import itertools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import dense
from deeplax.ops import depthwise
from deeplax.ops import norm
from deeplax.ops import padding
from tests.models import networks
from tests.ops import kernels
from tests.ops import truth

CHANNELS = 3

# Size, stride and padding rule, which makes a difference for even sizes at
# stride 2 only. From a rate of 16 on all but the center tap miss these maps.
CASES = {
  "float32": [
    ((13, 9), 1, "same"),
    ((13, 9), 2, "same"),
    ((16, 12), 2, "same"),
    ((16, 12), 2, "symmetric"),
  ],
  "bfloat16": [((16, 12), 1, "same"), ((13, 9), 2, "same")],
}
# Of rates that all taps, some or one alone read the maps at, one is fast.
FAST = (
  *((1, "float32"), (2, "bfloat16"), (12, "float32")),
  *((12, "bfloat16"), (36, "float32")),
)
RATES = pytest.mark.parametrize(
  ("rate", "dtype"),
  [
    pytest.param(*case, marks=() if case in FAST else networks.SLOW)
    for case in itertools.product(
      (1, 2, 4, 6, 12, 18, 24, 36), ("float32", "bfloat16")
    )
  ],
)
# Values are tested here, not speed: unoptimized code compiles twice as fast.
COMPILER = {"xla_backend_optimization_level": 0}
# Relative and absolute. float32: sums of up to 384 products. bfloat16: inputs
# are exact, sums float32, and rounding to its 8 bits costs 2^-9 of a value.
TOLERANCES = {
  "float32": (1e-5, 2e-5),
  "bfloat16": (2**-8, 1e-4),
}


def pads(size, rule, *, kernel, stride, rate):
  if rule == "same":
    return padding.same(size, kernel=kernel, stride=stride, rate=rate)
  return padding.symmetric(kernel=kernel, rate=rate)


def problem(size, rule, dtype, *, kernel=3, stride, rate):
  rng = np.random.default_rng(rate)
  padding_ = pads(size, rule, kernel=kernel, stride=stride, rate=rate)
  out = [
    (n + sum(p) - (kernel - 1) * r - 1) // stride + 1
    for n, p, r in zip(size, padding_, padding.pair(rate), strict=True)
  ]
  shapes = (
    (2, *size, CHANNELS),
    (kernel, kernel, 1, CHANNELS),
    (2, *out, CHANNELS),
  )
  arrays = [jnp.asarray(rng.normal(size=s), dtype) for s in shapes]
  settings: dict[str, Any] = dict(stride=stride, rate=rate, padding=padding_)
  return arrays, settings


def with_gradients(conv, settings):
  def run(x, kernel, dy):
    y, vjp = jax.vjp(lambda x, k: conv(x, k, **settings), x, kernel)
    return y, *vjp(dy)

  return run


def expected(x, kernel, dy, **settings):
  full = np.asarray(kernel, np.float64) * np.eye(CHANNELS)
  y, dx, dfull = truth.convolution(x, full, dy, **settings)
  return y, dx, np.einsum("hwcc->hwc", dfull)[:, :, None]


def check(conv, problems, expected=expected):
  """Compares values and gradients, compiling all problems at once."""
  run = jax.jit(
    lambda arrays: [
      with_gradients(conv, settings)(*a)
      for a, (_, settings) in zip(arrays, problems, strict=True)
    ],
    compiler_options=COMPILER,
  )
  results = run([arrays for arrays, _ in problems])
  for got, (arrays, settings) in zip(results, problems, strict=True):
    want = expected(*arrays, **settings)
    rtol, atol = TOLERANCES[str(arrays[0].dtype)]
    for name, g, w in zip(("y", "dx", "dkernel"), got, want, strict=True):
      assert g.dtype == arrays[0].dtype
      np.testing.assert_allclose(
        np.asarray(g, np.float64), w, rtol, atol, err_msg=f"{name} {settings}"
      )


@RATES
def test_depthwise_equals_a_convolution_with_zeros_in_its_holes(rate, dtype):
  problems = [
    problem(size, rule, dtype, stride=stride, rate=rate)
    for size, stride, rule in CASES[dtype]
  ]
  check(depthwise.depthwise_conv, problems)


@pytest.mark.parametrize("conv", ["depthwise_conv", "depthwise_conv_plain"])
def test_depthwise_takes_a_rate_of_rows_and_one_of_columns(conv):
  problems = [
    problem(size, rule, "float32", stride=stride, rate=rate)
    for size, stride, rule in CASES["float32"]
    for rate in ((1, 3), (5, 2))
  ]
  check(getattr(depthwise, conv), problems)


@pytest.mark.parametrize("kernel", [1, 2, 5])
def test_depthwise_takes_kernels_of_any_size(kernel):
  check(
    depthwise.depthwise_conv,
    [problem((11, 8), "same", "float32", kernel=kernel, stride=2, rate=2)],
  )


def test_plain_depthwise_is_the_same_operation():
  problems = [
    problem((13, 9), "same", "float32", stride=1, rate=12),
    problem((16, 12), "same", "float32", stride=2, rate=2),
  ]
  check(depthwise.depthwise_conv_plain, problems)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3)])
def test_depthwise_of_a_map_smaller_than_its_kernel(size):
  problems = [
    problem(size, "same", "float32", stride=stride, rate=2) for stride in (1, 2)
  ]
  check(depthwise.depthwise_conv, problems)


def test_gradients_inside_a_scan_equal_those_of_the_unrolled_layers():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 6, 5, 4)), jnp.float32)
  kernels = (
    jnp.asarray(rng.normal(size=(3, 3, 3, 1, 4)) / 3, jnp.float32),
    jnp.asarray(rng.normal(size=(3, 1, 1, 4, 4)) / 2, jnp.float32),
    jnp.asarray(rng.normal(size=(3, 3, 3, 4, 4)) / 6, jnp.float32),
  )

  def layer(x, kernels):
    spatial, pointwise, full = kernels
    same = padding.same((6, 5), kernel=3, stride=1, rate=2)
    x = depthwise.depthwise_conv(x, spatial, rate=2, padding=same)
    x = jnp.tanh(dense.conv(x, pointwise, padding=((0, 0), (0, 0))))
    return jnp.tanh(dense.conv(x, full, rate=2, padding=same)), None

  def scanned(x, kernels):
    return jnp.sum(lax.scan(layer, x, kernels)[0] ** 2)

  def unrolled(x, kernels):
    for i in range(3):
      x, _ = layer(x, [k[i] for k in kernels])
    return jnp.sum(x**2)

  got, want = (
    jax.jit(jax.grad(f, (0, 1)), compiler_options=COMPILER)(x, kernels)
    for f in (scanned, unrolled)
  )
  for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6)


FORMS = ("shifted", "rows", "fused", "library")


@contextlib.contextmanager
def form(name):
  with kernels.interpreted():
    with backend.chosen(depthwise=name, statistics="one_pass"):
      yield


@pytest.mark.parametrize("name", FORMS)
def test_all_forms_are_the_same_operation(name):
  problems = [
    problem((5, 6), "same", "float32", stride=1, rate=(1, 2)),
    problem((6, 5), "same", "float32", stride=2, rate=1),
    # The kernels have no stride beside a rate: another form takes it.
    problem((9, 8), "same", "float32", stride=2, rate=2),
  ]
  with form(name):
    check(depthwise.depthwise_conv, problems)


@pytest.mark.parametrize("name", FORMS)
def test_a_relu_before_a_convolution_is_part_of_it(name):
  (x, *rest), settings = problem((5, 6), "same", "float32", stride=1, rate=1)

  def positive(x, kernel, dy, **settings):
    y, dx, dkernel = expected(np.maximum(x, 0), kernel, dy, **settings)
    return y, np.where(np.asarray(x) > 0, dx, 0), dkernel

  with form(name):
    conv = partial(depthwise.depthwise_conv, relu=True)
    check(conv, [((x, *rest), settings)], positive)


# Bounded by the norm itself, or by what reads it.
@pytest.mark.parametrize(
  ("stride", "limit", "relu"), [(1, None, True), (2, 6.0, False)]
)
def test_a_norm_is_taken_along_by_what_reads_its_map(stride, limit, relu):
  (x, kernel, dy), settings = problem(
    (6, 5), "same", "float32", stride=stride, rate=1
  )
  x = 3 * x + 1
  scale, offset = jnp.asarray([2.0, -1.0, 5.0]), jnp.asarray([1.0, 2.0, 3.0])

  def on_the_way(x, scale, offset, kernel):
    of = norm.normed(x, scale, offset, eps=1e-3, limit=limit, shift=offset)
    y, sums = depthwise.depthwise_conv_sums(
      of, kernel, scale, relu=relu, **settings
    )
    return y, jax.tree.map(lax.stop_gradient, sums)

  def before(x, scale, offset, kernel):
    y, *_ = norm.batch_norm_plain(x, scale, offset, eps=1e-3)
    y = jnp.maximum(y, 0) if relu else jnp.clip(y, 0, limit)
    y = depthwise.depthwise_conv_plain(y, kernel, **settings)
    moved = y - scale.reshape(1, 1, 1, -1)
    return y, jnp.stack([moved.sum((0, 1, 2)), (moved**2).sum((0, 1, 2))])

  def run(conv):
    y, vjp, sums = jax.vjp(conv, x, scale, offset, kernel, has_aux=True)
    return y, sums, *vjp(dy)

  with form("rows"):
    got = jax.jit(lambda: run(on_the_way), compiler_options=COMPILER)()
  want = jax.jit(lambda: run(before), compiler_options=COMPILER)()
  names = ("y", "sums", "x", "scale", "offset", "kernel")
  for name, g, w in zip(names, got, want, strict=True):
    atol = 1e-5 * np.abs(w).max()
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=atol, err_msg=name)


def traced(arrays, settings):
  run = with_gradients(depthwise.depthwise_conv, settings)
  return str(jax.make_jaxpr(run)(*arrays))


def test_the_form_for_cpu_holds_no_convolution_and_the_librarys_does():
  arrays, settings = problem((13, 9), "same", "float32", stride=2, rate=1)
  with backend.target("cpu"):
    assert "conv_general_dilated" not in traced(arrays, settings)
  with backend.target("tpu"):
    assert "conv_general_dilated" in traced(arrays, settings)


@pytest.mark.parametrize(("stride", "rate"), [(1, 1), (2, 1), (1, (2, 3))])
def test_kernels_have_all_convolutions_but_a_stride_beside_a_rate(stride, rate):
  def on_gpu(stride, rate):
    problem_ = problem((13, 9), "same", "float32", stride=stride, rate=rate)
    with backend.target("gpu"):
      return traced(*problem_)

  # Of the map, of its gradient and of the kernel's.
  assert on_gpu(stride, rate).count("= pallas_call") == 3
  strided = on_gpu(2, rate=2)
  assert "pallas_call" not in strided
  assert "conv_general_dilated" not in strided


def test_kernels_of_a_loop_are_not_computed_anew_for_each_pixel():
  """Else the sum over windows takes five times as long on a CPU."""
  kernels, factors = np.ones((4, 3, 3, 1, 8)), np.ones((4, 8))

  def body(x, kernel_and_factor):
    kernel, factor = kernel_and_factor
    kernel = kernel * factor[None, None, None]
    return depthwise.FORMS["shifted"](x, kernel, 1, 1, ((1, 1), (1, 1))), None

  def repeated(x, *stacked):
    return jax.lax.scan(body, x, stacked)[0]

  x = np.ones((1, 33, 33, 8), np.float32)
  stacked = kernels.astype(np.float32), factors.astype(np.float32)
  text = jax.jit(repeated).lower(x, *stacked).compile().as_text() or ""
  sums = [part for part in text.split("\n\n") if part.count(" add(") > 7]
  assert len(sums) == 1
  assert "dynamic-slice" not in sums[0]
  assert sums[0].count(" multiply(") == 9
