"""Depthwise (atrous) convolution, NHWC, one filter per channel.

The fast form sums kh*kw shifted multiples of the map: XLA fuses the sum into
one loop. The gradient of the input is the same sum shifted back, that of the
kernel a scan over rows. There is no `lax.conv` in either, whose gradient is 13
to 34 times slower inside `lax.scan` on CPU: this form may be scanned.
"""

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from deeplax.ops import backend
from deeplax.ops import padding as paddings

Floats = Array | np.ndarray


def depthwise_conv(
  x: Float[Floats, "b h w c"],
  kernel: Float[Floats, "kh kw 1 c"],
  *,
  stride: int = 1,
  rate: int = 1,
  padding: paddings.Padding,
) -> Float[Array, "b H W c"]:
  """Convolves every channel with its own kernel in the backend's best form."""
  form = _shifted if backend.prefers_shifted() else _grouped
  return form(jnp.asarray(x), jnp.asarray(kernel), stride, rate, padding)


def depthwise_conv_plain(
  x: Float[Floats, "b h w c"],
  kernel: Float[Floats, "kh kw 1 c"],
  *,
  stride: int = 1,
  rate: int = 1,
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
    rhs_dilation=(rate, rate),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[3],
  )


def _shifted_sum(x, kernel, stride, rate, padding):
  (height, rows), (width, columns) = _taps(x, kernel, stride, rate, padding)
  wide = _wide(x.dtype)
  y = jnp.zeros((x.shape[0], height, width, x.shape[3]), wide)
  for row in rows:
    for column in columns:
      term = x[:, row.reads, column.reads].astype(wide)
      term = term * _weights(kernel, row, column, wide)
      pads = ((row.before, row.behind, 0), (column.before, column.behind, 0))
      y = y + _pad(term, pads)
  return y.astype(x.dtype)


def _forward(x, kernel, stride, rate, padding):
  return _shifted_sum(x, kernel, stride, rate, padding), (x, kernel)


def _backward(stride, rate, padding, residuals, dy):
  x, kernel = residuals
  (_, rows), (_, columns) = _taps(x, kernel, stride, rate, padding)
  dx = _input_gradient(x, kernel, dy, rows, columns)
  return dx, _kernel_gradient(x, kernel, dy, rows, columns)


_shifted = jax.custom_vjp(_shifted_sum, nondiff_argnums=(2, 3, 4))
_shifted.defvjp(_forward, _backward)


def _input_gradient(x, kernel, dy, rows, columns):
  wide = _wide(x.dtype)
  _, height, width, _ = x.shape
  dx = jnp.zeros(x.shape, wide)
  for row in rows:
    for column in columns:
      term = dy[:, _outputs(row, dy, 1), _outputs(column, dy, 2)].astype(wide)
      term = term * _weights(kernel, row, column, wide)
      dx = dx + _pad(term, (_back(row, height), _back(column, width)))
  return dx.astype(x.dtype)


def _kernel_gradient(x, kernel, dy, rows, columns):
  """Sums x * dy for each tap, row by row so that what it reads is in cache."""
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
        # A dot with ones is a sum that XLA's CPU backend vectorises.
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
      rate=rate,
      padding=padding[axis],
    )
    for axis in (0, 1)
  ]


def _weights(kernel, row, column, dtype):
  """One tap's weight per channel, [1, 1, 1, c]."""
  i, j = row.index, column.index
  return kernel[i : i + 1, j : j + 1].astype(dtype)


def _outputs(tap, y, axis):
  """Slice of the outputs that read inside the map at this tap."""
  return slice(tap.before, y.shape[axis] - tap.behind)


def _back(tap, size):
  """Pads that put this tap's outputs where in the map they were read from."""
  return tap.reads.start, size - tap.reads.stop, tap.reads.step - 1


def _pad(x, pads):
  zero = jnp.zeros((), x.dtype)
  return lax.pad(x, zero, ((0, 0, 0), *pads, (0, 0, 0)))


def _wide(dtype):
  """Sums of half precision are kept in float32."""
  return jnp.promote_types(dtype, jnp.float32)
