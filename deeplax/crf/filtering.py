"""Gaussian filtering of pixel values through a permutohedral lattice.

On a CPU the time goes to rows gathered from memory, so every step is gathers
of whole rows that XLA fuses into one loop; see `lattice` for their order.
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
  """Return the values filtered, each pixel's own included.

  The filter is linear in the values, and its gradient is the same filter with
  the axes in reverse order. It has no gradient with respect to the lattice.

  Args:
    lattice: Of one image, padded to n pixels.
    values: Of the pixels; what padding holds does not matter if it is finite.
    reverse: Blur along the last axis first.

  Raises:
    ValueError: The values are of another number of pixels.
  """
  rows = lattice.corners.shape[-1]
  if values.shape[0] != rows:
    # An index past the end would be read all the same, see `_rows`.
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
  # The lattice was built for these rows: no index needs to be checked.
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
  """Sum the pixels of each vertex."""
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
  """Blur along one axis: half of both neighbors is added to each vertex."""
  blurred = summed + 0.5 * (_rows(summed, pair[0]) + _rows(summed, pair[1]))
  # Vertex 0, which stands for none, stays zero. It is set by a scatter, of two
  # rows since XLA makes one into a slice, which XLA does not fuse with the
  # gathers of the next axis: it would compute every row three times for that.
  return blurred.at[jnp.zeros(2, jnp.int32)].set(0, mode="promise_in_bounds")
