"""How much of a padded map is image, for operations that look at neighbors.

Images of many sizes share a compiled program when they are padded to one size.
A network then sees the padding: through its kernels at the edge, its averages
and its resizes. Inside `within` the operations know the true size, a value and
no shape, and compute what they would without the padding: beyond the true edge
kernels read zeros, averages count no pixel and resizes stretch the true map.
The values of the padding are never read.

A side is known by its padded length: a map at stride s of an image of N pixels
has ceil(N / s), for TensorFlow's SAME and for symmetric padding, and different
for each power of two s until it is 1.
"""

from collections.abc import Iterator
import contextlib
import contextvars
from typing import NamedTuple

from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer
import numpy as np

from deeplax.ops import padding as paddings

Sides = Integer[Array | np.ndarray, "2"]


class Extent(NamedTuple):
  """The size of an image, padded and true.

  Attributes:
    padded: (height, width).
    true: (height, width); the image is at the top left.
  """

  padded: tuple[int, int]
  true: Sides

  def sides(self, size: tuple[int, int]) -> Sides:
    """Return the true (height, width) of a map that is `size` with padding.

    Raises:
      ValueError: No stride of the padded image gives this size.
    """
    pairs = zip(size, self.padded, strict=True)
    strides = jnp.array([_stride(side, whole) for side, whole in pairs])
    return -(-jnp.asarray(self.true) // strides)


def _stride(side: int, whole: int) -> int:
  stride = 1
  while -(-whole // stride) > side:
    stride *= 2
  if -(-whole // stride) != side:
    raise ValueError(
      f"a map with a side of {side} of an image of {whole}: exact sizes need "
      "maps at strides 1, 2, 4, ... of the image"
    )
  return stride


_current: contextvars.ContextVar[Extent | None] = contextvars.ContextVar(
  "extent", default=None
)


@contextlib.contextmanager
def within(extent: Extent | None) -> Iterator[None]:
  """Let operations that are traced inside know the true size; None: forget."""
  token = _current.set(extent)
  try:
    yield
  finally:
    _current.reset(token)


def sides(size: tuple[int, int]) -> Sides | None:
  """Return `Extent.sides` of a map, None where nothing is known."""
  extent = _current.get()
  return None if extent is None else extent.sides(size)


def masked(
  x: Float[Array, "b h w c"], outside: float = 0.0
) -> Float[Array, "b h w c"]:
  """Return x with `outside` beyond the true edge."""
  true = sides((x.shape[1], x.shape[2]))
  if true is None:
    return x
  rows, columns = jnp.arange(x.shape[1]), jnp.arange(x.shape[2])
  keep = (rows < true[0])[:, None] & (columns < true[1])[None]
  return jnp.where(keep[None, :, :, None], x, jnp.asarray(outside, x.dtype))


def mean(x: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 c"]:
  """Return the float32 mean of the true map."""
  true = sides((x.shape[1], x.shape[2]))
  if true is None:
    # In float32: thousands of bfloat16 summands lose the mean.
    return x.mean((1, 2), dtype=jnp.float32, keepdims=True)
  total = masked(x).sum((1, 2), dtype=jnp.float32, keepdims=True)
  return total / true.prod()


def windows(
  x: Float[Array, "b h w c"],
  *,
  kernel: int,
  stride: int,
  rate: paddings.Rate,
  padding: str,
  outside: float = 0.0,
) -> tuple[Float[Array, "b H W c"], paddings.Padding]:
  """Return what a kernel or a pooling is to read.

  Args:
    x: The map.
    kernel: Side of the kernel.
    stride: Of the kernel.
    rate: Of the kernel.
    padding: "same" is TensorFlow's; "symmetric" differs where there is a stride
      (slim's conv2d_same).
    outside: What stands beyond the edge; the padding is to be of that too.

  Returns:
    The map, with `outside` beyond the true edge, and its padding.
  """
  size = x.shape[1], x.shape[2]
  pads = paddings.same(size, kernel=kernel, stride=stride, rate=rate)
  symmetric = padding == "symmetric" and stride > 1
  if symmetric:
    pads = paddings.symmetric(kernel=kernel, rate=rate)
  true = sides(size)
  if true is None or kernel == 1:
    return x, pads
  x = masked(x, outside)
  if symmetric or stride == 1:
    return x, pads
  # SAME pads odd and even sides differently in front: begin where the true
  # side lets it begin.
  for axis, step in zip((1, 2), paddings.pair(rate), strict=True):
    reach = (kernel - 1) * step + 1
    outputs = -(-x.shape[axis] // stride)
    span = (outputs - 1) * stride + reach
    side = true[axis - 1]
    total = (-(-side // stride) - 1) * stride + reach - side
    before = jnp.maximum(total, 0) // 2
    most = (reach - 1) // 2
    pad = [(0, 0)] * 4
    pad[axis] = (most, max(span - x.shape[axis], 0))
    x = jnp.pad(x, pad, constant_values=outside)
    x = lax.dynamic_slice_in_dim(x, most - before, span, axis)
  return x, ((0, 0), (0, 0))


def mirrored(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  """Return x with its true map mirrored left to right."""
  true = sides((x.shape[1], x.shape[2]))
  if true is None:
    return x[:, :, ::-1]
  columns = jnp.arange(x.shape[2])
  columns = jnp.where(columns < true[1], true[1] - 1 - columns, columns)
  return jnp.take(x, columns, axis=2, mode="clip")
