"""Depthwise (atrous) convolution, NHWC, one filter per channel, in four forms.

shifted   pads the map and sums kh*kw shifted multiples of it in one loop. The
          gradient of the input is the same sum shifted back, that of the kernel
          a scan over rows. There is no `lax.conv` in either, whose gradient is
          13 to 34 times slower inside `lax.scan` on CPU: this form may be
          scanned.
rows      kernels of its own, for NVIDIA cards (row_kernels.py).
fused     the sum again, each multiple padded by itself, so that a compiler for
          an accelerator makes one pass of all; where the kernels do not run.
library   XLA's grouped convolution.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from deeplax.arrays import Arrays
from deeplax.ops import backend
from deeplax.ops import norm
from deeplax.ops import padding as paddings


def depthwise_conv(
  x: Float[Arrays, "b h w c"],
  kernel: Float[Arrays, "kh kw 1 c"],
  *,
  stride: int = 1,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
  relu: bool = False,
) -> Float[Array, "b H W c"]:
  """Convolve every channel with its own kernel in the platform's best form.

  Args:
    relu: Convolve the map's positive part. The row kernels read it so; then
      it is never written.
  """
  x, kernel = jnp.asarray(x), jnp.asarray(kernel)
  if row_kernels_take(x, stride, rate):
    return _rows(x, kernel, None, _Settings(stride, rate, padding, relu))[0]
  form = backend.form("depthwise")
  form = "fused" if form == "rows" else form
  return FORMS[form](nn.relu(x) if relu else x, kernel, stride, rate, padding)


def row_kernels_take(
  x: Float[Arrays, "b h w c"], stride: int, rate: paddings.Rate
) -> bool:
  """Return whether the row kernels are the platform's form of a convolution."""
  # None has a stride beside a rate.
  fits = stride == 1 or paddings.pair(rate) == (1, 1)
  rows = backend.form("depthwise") == "rows"
  return rows and fits and backend.kernels_take(x)


def depthwise_conv_sums(
  x: Float[Array, "b h w c"] | norm.Normed,
  kernel: Float[Array, "kh kw 1 c"],
  shift: Float[Arrays, " c"],
  *,
  stride: int = 1,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
  relu: bool = False,
) -> tuple[Float[Array, "b H W c"], Float[Array, "2 c"]]:
  """Convolve by the row kernels, with the sums that a norm of the result needs.

  Args:
    x: The map, or one that is normalized as it is read.
    shift: Near the mean of the result y.
    relu: As in `depthwise_conv`.

  Returns:
    y, and the sums of y - shift and of its square, through which no gradient
    passes: they are for `norm.normed`, whose gradient has their part.
  """
  shift = jnp.asarray(shift)
  return _rows(x, kernel, shift, _Settings(stride, rate, padding, relu))


def depthwise_conv_plain(
  x: Float[Arrays, "b h w c"],
  kernel: Float[Arrays, "kh kw 1 c"],
  *,
  stride: int = 1,
  rate: paddings.Rate = 1,
  padding: paddings.Padding,
) -> Float[Array, "b H W c"]:
  """The same as XLA's grouped convolution."""
  return _library(jnp.asarray(x), jnp.asarray(kernel), stride, rate, padding)


def _library(x, kernel, stride, rate, padding):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    rhs_dilation=paddings.pair(rate),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[3],
  )


def _sum(x, kernel, stride, rate, padding, apart):
  (height, rows), (width, columns) = paddings.both_taps(
    x.shape, kernel.shape, stride, rate, padding
  )
  return _sum_of_windows(
    x,
    kernel,
    [(row.index, row.shift) for row in rows],
    [(column.index, column.shift) for column in columns],
    (height, width),
    stride=stride,
    apart=apart,
  )


def _sum_forward(x, kernel, stride, rate, padding, apart):
  return _sum(x, kernel, stride, rate, padding, apart), (x, kernel)


def _sum_backward(stride, rate, padding, apart, residuals, dy):
  x, kernel = residuals
  (_, rows), (_, columns) = paddings.both_taps(
    x.shape, kernel.shape, stride, rate, padding
  )
  # A tap that read ahead sends its gradient back.
  dx = _sum_of_windows(
    dy,
    kernel,
    [(row.index, -row.shift) for row in rows],
    [(column.index, -column.shift) for column in columns],
    x.shape[1:3],
    spread=stride,
    apart=apart,
  )
  gradient = _cropped_kernel_gradient if apart else _kernel_gradient
  return dx, gradient(x, kernel, dy, rows, columns)


_shifted_multiples = jax.custom_vjp(_sum, nondiff_argnums=(2, 3, 4, 5))
_shifted_multiples.defvjp(_sum_forward, _sum_backward)


def _fused(x, kernel, stride, rate, padding):
  return _shifted_multiples(x, kernel, stride, rate, padding, True)


def _shifted(x, kernel, stride, rate, padding):
  return _shifted_multiples(x, kernel, stride, rate, padding, False)


FORMS = {"shifted": _shifted, "fused": _fused, "library": _library}


