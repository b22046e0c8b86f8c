"""Depthwise (atrous) convolution, NHWC, one filter per channel.

The fast form pads the map and sums kh*kw shifted multiples of it in one loop.
The gradient of the input is the same sum shifted back, that of the kernel a
scan over rows. There is no `lax.conv` in either, whose gradient is 13
to 34 times slower inside `lax.scan` on CPU: this form may be scanned.
"""

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from deeplax.arrays import Arrays
from deeplax.ops import backend
from deeplax.ops import padding as paddings


def depthwise_conv(
  x: Float[Arrays, "b h w c"],
  kernel: Float[Arrays, "kh kw 1 c"],
  *,
  stride: int = 1,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
) -> Float[Array, "b H W c"]:
  """Convolve every channel with its own kernel in the backend's best form."""
  form = _shifted if backend.prefers_shifted() else _grouped
  return form(jnp.asarray(x), jnp.asarray(kernel), stride, rate, padding)


def depthwise_conv_plain(
  x: Float[Arrays, "b h w c"],
  kernel: Float[Arrays, "kh kw 1 c"],
  *,
  stride: int = 1,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
) -> Float[Array, "b H W c"]:
  """The same as XLA's grouped convolution."""
  return _grouped(jnp.asarray(x), jnp.asarray(kernel), stride, rate, padding)


def _grouped(x, kernel, stride, rate, padding):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    rhs_dilation=paddings.pair(rate),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[3],
  )


def _shifted_sum(x, kernel, stride, rate, padding):
  (height, rows), (width, columns) = _taps(x, kernel, stride, rate, padding)
  return _sum_of_windows(
    x,
    kernel,
    [(row.index, row.shift) for row in rows],
    [(column.index, column.shift) for column in columns],
    (height, width),
    stride=stride,
  )


def _forward(x, kernel, stride, rate, padding):
  return _shifted_sum(x, kernel, stride, rate, padding), (x, kernel)


def _backward(stride, rate, padding, residuals, dy):
  x, kernel = residuals
  (_, rows), (_, columns) = _taps(x, kernel, stride, rate, padding)
  # A tap that read ahead sends its gradient back.
  dx = _sum_of_windows(
    dy,
    kernel,
    [(row.index, -row.shift) for row in rows],
    [(column.index, -column.shift) for column in columns],
    x.shape[1:3],
    spread=stride,
  )
  return dx, _kernel_gradient(x, kernel, dy, rows, columns)


_shifted = jax.custom_vjp(_shifted_sum, nondiff_argnums=(2, 3, 4))
_shifted.defvjp(_forward, _backward)


def _sum_of_windows(x, kernel, rows, columns, size, *, stride=1, spread=1):
  """Sum windows of the map, each times the kernel's weights at its tap.

  Args:
    rows: (index in the kernel, first row of the window) of each tap.
    columns: The same for columns.
    size: Of the windows and the result; outside the map they hold zeros.
    stride: Of the windows' pixels.
    spread: Of the map's own pixels, with zeros in between.
  """
  wide = _wide(x.dtype)
  pads, spans = [], []
  for axis, starts in ((1, rows), (2, columns)):
    starts = [start for _, start in starts]
    end = (x.shape[axis] - 1) * spread + 1
    span = (size[axis - 1] - 1) * stride + 1
    low = max([0, *(-start for start in starts)])
    high = max([0, *(start + span - end for start in starts)])
    pads.append((low, high, spread - 1))
    spans.append(span)
  # One padding for all taps, though one per tap would be fused into the sum:
  # XLA fuses what comes before (a bias, a ReLU) as well then, and computes it
  # anew for each tap. It does not fuse a padding that several windows read.
  zero = jnp.zeros((), x.dtype)
  padded = lax.pad(x, zero, ((0, 0, 0), *pads, (0, 0, 0)))
  y = jnp.zeros((x.shape[0], *size, x.shape[3]), wide)
  for i, top in rows:
    top += pads[0][0]
    for j, left in columns:
      left += pads[1][0]
      window = padded[
        :,
        top : top + spans[0] : stride,
        left : left + spans[1] : stride,
      ]
      weights = kernel[i : i + 1, j : j + 1].astype(wide)
      y = y + window.astype(wide) * weights
  return y.astype(x.dtype)


def _kernel_gradient(x, kernel, dy, rows, columns):
  """Sum x * dy for each tap, row by row so that what it reads is in cache."""
  wide = _wide(x.dtype)
  channels = x.shape[3]
  sums = dict.fromkeys(np.ndindex(kernel.shape[:2]), jnp.zeros(channels, wide))
  for row in rows:

    def add_line(total, at, row=row):
      read = lax.dynamic_index_in_dim(x, at[0], axis=1).astype(wide)
      grad = lax.dynamic_index_in_dim(dy, at[1], axis=1).astype(wide)
      added = []
      for column in columns:
        product = read[:, :, column.reads] * grad[:, :, _outputs(column, dy, 2)]
        product = product.reshape(-1, channels)
        # A dot with ones is a sum that XLA's CPU backend vectorizes.
        added.append(jnp.ones(product.shape[0], wide) @ product)
      return [t + a for t, a in zip(total, added, strict=True)], None

    outputs = _outputs(row, dy, 1)
    lines = (
      np.arange(row.reads.start, row.reads.stop, row.reads.step),
      np.arange(outputs.start, outputs.stop),
    )
    start = [jnp.zeros(channels, wide) for _ in columns]
    total, _ = lax.scan(add_line, start, lines)
    for column, value in zip(columns, total, strict=True):
      sums[row.index, column.index] = value
  return (
    jnp.stack(list(sums.values())).reshape(kernel.shape).astype(kernel.dtype)
  )


def _taps(x, kernel, stride, rate, padding):
  return [
    paddings.taps(
      x.shape[1 + axis],
      kernel=kernel.shape[axis],
      stride=stride,
      rate=paddings.pair(rate)[axis],
      padding=padding[axis],
    )
    for axis in (0, 1)
  ]


def _outputs(tap, y, axis):
  """Slice of the outputs that read inside the map at this tap."""
  return slice(tap.before, y.shape[axis] - tap.behind)


def _wide(dtype):
  """Keep sums of half precision in float32."""
  return jnp.promote_types(dtype, jnp.float32)
