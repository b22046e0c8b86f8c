"""Depthwise convolution for NVIDIA cards: kernels that walk down the rows.

Three functions are the seam to the rest: `forward`, `input_gradient` and
`kernel_gradient`.

A program owns a strip of neighboring columns and a block of channels of one
image, and walks down. Each row that it meets is loaded once for every column of
the kernel and feeds all of the outputs that read it, which are kept in float32
registers. A rate r makes the rows r apart one walk, so r walks interleave.

What surrounds a convolution in these networks is done on the way, because a
pass over a map costs as much as the convolution itself: the norm and the ReLU
before it where the map is read, and the sums that a norm needs, of the outputs
or of the gradients, where they are written.
"""

from typing import Any, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.ops import kernel_parts
from deeplax.ops import padding as paddings


class Tile(NamedTuple):
  """What one program works on, and its width in warps of 32 threads."""

  columns: int
  channels: int
  rows: int
  warps: int


# Four values a thread, of the tiles that were tried the fastest on most maps
# (docs/performance.md): with eight, too many sums for the registers.
WALK = Tile(columns=8, channels=64, rows=11, warps=4)
REDUCE = Tile(columns=4, channels=128, rows=33, warps=4)


class Window(NamedTuple):
  """How outputs read the map: output 0 at `first`, then every `stride`."""

  first: tuple[int, int]
  stride: int
  rate: tuple[int, int]


def window(
  stride: int, rate: paddings.Rate, padding: paddings.Padding
) -> Window:
  """Return how a convolution reads its input."""
  (top, _), (left, _) = padding
  return Window((-top, -left), stride, paddings.pair(rate))


PLAIN = kernel_parts.Read()


def forward(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw 1 c"],
  *,
  size: tuple[int, int],
  window: Window,
  read: kernel_parts.Read = PLAIN,
  shift: Float[Array, " c"] | None = None,
) -> tuple[Float[Array, "b H W c"], Float[Array, "2 c"] | None]:
  """Return the convolved map, and the sums of y - shift and of its square.

  Args:
    size: (H, W).
    read: What is convolved of x.
    shift: Near the outputs' mean; None: the sums are not wanted.
  """
  return _walk(x, kernel, size=size, window=window, read=read, shift=shift)


def input_gradient(
  dy: Float[Array, "b H W c"],
  kernel: Float[Array, "kh kw 1 c"],
  x: Float[Array, "b h w c"],
  *,
  window: Window,
  read: kernel_parts.Read = PLAIN,
  mean: Float[Array, " c"] | None = None,
) -> tuple[Float[Array, "b h w c"], Float[Array, "2 c"] | None]:
  """Return the gradient g by x * factor + bias, and two sums over pixels.

  Args:
    read: As of `forward`.
    mean: The sums are those of g and of g * (x - mean); None: not wanted.
  """
  if window.stride > 1:
    return _spread(dy, kernel, x, window=window, read=read, mean=mean)
  # The same walk with the kernel turned around.
  first = [
    -f - (n - 1) * r
    for f, n, r in zip(window.first, kernel.shape[:2], window.rate, strict=True)
  ]
  return _walk(
    dy,
    kernel[::-1, ::-1],
    size=x.shape[1:3],
    window=Window((first[0], first[1]), 1, window.rate),
    behind=(x, read),
    shift=mean,
  )


