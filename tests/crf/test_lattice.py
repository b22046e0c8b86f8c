"""The permutohedral filter, against the same lattice in dictionaries."""

import jax
import numpy as np
import pytest

from deeplax.crf import filtering
from deeplax.crf import lattice
from tests.crf import truth


def points(d, n=60, scale=1.5, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(d, n)).astype(np.float32) * np.float32(scale)


apply = jax.jit(filtering.apply, static_argnums=2)


def matrix(built, n, reverse=False):
  """The filter as an [n, n] matrix."""
  rows = built.corners.shape[-1]
  found = apply(built, np.eye(rows, dtype=np.float32), reverse)
  assert not np.asarray(found)[n:].any() and not np.asarray(found)[:, n:].any()
  return np.asarray(found)[:n, :n]


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize("scale", [0.2, 1.5, 20.0])
def test_the_filter_is_that_of_the_plain_lattice(d, scale):
  given = points(d, scale=scale)
  expected = truth.lattice(given.T.astype(np.float64))
  found = matrix(lattice.build(given), 60)
  np.testing.assert_allclose(found, expected, atol=3e-6)


def test_the_plain_lattice_is_near_the_gaussian():
  given = points(2, scale=1.0).T.astype(np.float64)
  error = np.abs(truth.lattice(given) - truth.gaussian(given))
  # Of kernels whose largest value is about 0.4 off the diagonal.
  assert error.max() < 0.08 and error.mean() < 0.006


@pytest.mark.parametrize("d", [2, 5])
def test_the_reversed_filter_is_the_transpose(d):
  built = lattice.build(points(d))
  forward, backward = matrix(built, 60), matrix(built, 60, reverse=True)
  np.testing.assert_allclose(backward, forward.T, atol=1e-6)
  if d == 5:
    assert np.abs(forward - forward.T).max() > 1e-5


@pytest.mark.parametrize("d", [2, 5])
def test_the_order_of_vertices_does_not_matter(d):
  given = points(d)
  np.testing.assert_allclose(
    matrix(lattice.build(given, raster=True), 60),
    matrix(lattice.build(given), 60),
    atol=1e-6,
  )


def test_pixels_that_share_a_vertex_by_the_thousand_are_all_summed():
  given = points(5, 1500, scale=0.03)
  built = lattice.build(given)
  assert built.chunk_vertex.any()
  values = (
    np.random.default_rng(1)
    .random((built.corners.shape[1], 2))
    .astype(np.float32)
  )
  found = np.asarray(apply(built, values))[:1500]
  expected = truth.lattice(given.T.astype(np.float64)) @ values[:1500]
  np.testing.assert_allclose(found, expected, rtol=2e-5)


@pytest.mark.parametrize("raster", [False, True])
def test_masked_pixels_are_as_if_they_were_not_there(raster):
  given = points(5)
  mask = np.random.default_rng(2).random(60) < 0.7
  whole = matrix(lattice.build(given, mask=mask, raster=raster), 60)
  alone = matrix(lattice.build(given[:, mask], raster=raster), mask.sum())
  np.testing.assert_allclose(whole[np.ix_(mask, mask)], alone, atol=1e-7)
  assert not whole[~mask].any() and not whole[:, ~mask].any()


def test_a_mask_of_nothing_filters_to_nothing():
  built = lattice.build(points(5), mask=np.zeros(60, bool))
  values = np.ones((built.corners.shape[1], 3), np.float32)
  assert not np.asarray(apply(built, values)).any()


def test_values_of_padding_rows_do_not_matter():
  built = lattice.build(points(5))
  values = np.ones((built.corners.shape[1], 3), np.float32)
  expected = np.asarray(apply(built, values))[:60]
  values[60:] = 1e6
  found = np.asarray(apply(built, values))[:60]
  np.testing.assert_array_equal(found, expected)


def test_values_of_another_number_of_pixels_are_refused():
  built = lattice.build(points(5))
  with pytest.raises(ValueError, match="7 pixels and a lattice of 60"):
    filtering.apply(built, np.ones((7, 3), np.float32))


def test_keys_that_do_not_fit_into_64_bits_are_told_apart():
  near = points(5)
  # 17 bits and more for each of five coordinates.
  offsets = np.array([1, -1, 1, 1, -1], np.float32)[:, None] * 1.5e5
  far = np.concatenate([near, near[:, :20] + offsets], axis=1)
  found = matrix(lattice.build(far), 80)
  np.testing.assert_allclose(
    found[:60, :60], matrix(lattice.build(near), 60), atol=1e-7
  )
  assert not found[:60, 60:].any()
  np.testing.assert_allclose(np.diagonal(found)[60:] > 0, True)


def test_long_keys_give_what_short_keys_give(monkeypatch):
  given = points(5, 300)
  expected = lattice.build(given)
  monkeypatch.setattr(lattice, "_sorted_items", lattice._sorted_items_slowly)
  np.testing.assert_allclose(
    matrix(lattice.build(given), 300), matrix(expected, 300), atol=1e-6
  )


@pytest.mark.parametrize("value", [np.nan, np.inf, 4e5])
def test_features_that_float32_cannot_place_are_refused(value):
  given = points(2)
  given[0, 0] = value
  with pytest.raises(ValueError, match="larger sigma"):
    lattice.build(given)


def test_a_stack_filters_as_each_of_its_lattices():
  # The crowded one has chunks, the other has none.
  given = [points(3, 60, scale=0.1), points(3, 60, scale=3.0)]
  built = [lattice.build(one) for one in given]
  assert built[0].chunk_vertex.size > built[1].chunk_vertex.size
  stacked = lattice.stack(built)
  values = np.random.default_rng(3).random((2, 60, 4)).astype(np.float32)
  found = jax.jit(jax.vmap(lambda *given: filtering.apply(*given)))(
    stacked, values
  )
  for i in range(2):
    np.testing.assert_allclose(found[i], apply(built[i], values[i]), atol=1e-6)


def test_buckets_waste_at_most_an_eighth_and_are_few():
  counts = np.arange(1, 5000)
  lengths = np.array([lattice.bucket(int(c)) for c in counts])
  assert lattice.bucket(0) == 0
  assert (lengths >= counts).all()
  assert (lengths[8:] * 8 <= counts[8:] * 9 + 8).all()
  assert len(set(lengths.tolist())) < 80
  assert all(lattice.bucket(int(x)) == x for x in lengths)
