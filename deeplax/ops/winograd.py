"""3x3 convolution with fewer multiplications: Winograd's F(2x2, 3x3), NHWC.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016),
section 4.1: tiles of 2x2 outputs are computed from 4x4 inputs by 16 products
per pair of channels in place of 36. Maps and kernel are transformed by sums; in
between stand 16 matrix products. An atrous convolution at rate r is r x r ones
of rate 1, on every r-th row and column.
"""

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.ops import padding as paddings

TILE = 2  # outputs of a tile, on each side


def saving(size: tuple[int, int], rate: paddings.Rate) -> float:
  """Return how many times fewer products a map of this (height, width) needs.

  Tiles reach over the map's end, the further the larger the rate is: 2.25 is
  the most, and it may be less than 1.
  """
  height, width = size
  rows, columns = paddings.pair(rate)
  tiles = _tiles(height, rows) * rows * _tiles(width, columns) * columns
  return 9 * height * width / (16 * tiles)


def conv(
  x: Float[Arrays, "b h w c"],
  kernel: Float[Arrays, "3 3 c k"],
  *,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
) -> Float[Array, "b H W k"]:
  """Convolve with stride 1, in float32 whatever the dtype of `x` is."""
  dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
  x, kernel = jnp.asarray(x, wide), jnp.asarray(kernel, wide)
  rows, columns = paddings.pair(rate)
  height, width = (
    side + sum(pads) - 2 * step
    for side, pads, step in zip(
      x.shape[1:3], padding, (rows, columns), strict=True
    )
  )
  tall, wide_tiles = _tiles(height, rows), _tiles(width, columns)
  x = jnp.pad(
    x,
    (
      (0, 0),
      _reaching(padding[0], x.shape[1], (TILE * tall + 2) * rows),
      _reaching(padding[1], x.shape[2], (TILE * wide_tiles + 2) * columns),
      (0, 0),
    ),
  )
  batch, channels = x.shape[0], x.shape[3]
  # [b, tile rows, rate, tile columns, rate, c]
  x = x.reshape(batch, -1, rows, x.shape[2] // columns, columns, channels)
  products = [
    [
      tile.reshape(-1, channels) @ factor
      for tile, factor in zip(_of_map(row, 3), _of_kernel(across), strict=True)
    ]
    for row, across in zip(_of_map(x, 1), _of_kernel(kernel), strict=True)
  ]
  # Back along the columns, then along the rows: [2][2] of the tiles' outputs.
  halves = zip(*map(_of_products, products), strict=True)
  outputs = zip(*map(_of_products, map(list, halves)), strict=True)
  shape = (batch, tall, rows, wide_tiles, columns, kernel.shape[3])
  y = jnp.stack(
    [jnp.stack([y.reshape(shape) for y in row], 4) for row in outputs], 2
  )
  y = y.reshape(batch, TILE * tall * rows, -1, kernel.shape[3])
  return y[:, :height, :width].astype(dtype)


def _tiles(side: int, rate: int) -> int:
  """Return the number of tiles along a side, of each phase of the rate."""
  return -(-side // (TILE * rate))


def _reaching(pads: tuple[int, int], side: int, whole: int) -> tuple[int, int]:
  return pads[0], whole - side - pads[0]


def _of_map(x, axis):
  """Return B^T times the tiles of four along an axis, which overlap by two."""
  last = x.shape[axis] - 3
  a, b, c, d = (
    lax.slice_in_dim(x, i, i + last, TILE, axis=axis) for i in range(4)
  )
  return a - c, b + c, c - b, b - d


def _of_kernel(kernel):
  """Return G times the three taps along the first axis."""
  a, b, c = kernel
  even, odd = (a + c) / 2, b / 2
  return a, even + odd, even - odd, c


def _of_products(m):
  """Return A^T times four products: the two outputs."""
  return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
