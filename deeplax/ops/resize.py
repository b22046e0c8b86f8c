"""Resizes in the two alignments that the DeepLab line is published with.

Align-corners (TensorFlow 1): the centers of corner pixels map onto each other.
Half-pixel (torchvision): the corners of the images do. `jax.image.resize` is
half-pixel too, but smooths when it shrinks.

There are two forms. `gathers` reads two neighbors for each pixel. `products`
multiplies by the matrix of each side: what a TPU's matrix unit does.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer
import numpy as np

from deeplax.arrays import Arrays
from deeplax.ops import backend
from deeplax.ops import true_size

# A pixel scaled up 32 times spreads over 63 outputs. Beyond that the map is so
# small that its dense matrix is cheap, and it compiles faster.
MAX_GATHERS = 63


def scale_dimension(size: int, scale: float) -> int:
  """Scale a side so that corners stay aligned: 513 at 1/4 gives 129."""
  return int((size - 1) * scale + 1)


@jax.named_scope("resize")  # so that profiles tell it from other products
def resize_bilinear(
  x: Float[Arrays, "b h w c"],
  size: tuple[int, int],
  *,
  align_corners: bool = True,
) -> Float[Array, "b H W c"]:
  """Resize by bilinear interpolation, align-corners or else half-pixel.

  The gradient is gathered as the values are. That of a gather would be a
  scatter, on CPU 10 to 20 times slower.

  Inside `true_size.within` the true map is resized to the true size.
  """
  old, new = true_size.sides((x.shape[1], x.shape[2])), true_size.sides(size)
  if old is not None and new is not None and x.shape[1:3] != tuple(size):
    return resize_within(x, size, old, new, align_corners=align_corners)
  y = jnp.asarray(x).astype(jnp.promote_types(x.dtype, jnp.float32))
  if backend.form("resize") == "products":
    return _products(y, size, align_corners).astype(x.dtype)
  # Columns first, so that the gradient meets the large map along its rows,
  # which lie together in memory.
  for axis in (2, 1):
    old, new = y.shape[axis], size[axis - 1]
    if old == new:
      continue
    if old == 1:
      shape = [new if i == axis else n for i, n in enumerate(y.shape)]
      y = jnp.broadcast_to(y, shape)
    else:
      y = _interpolate(y, axis, old, new, align_corners)
  return y.astype(x.dtype)


def resize_within(
  x: Float[Arrays, "b h w c"],
  size: tuple[int, int],
  old: true_size.Sides,
  new: true_size.Sides,
  *,
  align_corners: bool = True,
) -> Float[Array, "b H W c"]:
  """Resize the true part of a padded map to the true part of another.

  Args:
    x: The map.
    size: Of the result, with what lies beyond its true part.
    old: True (height, width) of `x`.
    new: True (height, width) of the result.
    align_corners: See `resize_bilinear`.
  """
  y = jnp.asarray(x).astype(jnp.promote_types(x.dtype, jnp.float32))
  for axis in (2, 1):
    index = jnp.arange(size[axis - 1])
    low, high, weight = _positions(
      jnp.asarray(old)[axis - 1],
      jnp.asarray(new)[axis - 1],
      align_corners,
      index=index,
    )
    y = _gather(y, axis, (low, high), (1 - weight, weight))
  return y.astype(x.dtype)


def resize_bilinear_plain(
  x: Float[Arrays, "b h w c"],
  size: tuple[int, int],
  *,
  align_corners: bool = True,
) -> Float[Array, "b H W c"]:
  """The same as two matrix products."""
  y = jnp.asarray(x).astype(jnp.promote_types(x.dtype, jnp.float32))
  rows, columns = (
    jnp.asarray(_matrix(old, new, align_corners), y.dtype)
    for old, new in zip(y.shape[1:3], size, strict=True)
  )
  y = jnp.einsum("Hh,bhwc,Ww->bHWc", rows, y, columns, precision="highest")
  return y.astype(x.dtype)


def resize_nearest(
  labels: Integer[Arrays, "b h w"], size: tuple[int, int]
) -> Integer[Array, "b H W"]:
  """Resize by the nearest pixel with aligned corners, halves rounded up."""
  labels = jnp.asarray(labels)
  for axis in (1, 2):
    near = _nearest(labels.shape[axis], size[axis - 1])
    labels = jnp.take(labels, near, axis=axis, mode="clip")
  return labels


def _products(x, size, align_corners):
  """Resize by two matrix products, of rows, then of columns.

  The second leaves columns last, and so does the compiler: the axis of 128
  lanes then holds 513 columns, not 21 classes. Moved last again, classes cost
  no copy; the axes' order in memory is a matter of layout.
  """
  for axis, product in ((1, "Hh,bhwc->bHwc"), (2, "Ww,bhwc->bhcW")):
    old, new = x.shape[axis], size[axis - 1]
    if old == new:
      continue
    if old == 1:
      shape = [new if i == axis else n for i, n in enumerate(x.shape)]
      x = jnp.broadcast_to(x, shape)
      continue
    matrix = jnp.asarray(_matrix(old, new, align_corners), x.dtype)
    # Three passes in bfloat16; in one, the loss would lose digits.
    x = jnp.einsum(product, matrix, x, precision="high")
    if axis == 2:
      x = jnp.moveaxis(x, 3, 2)
  return x


def _values(x, axis, old, new, align_corners):
  low, high, weight = _positions(old, new, align_corners)
  return _gather(x, axis, (low, high), (1 - weight, weight))


def _forward(x, axis, old, new, align_corners):
  return _values(x, axis, old, new, align_corners), None


def _backward(axis, old, new, align_corners, _, dy):
  matrix = _matrix(old, new, align_corners)
  # The outputs that read a pixel are neighbors: from `first`, `count` of them.
  count = (matrix != 0).sum(axis=0)
  if count.max() > MAX_GATHERS:
    dx = jnp.tensordot(
      dy, jnp.asarray(matrix, dy.dtype), (axis, 0), precision="highest"
    )
    return (jnp.moveaxis(dx, -1, axis),)
  first = (matrix != 0).argmax(axis=0)
  steps = [np.minimum(first + k, new - 1) for k in range(count.max())]
  weights = [
    np.where(k < count, matrix[step, np.arange(old)], 0)
    for k, step in enumerate(steps)
  ]
  return (_gather(dy, axis, steps, weights),)


_interpolate = jax.custom_vjp(_values, nondiff_argnums=(1, 2, 3, 4))
_interpolate.defvjp(_forward, _backward)


def _gather(x, axis, indices, weights):
  """Sum over pairs of `weights * x[indices]` along `axis`."""
  terms = []
  for index, weight in zip(indices, weights, strict=True):
    weight = weight.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    seen = jnp.take(x, index, axis=axis, mode="clip")
    terms.append(seen * jnp.asarray(weight, x.dtype))
  return sum(terms[1:], start=terms[0])


def _positions(old, new, align_corners, index=None):
  """Lower and upper neighbor of each output, and the upper one's weight.

  Sides that are known only when the program runs need the outputs' `index`,
  which may go past the new side.
  """
  fixed = index is None
  xp = np if fixed else jnp
  index = np.arange(new) if fixed else xp.minimum(index, new - 1)
  # In whole numbers, so that no position falls short of its pixel.
  if align_corners:
    # A single output is the first pixel: its index is 0.
    steps = xp.maximum(new - 1, 1)
    scaled = index * (old - 1)
  else:
    # (i + 1/2) old / new - 1/2, where it is no less than 0.
    steps = 2 * new
    scaled = xp.maximum((2 * index + 1) * old - new, 0)
  low = scaled // steps
  return low, xp.minimum(low + 1, old - 1), (scaled % steps) / steps


def _matrix(old, new, align_corners):
  low, high, weight = _positions(old, new, align_corners)
  matrix = np.zeros((new, old))
  matrix[np.arange(new), low] += 1 - weight
  matrix[np.arange(new), high] += weight
  return matrix


def _nearest(old, new):
  # TensorFlow multiplies in float32 and rounds halves away from zero; exact
  # arithmetic would round some halves elsewhere.
  scale = np.float32(old - 1) / np.float32(new - 1) if new > 1 else 0
  position = np.arange(new, dtype=np.float32) * np.float32(scale)
  whole = np.floor(position)
  return (whole + (position - whole >= 0.5)).astype(np.int32).clip(0, old - 1)