class _Settings(NamedTuple):
  """What a convolution by the row kernels is made for."""

  stride: int
  rate: paddings.Rate
  padding: paddings.Padding
  relu: bool

  def reads(self, x) -> dict[str, Any]:
    """Return the keywords of the kernels: they import what JAX may lack."""
    from deeplax.ops import kernel_parts
    from deeplax.ops import row_kernels

    limit, affine = math.inf if self.relu else None, ()
    if isinstance(x, norm.Normed):
      limit, affine = x.limit or limit, x.affine()
    return {
      "window": row_kernels.window(self.stride, self.rate, self.padding),
      "read": kernel_parts.Read(limit, affine),
    }


def _rows_values(x, kernel, shift, settings):
  from deeplax.ops import row_kernels

  map_ = norm.map_of(x)
  (height, _), (width, _) = paddings.both_taps(
    map_.shape, kernel.shape, *settings[:3]
  )
  return row_kernels.forward(
    map_, kernel, size=(height, width), shift=shift, **settings.reads(x)
  )


def _rows_forward(x, kernel, shift, settings):
  return _rows_values(x, kernel, shift, settings), (x, kernel, shift)


def _rows_backward(settings, kept, gradients):
  from deeplax.ops import row_kernels

  (x, kernel, shift), (dy, _) = kept, gradients
  reads, map_ = settings.reads(x), norm.map_of(x)
  dkernel = row_kernels.kernel_gradient(map_, dy, kernel, **reads)
  mean = x.mean if isinstance(x, norm.Normed) else None
  dx, sums = row_kernels.input_gradient(dy, kernel, map_, mean=mean, **reads)
  if isinstance(x, norm.Normed):
    assert sums is not None
    dx = x.gradient(dx, sums)
  return dx, dkernel, jax.tree.map(jnp.zeros_like, shift)


_rows = jax.custom_vjp(_rows_values, nondiff_argnums=(3,))
_rows.defvjp(_rows_forward, _rows_backward)


def _sum_of_windows(
  x, kernel, rows, columns, size, *, stride=1, spread=1, apart
):
  """Sum windows of the map, each times the kernel's weights at its tap.

  Args:
    rows: (index in the kernel, first row of the window) of each tap.
    columns: The same for columns.
    size: Of the windows and the result; outside the map they hold zeros.
    stride: Of the windows' pixels.
    spread: Of the map's own pixels, with zeros in between.
    apart: Pad each window by itself.
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
  zero = jnp.zeros((), x.dtype)
  # One padding for all taps, though one per tap would be fused into the sum:
  # on a CPU, XLA fuses what comes before (a bias, a ReLU) as well then, and
  # computes it anew for each tap. It does not fuse a padding that several
  # windows read.
  padded = lax.pad(x, zero, ((0, 0, 0), *pads, (0, 0, 0)))

  def window(top, left):
    if apart:
      sides = [
        (-start, start + span - (n - 1) * spread - 1, spread - 1)
        for start, span, n in zip((top, left), spans, x.shape[1:3], strict=True)
      ]
      cut = lax.pad(x, zero, ((0, 0, 0), *sides, (0, 0, 0)))
      return cut[:, ::stride, ::stride]
    top, left = top + pads[0][0], left + pads[1][0]
    return padded[
      :,
      top : top + spans[0] : stride,
      left : left + spans[1] : stride,
    ]

  kernel = kernel.astype(wide)
  if not apart:
    kernel = _computed(kernel)
  y = jnp.zeros((x.shape[0], *size, x.shape[3]), wide)
  for i, top in rows:
    for j, left in columns:
      weights = kernel[i : i + 1, j : j + 1]
      y = y + window(top, left).astype(wide) * weights
  return y.astype(x.dtype)


def _computed(kernel):
  """Return the kernel, computed before the sum over windows reads it.

  XLA fuses what a kernel is made of (its part of stacked kernels in a loop, a
  norm's factor) into that sum on a CPU, and computes it anew for each pixel. It
  does not fuse matrix products; this one is exact.
  """
  taps = kernel.shape[0] * kernel.shape[1]
  flat = kernel.reshape(taps, -1)
  one = np.eye(taps, dtype=flat.dtype)
  return lax.dot(one, flat, precision="highest").reshape(kernel.shape)


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


def _cropped_kernel_gradient(x, kernel, dy, rows, columns):
  """Sum x * dy for each tap, all of a tap's pixels at once."""
  wide = _wide(x.dtype)
  total = jnp.zeros(kernel.shape, wide)
  for row in rows:
    for column in columns:
      read = x[:, row.reads, column.reads].astype(wide)
      grad = dy[:, _outputs(row, dy, 1), _outputs(column, dy, 2)].astype(wide)
      product = jnp.sum(read * grad, (0, 1, 2))
      total = total.at[row.index, column.index, 0].set(product)
  return total.astype(kernel.dtype)


def _outputs(tap, y, axis):
  """Slice of the outputs that read inside the map at this tap."""
  return slice(tap.before, y.shape[axis] - tap.behind)


def _wide(dtype):
  """Keep sums of half precision in float32."""
  return jnp.promote_types(dtype, jnp.float32)
