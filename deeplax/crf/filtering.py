"""Gaussian filtering of pixel values through a permutohedral lattice.

On a CPU most of the time is spent gathering rows from memory. So every step
gathers whole rows, which XLA fuses into one loop; `lattice` sets their order.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deeplax.arrays import Arrays
from deeplax.crf import lattice as lattice_lib

Lattice = lattice_lib.Lattice


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def apply(
  lattice: Lattice, values: Float[Arrays, "n k"], reverse: bool = False
) -> Float[Array, "n k"]:
  """Return filtered values; a pixel's own value takes part in its result.

  The filter is linear in the values, and its gradient is the same filter with
  the axes in reverse order. It has no gradient with respect to the lattice.

  Args:
    lattice: One image's, padded to n pixels.
    values: Of the pixels; padding may hold any finite value.
    reverse: Blur along the last axis first.

  Raises:
    ValueError: The lattice has another number of pixels.
  """
  rows = lattice.corners.shape[-1]
  if values.shape[0] != rows:
    # `_rows` does not check indices: one past the end would be read, too.
    raise ValueError(
      f"values of {values.shape[0]} pixels and a lattice of {rows}: pad them"
    )
  summed = _splat(lattice, jnp.asarray(values))
  neighbors = lattice.neighbors[::-1] if reverse else lattice.neighbors
  for pair in neighbors:
    summed = _blur(summed, pair)
  return _weighted_rows(summed, lattice.corners, lattice.weights)


def _forward(lattice, values, reverse):
  return apply(lattice, values, reverse), lattice


def _backward(reverse, lattice, gradient):
  return None, apply(lattice, gradient, not reverse)


apply.defvjp(_forward, _backward)


def _rows(values: Float[Array, "n k"], index: Int[Arrays, " m"]) -> jax.Array:
  # The lattice was built for these rows, so that no index needs a check.
  return values.at[index].get(mode="promise_in_bounds")


def _weighted_rows(
  values: Float[Array, "n k"],
  index: Int[Arrays, "places m"],
  weights: Float[Arrays, "places m"],
) -> Float[Array, "m k"]:
  total = jnp.zeros((), values.dtype)
  for rows, weight in zip(index, weights, strict=True):
    total = total + _rows(values, rows) * weight[:, None]
  return total


def _splat(
  lattice: Lattice, values: Float[Array, "n k"]
) -> Float[Array, "v k"]:
  """Return the sum of the pixels of each vertex (the paper's splatting)."""
  summed = _weighted_rows(values, lattice.pixels, lattice.pixel_weights)
  if not lattice.chunk_vertex.size:
    return summed
  chunks = _weighted_rows(values, lattice.chunk_pixels, lattice.chunk_weights)
  return summed.at[lattice.chunk_vertex].add(
    chunks, indices_are_sorted=True, mode="promise_in_bounds"
  )


def _blur(
  summed: Float[Array, "v k"], pair: Int[Arrays, "2 v"]
) -> Float[Array, "v k"]:
  """Blur along one axis: add half of both neighbors to each vertex."""
  blurred = summed + 0.5 * (_rows(summed, pair[0]) + _rows(summed, pair[1]))
  # Vertex 0 means "no vertex" and stays zero. A scatter sets it, because XLA
  # does not fuse a scatter with the gathers of the next axis, which would
  # compute every row three times. It has two rows: XLA turns one into a slice.
  return blurred.at[jnp.zeros(2, jnp.int32)].set(0, mode="promise_in_bounds")
