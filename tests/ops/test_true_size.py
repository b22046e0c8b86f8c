"""Operations that know the true size of a padded map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import depthwise
from deeplax.ops import padding
from deeplax.ops import resize
from deeplax.ops import true_size
from tests.ops import truth

PADDED = (65, 65)
# Odd and even at each stride up to 16, and the smallest and the whole.
SIZES = [(1, 65), (2, 33), (48, 49), (50, 61), (64, 31), (65, 65)]


def _maps(size, channels=3, seed=0):
  """A map, and the same with numbers beyond its edge that must not be read."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(1, *size, channels)).astype(np.float32)
  wide = np.full((1, *PADDED, channels), np.nan, np.float32)
  wide[:, : size[0], : size[1]] = x
  return x, wide


def _within(function):
  """Jit a function of (padded map, true size)."""

  def run(x, true):
    with true_size.within(true_size.Extent(PADDED, true)):
      return function(x)

  return jax.jit(run)


@pytest.mark.parametrize("pad", ["same", "symmetric"])
@pytest.mark.parametrize(
  ("kernel", "stride", "rate"), [(3, 1, 2), (3, 2, 1), (5, 2, 1), (3, 4, 2)]
)
def test_kernels_read_zeros_beyond_the_true_edge(kernel, stride, rate, pad):
  weights = np.random.default_rng(1).normal(size=(kernel, kernel, 1, 3))
  weights = weights.astype(np.float32)

  def convolved(x):
    x, pads = true_size.windows(
      x, kernel=kernel, stride=stride, rate=rate, padding=pad
    )
    return depthwise.depthwise_conv_plain(
      x, weights, stride=stride, rate=rate, padding=pads
    )

  padded = _within(convolved)
  for size in SIZES:
    x, wide = _maps(size)
    expected = jax.jit(convolved)(x)
    found = padded(wide, np.array(size, np.int32))
    height, width = expected.shape[1:3]
    assert (height, width) == tuple(-(-n // stride) for n in size)
    assert found.shape[1:3] == tuple(-(-n // stride) for n in PADDED)
    np.testing.assert_allclose(
      found[:, :height, :width], expected, atol=1e-5, err_msg=f"{size}"
    )


def test_strided_windows_without_an_extent_are_the_paddings_of_the_rule():
  x = jnp.zeros((1, 8, 9, 2))
  same = functools.partial(true_size.windows, kernel=3, stride=2, rate=1)
  found, pads = same(x, padding="same")
  assert found is x
  assert pads == padding.same((8, 9), kernel=3, stride=2, rate=1)
  assert same(x, padding="symmetric")[1] == ((1, 1), (1, 1))


def test_means_are_those_of_the_true_map():
  mean = _within(true_size.mean)
  for size in SIZES:
    x, wide = _maps(size)
    np.testing.assert_allclose(
      mean(wide, np.array(size, np.int32)),
      x.mean((1, 2), keepdims=True),
      atol=1e-5,
    )


ALIGNMENTS = {True: truth.align_corners, False: truth.half_pixel}


@pytest.mark.parametrize("align_corners", ALIGNMENTS)
@pytest.mark.parametrize("strides", [(1, 4), (16, 4), (4, 1)])
def test_resizes_stretch_the_true_map(strides, align_corners):
  old, new = strides
  target = (-(-PADDED[0] // new), -(-PADDED[1] // new))
  resized = _within(
    lambda x: resize.resize_bilinear(x, target, align_corners=align_corners)
  )
  for size in SIZES:
    small, large = (tuple(-(-n // s) for n in size) for s in strides)
    x = np.random.default_rng(0).normal(size=(1, *small, 2)).astype(np.float32)
    wide = np.full((1, *(-(-n // old) for n in PADDED), 2), np.nan, np.float32)
    wide[:, : small[0], : small[1]] = x
    rows, columns = map(ALIGNMENTS[align_corners], small, large)
    expected = np.einsum("Hh,bhwc,Ww->bHWc", rows, x, columns)
    found = resized(wide, np.array(size, np.int32))
    np.testing.assert_allclose(
      found[:, : large[0], : large[1]], expected, atol=1e-5, err_msg=f"{size}"
    )


def test_a_mirrored_map_stays_at_the_left():
  x, wide = _maps((4, 7))
  found = _within(true_size.mirrored)(wide, np.array((4, 7), np.int32))
  np.testing.assert_array_equal(found[:, :4, :7], x[:, :, ::-1])
  np.testing.assert_array_equal(
    true_size.mirrored(jnp.asarray(x)), x[:, :, ::-1]
  )


def test_a_side_that_no_stride_gives_is_refused():
  known = true_size.Extent(PADDED, np.array((50, 60), np.int32))
  assert known.sides((17, 33)).tolist() == [13, 30]
  with pytest.raises(ValueError, match="side of 16 of an image of 65"):
    known.sides((16, 33))


def test_nothing_is_known_outside_and_after_an_error():
  x = jnp.ones((1, 5, 5, 1))
  with (
    pytest.raises(ZeroDivisionError),
    true_size.within(true_size.Extent((5, 5), np.array((2, 2), np.int32))),
  ):
    assert true_size.masked(x).sum() == 4
    raise ZeroDivisionError
  assert true_size.sides((5, 5)) is None
  assert true_size.masked(x) is x
