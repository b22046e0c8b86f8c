"""The kernels, step by step on any machine, against sums in float64."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import kernel_parts
from deeplax.ops import padding as paddings
from deeplax.ops import row_kernels
from tests.models import networks
from tests.ops import kernels

IMAGES = 2
# Values are tested here, not speed: unoptimized code compiles twice as fast.
COMPILER = {"xla_backend_optimization_level": 0}


class Case(NamedTuple):
  """A convolution, by default 3x3, and what it reads of its map."""

  size: tuple[int, int]
  channels: int
  stride: int = 1
  rate: tuple[int, int] = (1, 1)
  padding: paddings.Padding = ((1, 1), (1, 1))
  limit: float | None = None
  affine: bool = False
  kernel: int = 3

  def outputs(self):
    return tuple(
      (n + sum(p) - (self.kernel - 1) * r - 1) // self.stride + 1
      for n, p, r in zip(self.size, self.padding, self.rate, strict=True)
    )


CASES = {
  "several strips, walks and blocks": Case(
    (7, 5), 200, affine=True, limit=math.inf
  ),
  "pair of rates": Case(
    (10, 7), 19, rate=(2, 3), padding=((2, 2), (3, 3)), limit=6.0
  ),
  "rates beyond the map": Case(
    (5, 4), 8, rate=(12, 6), padding=((12, 12), (6, 6)), affine=True
  ),
  "more behind than before": Case((6, 5), 8, padding=((0, 2), (1, 2))),
  "stride 2, odd size": Case(
    (9, 11), 19, stride=2, affine=True, limit=math.inf
  ),
  "stride 2, even size, nothing before": Case(
    (8, 6), 40, stride=2, padding=((0, 1), (0, 1)), limit=6.0
  ),
}
FAST = (
  *("several strips, walks and blocks", "pair of rates"),
  *("rates beyond the map", "stride 2, odd size"),
)
LARGER = {
  "a map of many tiles": Case((40, 37), 200, affine=True, limit=math.inf),
  "a rate and many tiles": Case(
    (50, 21), 136, rate=(2, 3), padding=((2, 2), (3, 3))
  ),
  "stride 2 and many tiles": Case((33, 40), 72, stride=2, limit=6.0),
  "5x5": Case((13, 15), 19, kernel=5, padding=((2, 2), (2, 2)), affine=True),
  "5x5, stride 2": Case(
    (13, 16), 8, stride=2, kernel=5, padding=((2, 2), (1, 2)), limit=6.0
  ),
  "2x2, stride 3": Case((8, 10), 8, 3, kernel=2, padding=((0, 1), (1, 0))),
}


class Problem(NamedTuple):
  x: Any
  kernel: Any
  dy: Any
  shift: Any
  affine: Any


def problem(case, dtype):
  rng = np.random.default_rng(case.channels)
  c, k = case.channels, case.kernel

  def normal(*shape, dtype: Any = np.float32):
    return rng.normal(size=shape).astype(dtype)

  return Problem(
    normal(IMAGES, *case.size, c, dtype=dtype),
    normal(k, k, 1, c, dtype=dtype),
    normal(IMAGES, *case.outputs(), c, dtype=dtype),
    normal(c),
    (3 * normal(c), normal(c)) if case.affine else (),
  )


def found(case, given, *, sums=True):
  """Return map, gradients by map and kernel, and the sums of the first two."""

  def run(given):
    reads: Any = {
      "window": row_kernels.window(case.stride, case.rate, case.padding),
      "read": kernel_parts.Read(case.limit, given.affine),
    }
    x, kernel, dy, shift, _ = given
    shift = shift if sums else None
    y, of_y = row_kernels.forward(
      x, kernel, size=case.outputs(), shift=shift, **reads
    )
    dx, of_dx = row_kernels.input_gradient(dy, kernel, x, mean=shift, **reads)
    dkernel = row_kernels.kernel_gradient(x, dy, kernel, **reads)
    return (y, dx, dkernel), of_y, of_dx

  given = jax.tree.map(jnp.asarray, given)
  return jax.jit(run, compiler_options=COMPILER)(given)


def wide(arrays):
  return jax.tree.map(lambda a: np.asarray(a, np.float64), arrays)


def expected(case, given):
  """Return map, and gradients by what is convolved and by the kernel."""
  x, kernel, dy, _, affine = wide(given)
  if affine:
    x = x * affine[0] + affine[1]
  passes = np.ones(x.shape)
  if case.limit is not None:
    passes = (x > 0) & (x < case.limit)
    x = np.clip(x, 0, case.limit)
  padded = np.pad(x, ((0, 0), *case.padding, (0, 0)))
  y, dkernel = np.zeros(dy.shape), np.zeros(kernel.shape)
  dpadded = np.zeros(padded.shape)
  stride, (down, across) = case.stride, case.rate
  for i, j in np.ndindex(kernel.shape[:2]):
    rows = slice(i * down, i * down + stride * (dy.shape[1] - 1) + 1, stride)
    columns = slice(
      j * across, j * across + stride * (dy.shape[2] - 1) + 1, stride
    )
    read = padded[:, rows, columns]
    y += read * kernel[i, j]
    dkernel[i, j] = (read * dy).sum((0, 1, 2))
    dpadded[:, rows, columns] += dy * kernel[i, j]
  (top, _), (left, _) = case.padding
  height, width = case.size
  dx = dpadded[:, top : top + height, left : left + width] * passes
  return y, dx, dkernel


def close(got, want, rtol=0.0):
  # float32 has 24 bits, and sums here lose a few of the last.
  atol = 1e-6 * np.abs(want).max()
  np.testing.assert_allclose(wide(got), want, rtol=rtol, atol=atol)


def check(case, dtype: Any = jnp.float32, *, sums=True):
  given = problem(case, dtype)
  maps, *totals = found(case, given, sums=sums)
  # bfloat16 has 8 bits: rounding costs up to 2^-8 of a value.
  rtol = 2**-8 if dtype == jnp.bfloat16 else 0.0
  for got, want in zip(maps, expected(case, given), strict=True):
    assert got.dtype == dtype
    close(got, want, rtol)
  if not sums:
    assert totals == [None, None]
    return
  # A norm wants the sums of the rounded values, which it reads.
  y, dx, _ = wide(maps)
  x, _, _, shift, _ = wide(given)
  for got, first, second in zip(
    totals, (y - shift, dx), (y - shift, x - shift), strict=True
  ):
    want = first.sum((0, 1, 2)), (first * second).sum((0, 1, 2))
    for g, w, terms in zip(got, want, (first, first * second), strict=True):
      # Terms of both signs: digits are lost by their size, not by their sum's.
      scale = np.abs(terms).sum((0, 1, 2)).max()
      np.testing.assert_allclose(wide(g), w, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize(
  "case",
  [
    pytest.param(case, id=name, marks=() if name in FAST else networks.SLOW)
    for name, case in CASES.items()
  ],
)
def test_kernels_equal_the_sums_in_float64(case):
  with kernels.interpreted():
    check(case)


@pytest.mark.parametrize("stride", [1, 2])
def test_half_precision_is_summed_in_float32_and_rounded_once(stride):
  with kernels.interpreted():
    check(Case((5, 6), 19, stride, limit=6.0, affine=True), jnp.bfloat16)


@pytest.mark.parametrize("stride", [1, 2])
def test_maps_need_no_sums(stride):
  with kernels.interpreted():
    check(Case((5, 6), 8, stride), sums=False)


@pytest.mark.slow  # compiles whole tiles
@pytest.mark.parametrize("case", LARGER.values(), ids=LARGER)
def test_the_tiles_for_a_card_give_the_same(case):
  with backend.target("gpu", interpreted=True):
    check(case)


@pytest.mark.slow  # compiles whole tiles
def test_the_tiles_for_a_card_round_half_precision_once():
  with backend.target("gpu", interpreted=True):
    check(LARGER["a map of many tiles"], jnp.bfloat16)