def kernel_gradient(
  x: Float[Array, "b h w c"],
  dy: Float[Array, "b H W c"],
  kernel: Float[Array, "kh kw 1 c"],
  *,
  window: Window,
  read: kernel_parts.Read = PLAIN,
) -> Float[Array, "kh kw 1 c"]:
  """Return the gradient of `forward` by its kernel, summed in float32."""
  _, height, width, channels = x.shape
  high, wide = dy.shape[1:3]
  kh, kw = kernel.shape[:2]
  stride, (down, across) = window.stride, window.rate
  walks = _walks(REDUCE, dy.shape, down)
  tile, rows = walks.tile, walks.tile.rows

  def body(x_ref, dy_ref, *refs):
    *affine, out_ref = refs
    part, image, start, column, block = walks.place()
    clamp = read.clamp(affine, block)
    reads = [
      block.strip(column * stride + window.first[1] + across * j, width)
      for j in range(kw)
    ]
    outputs, real = block.strip(column, wide)

    def values(step):
      row = start * stride + window.first[0] + down * step
      above = (image * height + row) * (width * channels)
      within = (row >= 0) & (row < height)
      return [
        clamp(
          kernel_parts.load(x_ref, above + offsets, mask & within),
          mask & within,
        )
        for offsets, mask in reads
      ]

    def gradient(step):
      row = start + down * step
      above = (image * high + row) * (wide * channels)
      within = (step < rows) & (row < high)
      return kernel_parts.load(dy_ref, above + outputs, real & within)

    zero = jnp.zeros((tile.columns, tile.channels), jnp.float32)
    sums = (zero,) * (kh * kw)
    if stride == 1:
      # A row meets the gradients of the last kh outputs, which are kept.
      def step(n, carry):
        sums, past = carry
        gradients, row = (gradient(n), *past), values(n)
        sums = _added(sums, [v * g for g in gradients for v in row])
        return sums, gradients[:-1]

      carry = sums, (zero,) * (kh - 1)
      sums, _ = lax.fori_loop(0, rows + kh - 1, step, carry)
    else:

      def strided(n, sums):
        g = gradient(n)
        rows = [values(stride * n + i) for i in range(kh)]
        return _added(sums, [v * g for row in rows for v in row])

      sums = lax.fori_loop(0, rows, strided, sums)
    for tap, total in enumerate(sums):
      offsets = (part * (kh * kw) + tap) * channels + block.channel
      kernel_parts.store(out_ref, offsets, block.real, total.sum(0))

  (out,) = kernel_parts.call(
    body,
    walks.grid,
    [jax.ShapeDtypeStruct((walks.parts * kh * kw * channels,), jnp.float32)],
    "depthwise_kernel_gradient",
    tile.warps,
    (x, dy, *read.affine),
  )
  total = out.reshape(walks.parts, kh * kw, channels).sum(0)
  return total.reshape(kernel.shape).astype(kernel.dtype)


def _added(sums, products):
  return tuple(s + p for s, p in zip(sums, products, strict=True))


class _Walks(NamedTuple):
  """How the outputs are shared out.

  Attributes:
    tile: Of a program, cut to the map.
    down: Rows between two of a walk.
    walks: Of one image, strip and phase of the rate.
    strips: Of columns.
    parts: Programs on a block of channels.
    channels: Of the map.
  """

  tile: Tile
  down: int
  walks: int
  strips: int
  parts: int
  channels: int

  @property
  def grid(self) -> tuple[int, int]:
    return self.parts, pl.cdiv(self.channels, self.tile.channels)

  def place(self) -> tuple[Any, Any, Any, Any, kernel_parts.Block]:
    """Return part, image, first row, columns and channels of a program."""
    part = pl.program_id(0)
    rest, strip = kernel_parts.split(part, self.strips)
    image, walk = kernel_parts.split(rest, self.down * self.walks)
    phase, walk = kernel_parts.split(walk, self.walks)
    start = phase + self.down * self.tile.rows * walk
    column = strip * self.tile.columns + jnp.arange(self.tile.columns)
    block = kernel_parts.Block.number(
      pl.program_id(1), self.tile.channels, self.channels
    )
    return part, image, start, column, block


def _walks(tile: Tile, shape: tuple[int, ...], down: int) -> _Walks:
  batch, high, wide, channels = shape
  lines = pl.cdiv(high, down)  # of one walk
  tile = _fit(tile, wide, channels, lines)
  walks, strips = pl.cdiv(lines, tile.rows), pl.cdiv(wide, tile.columns)
  parts = batch * down * walks * strips
  return _Walks(tile, down, walks, strips, parts, channels)


