"""Dense (atrous) convolution, NHWC, in the form the platform runs best.

products     for CPUs: 1x1 kernels and large rates as matrix products, 3x3
             kernels between many channels in the way of ops/winograd.py.
free_layout  for TPUs: images, and 1x1 kernels where channels are few, as
             products. A TPU's convolution keeps channels in the 128 lanes of
             its registers, and then leaves most of them empty. For a product
             the compiler may keep columns there instead.
library      XLA's own convolution, which the other forms take for the rest.
"""

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from deeplax.arrays import Arrays
from deeplax.ops import backend
from deeplax.ops import padding as paddings
from deeplax.ops import winograd

# At rate 12 on a 33x33 map 43 % of the products of a 3x3 kernel fall outside,
# 59 % at 18: one matrix product per tap over the rest wins. At 6 it does not.
CROPPED_FROM_RATE = 12
# Winograd's way pays where many channels meet in each product, and tiles do not
# reach far over the map's end.
WINOGRAD_CHANNELS, WINOGRAD_SAVING = 128, 1.5
# Channels of an image, RGB or bands.
IMAGE_CHANNELS = 8
# Where there are more on either side, sums of the result that the compiler
# makes together with a convolution, for a norm, are worth more than the lanes.
FEW_CHANNELS = 96


def conv(
  x: Float[Arrays, "b h w c"],
  kernel: Float[Arrays, "kh kw c k"],
  *,
  stride: int = 1,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
) -> Float[Array, "b H W k"]:
  """Convolve in the platform's best form.

  On CPU what consists of matrix products may be scanned; the gradient of the
  library's convolution is far slower inside `lax.scan`.
  """
  x, kernel = jnp.asarray(x), jnp.asarray(kernel)
  form = backend.form("dense")
  pointwise = kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0))
  if form == "free_layout":
    if pointwise and max(kernel.shape[2:]) <= FEW_CHANNELS:
      x = x[:, ::stride, ::stride]
      return jnp.einsum("bhwc,ck->bhwk", x, kernel[0, 0])
    if x.shape[3] <= IMAGE_CHANNELS:
      return _of_image(x, kernel, stride, rate, padding)
  if form == "products":
    if pointwise:
      return _pointwise(x, kernel, stride)
    if max(paddings.pair(rate)) >= CROPPED_FROM_RATE:
      return _cropped(x, kernel, stride, rate, padding)
    if stride == 1 and _by_tiles(x, kernel, rate):
      return winograd.conv(x, kernel, rate=rate, padding=padding)
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


def _by_tiles(x, kernel, rate):
  return (
    kernel.shape[:2] == (3, 3)
    and min(kernel.shape[2:]) >= WINOGRAD_CHANNELS
    and winograd.saving(x.shape[1:3], rate) >= WINOGRAD_SAVING
  )


def _pointwise(x, kernel, stride):
  x = x[:, ::stride, ::stride]
  y = x.reshape(-1, x.shape[3]) @ kernel[0, 0]
  return y.reshape(*x.shape[:3], kernel.shape[3])


def _of_image(x, kernel, stride, rate, padding):
  """One matrix product over the taps and channels of each output.

  The columns that taps read are a product too, with ones and zeros: cheaper
  there than values moved between lanes. In half precision the image's own
  gradient is rounded on the way, which no training asks for.
  """
  (height, rows), (width, columns) = paddings.both_taps(
    x.shape, kernel.shape, stride, rate, padding
  )
  chosen = np.zeros((kernel.shape[1], x.shape[2], width))
  for tap in columns:
    read = np.arange(x.shape[2])[tap.reads]
    chosen[tap.index, read, tap.before + np.arange(len(read))] = 1
  x = jnp.einsum("bhwc,jwW->bhcjW", x, jnp.asarray(chosen, x.dtype))
  taps = [jnp.zeros((x.shape[0], height, *x.shape[2:]), x.dtype)] * len(kernel)
  for tap in rows:
    outside = [(0, 0), (tap.before, tap.behind), *[(0, 0)] * 3]
    taps[tap.index] = jnp.pad(x[:, tap.reads], outside)
  return jnp.einsum("bHicjW,ijck->bHWk", jnp.stack(taps, 2), kernel)


def _cropped(x, kernel, stride, rate, padding):
  """One matrix product per tap, over the part of the map where it lands."""
  dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
  # The sum over taps is kept in float32, and so is its gradient's. Products of
  # half precision are no faster on CPU.
  x, kernel = x.astype(wide), kernel.astype(wide)
  (height, rows), (width, columns) = paddings.both_taps(
    x.shape, kernel.shape, stride, rate, padding
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
