"""Dense (atrous) convolution, NHWC, in the form the backend runs best."""

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.ops import backend
from deeplax.ops import padding as paddings

# At rate 12 on a 33x33 map 43 % of the products of a 3x3 kernel fall outside,
# 59 % at 18: one matrix product per tap over the rest wins. At 6 it does not.
CROPPED_FROM_RATE = 12


def conv(
  x: Float[Arrays, "b h w c"],
  kernel: Float[Arrays, "kh kw c k"],
  *,
  stride: int = 1,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
) -> Float[Array, "b H W k"]:
  """Convolve in the backend's best form.

  On CPU that of a 1x1 kernel and that of a large rate may be scanned; the
  gradient of the others is far slower inside `lax.scan`.
  """
  x, kernel = jnp.asarray(x), jnp.asarray(kernel)
  if backend.prefers_shifted():
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
      return _pointwise(x, kernel, stride)
    if max(paddings.pair(rate)) >= CROPPED_FROM_RATE:
      return _cropped(x, kernel, stride, rate, padding)
  return conv_plain(x, kernel, stride=stride, rate=rate, padding=padding)


def conv_plain(
  x: Float[Arrays, "b h w c"],
  kernel: Float[Arrays, "kh kw c k"],
  *,
  stride: int = 1,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
) -> Float[Array, "b H W k"]:
  """The same as XLA's own convolution."""
  return lax.conv_general_dilated(
    jnp.asarray(x),
    jnp.asarray(kernel),
    (stride, stride),
    padding,
    rhs_dilation=paddings.pair(rate),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _pointwise(x, kernel, stride):
  x = x[:, ::stride, ::stride]
  y = x.reshape(-1, x.shape[3]) @ kernel[0, 0]
  return y.reshape(*x.shape[:3], kernel.shape[3])


def _cropped(x, kernel, stride, rate, padding):
  """One matrix product per tap, over the part of the map where it lands."""
  dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
  # The sum over taps is kept in float32, and so is its gradient's. Products of
  # half precision are no faster on CPU.
  x, kernel = x.astype(wide), kernel.astype(wide)
  (height, rows), (width, columns) = (
    paddings.taps(
      x.shape[1 + axis],
      kernel=kernel.shape[axis],
      stride=stride,
      rate=paddings.pair(rate)[axis],
      padding=padding[axis],
    )
    for axis in (0, 1)
  )
  y = jnp.zeros((x.shape[0], height, width, kernel.shape[3]), wide)
  for row in rows:
    for column in columns:
      read = x[:, row.reads, column.reads]
      product = read.reshape(-1, x.shape[3]) @ kernel[row.index, column.index]
      product = product.reshape(*read.shape[:3], kernel.shape[3])
      outside = ((row.before, row.behind), (column.before, column.behind))
      y = y + jnp.pad(product, ((0, 0), *outside, (0, 0)))
  return y.astype(dtype)
