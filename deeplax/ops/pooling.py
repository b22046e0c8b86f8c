"""Pooling over windows of a map, NHWC: maxima, dilated or not, and means."""

from functools import partial

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from deeplax.arrays import Arrays
from deeplax.ops import backend
from deeplax.ops import padding as paddings
from deeplax.ops import true_size

PADDINGS = ("same", "symmetric", "ceil")


def max_pool(
  x: Float[Arrays, "b h w c"],
  kernel: int,
  *,
  stride: int,
  rate: int = 1,
  padding: str = "same",
) -> Float[Array, "b H W c"]:
  """Return the largest value of each window of `kernel` x `kernel` pixels.

  Args:
    x: The map; outside it nothing counts.
    kernel: Side of the window.
    stride: Between windows.
    rate: Between the pixels of a window.
    padding: "same" is TensorFlow's; "symmetric" pads by half the window;
      "ceil" is Caffe's: the last window may reach beyond the map.

  Raises:
    ValueError: On an unknown padding, or "ceil" inside `true_size.within`.
  """
  if padding not in PADDINGS:
    raise ValueError(f"pool_padding {padding!r} not in {list(PADDINGS)}")
  x = jnp.asarray(x)
  size = x.shape[1], x.shape[2]
  if padding != "ceil":
    x, pads = true_size.windows(
      x,
      kernel=kernel,
      stride=stride,
      rate=rate,
      padding=padding,
      outside=-jnp.inf,
    )
  elif true_size.sides(size) is None:
    pads = paddings.ceil(size, kernel=kernel, stride=stride, rate=rate)
  else:
    raise ValueError(
      "pooling that rounds its size up has no exact form on padded images: "
      "use --sizes=unpadded"
    )
  if rate == 1:
    pool = _gathered if backend.ordered() else _library
    return pool(x, kernel, stride, tuple(map(tuple, pads)))
  # The gradient of XLA's pooling knows no rate.
  lowest = jnp.array(-jnp.inf, x.dtype)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=lowest)
  ends = [n - (kernel - 1) * rate for n in x.shape[1:3]]
  y = None
  for i, j in np.ndindex(kernel, kernel):
    top, left = i * rate, j * rate
    seen = x[:, top : top + ends[0] : stride, left : left + ends[1] : stride]
    y = seen if y is None else jnp.maximum(y, seen)
  assert y is not None
  return y


def _library(x, kernel, stride, pads):
  return nn.pool(x, -jnp.inf, lax.max, (kernel, kernel), (stride, stride), pads)


# The library's gradient scatters; this one, of the same maxima, adds up for
# each pixel what comes from the windows that it is in.
@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gathered(x, kernel, stride, pads):
  return _library(x, kernel, stride, pads)


def _gathered_forward(x, kernel, stride, pads):
  y = _library(x, kernel, stride, pads)
  return y, (x, y)


def _gathered_backward(kernel, stride, pads, saved, dy):
  x, y = saved
  lowest = jnp.array(-jnp.inf, x.dtype)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=lowest)
  dx = jnp.zeros(x.shape, jnp.float32)
  waiting = jnp.ones(y.shape, bool)  # windows whose first maximum is to come
  for tap in np.ndindex(kernel, kernel):
    i, j = tap
    bottom, right = (
      first + (n - 1) * stride + 1
      for first, n in zip(tap, y.shape[1:3], strict=True)
    )
    seen = x[:, i:bottom:stride, j:right:stride]
    here = waiting & (seen == y)
    waiting &= ~here
    rows = i, x.shape[1] - bottom, stride - 1
    columns = j, x.shape[2] - right, stride - 1
    part = jnp.where(here, dy, 0).astype(jnp.float32)
    dx += lax.pad(part, 0.0, ((0, 0, 0), rows, columns, (0, 0, 0)))
  (top, below), (left, after) = pads
  height, width = dx.shape[1:3]
  dx = dx[:, top : height - below, left : width - after]
  return (dx.astype(x.dtype),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def average_pool(
  x: Float[Arrays, "b h w c"], kernel: int
) -> Float[Array, "b h w c"]:
  """Return the mean of the `kernel` x `kernel` pixels around each pixel.

  Caffe's, with stride 1 and half a window of padding: zeros beyond the edge
  count as pixels (pooling_layer.cpp divides by the window cut to the padded
  map), as in PyTorch and not in TensorFlow. The sum is kept in float32.
  """
  x = jnp.asarray(x)
  x, pads = true_size.windows(
    x, kernel=kernel, stride=1, rate=1, padding="same"
  )
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  # Its annotation knows a name alone; its text also pairs.
  y = nn.avg_pool(wide, (kernel, kernel), (1, 1), pads)  # pyright: ignore
  return y.astype(x.dtype)