def _walk(source, kernel, *, size, window, read=PLAIN, behind=None, shift=None):
  """Sum the taps of the map at each output.

  Args:
    behind: A map of the outputs' size and how it was read: the outputs are
      gradients by it.
    shift: See `kernel_parts.Writer`; None: without sums.
  """
  batch, height, width, channels = source.shape
  (high, wide), (kh, kw) = size, kernel.shape[:2]
  stride, (down, across) = window.stride, window.rate
  walks = _walks(WALK, (batch, high, wide, channels), down)
  tile, rows = walks.tile, walks.tile.rows

  def body(x_ref, kernel_ref, *refs):
    part, image, start, column, block = walks.place()
    affine, refs = refs[: len(read.affine)], refs[len(read.affine) :]
    clamp = read.clamp(affine, block)
    writer = kernel_parts.Writer(refs, behind, shift, block, source.dtype)
    weights = _weights(kernel_ref, kh * kw, block)
    reads = [
      block.strip(column * stride + window.first[1] + across * j, width)
      for j in range(kw)
    ]
    zero = jnp.zeros((tile.columns, tile.channels), jnp.float32)
    sums = [zero] * rows
    for step in range(stride * (rows - 1) + kh):
      row = start * stride + window.first[0] + down * step
      above = (image * height + row) * (width * channels)
      within = (row >= 0) & (row < height)
      for j, (offsets, mask) in enumerate(reads):
        mask = mask & within
        value = clamp(kernel_parts.load(x_ref, above + offsets, mask), mask)
        for i in range(kh):
          line, rest = divmod(step - i, stride)
          if rest == 0 and 0 <= line < rows:
            sums[line] += value * weights[i * kw + j]
    offsets, mask = block.strip(column, wide)
    for line, total in enumerate(sums):
      row = start + down * line
      above = (image * high + row) * (wide * channels)
      writer.put(above + offsets, mask & (row < high), total)
    writer.finish(part, walks.parts)

  return kernel_parts.written(
    body,
    walks.grid,
    "depthwise_walk",
    tile.warps,
    (source, kernel, *read.affine),
    shape=(batch, high, wide, channels),
    behind=behind,
    shift=shift,
  )


def _spread(dy, kernel, x, *, window, read, mean):
  """Sum the taps that meet each pixel where outputs are `stride` apart.

  A program makes stride x stride pixels for each gradient of its strip; every
  one of these classes of pixels is met by other taps.
  """
  batch, high, wide, channels = dy.shape
  (height, width), (kh, kw) = x.shape[1:3], kernel.shape[:2]
  stride = window.stride
  top, left = (-first for first in window.first)
  lines, across = pl.cdiv(height, stride), pl.cdiv(width, stride)
  tile = _fit(WALK, across, channels, lines)
  strips = pl.cdiv(across, tile.columns)
  parts = batch * lines * strips

  def body(dy_ref, kernel_ref, *refs):
    part = pl.program_id(0)
    rest, strip = kernel_parts.split(part, strips)
    image, line = kernel_parts.split(rest, lines)
    block = kernel_parts.Block.number(pl.program_id(1), tile.channels, channels)
    writer = kernel_parts.Writer(refs, (x, read), mean, block, dy.dtype)
    weights = _weights(kernel_ref, kh * kw, block)
    column = strip * tile.columns + jnp.arange(tile.columns)
    gradients = {}

    def gradient(i, j):
      if (i, j) not in gradients:
        row = line + i
        offsets, mask = block.strip(column + j, wide)
        above = (image * high + row) * (wide * channels)
        within = (row >= 0) & (row < high)
        gradients[i, j] = kernel_parts.load(
          dy_ref, above + offsets, mask & within
        )
      return gradients[i, j]

    for down in range(stride):
      for right in range(stride):
        total = jnp.zeros((tile.columns, tile.channels), jnp.float32)
        for i in range(kh):
          for j in range(kw):
            a, below = divmod(down + top - i, stride)
            b, beside = divmod(right + left - j, stride)
            if below == beside == 0:
              total += gradient(a, b) * weights[i * kw + j]
        row = line * stride + down
        offsets, mask = block.strip(column * stride + right, width)
        above = (image * height + row) * (width * channels)
        writer.put(above + offsets, mask & (row < height), total)
    writer.finish(part, parts)

  return kernel_parts.written(
    body,
    (parts, pl.cdiv(channels, tile.channels)),
    "depthwise_spread",
    tile.warps,
    (dy, kernel),
    shape=(batch, height, width, channels),
    behind=(x, read),
    shift=mean,
  )


def _fit(tile: Tile, columns: int, channels: int, lines: int) -> Tile:
  """Return a tile for a map.

  Its blocks of channels, powers of two, exceed the map's by an eighth at most
  as far as 32 of them allow. Fewer channels make more columns. Rows are spread
  evenly over the walks.
  """
  block = tile.channels
  while block > 32 and pl.cdiv(channels, block) * block > 1.125 * channels:
    block //= 2
  block = min(block, pl.next_power_of_2(channels))
  across = tile.columns * tile.channels // block
  walks = pl.cdiv(lines, tile.rows)
  return tile._replace(
    columns=min(across, pl.next_power_of_2(columns)),
    channels=block,
    rows=pl.cdiv(lines, walks),
  )


def _weights(ref, taps, block):
  return [block.vector(ref, tap * block.channels) for tap in range(taps)]
