"""How the kernels for NVIDIA cards address, read and write their maps.

With row_kernels.py and sum_kernels.py these are the only lines in Pallas'
language for Triton, which JAX means to drop in favor of Triton's own
(jax_triton) and of Mosaic: a port starts here. They are imported where
backend.py chooses the kernels, inside functions.

Maps are flat arrays, read at plain sums of offsets: an index out of a `where`
would be read one value at a time, at a third of the speed.
"""

from collections.abc import Callable, Sequence
import math
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

from deeplax.ops import backend


class Block(NamedTuple):
  """The channels of a program.

  Attributes:
    channel: Their numbers.
    real: Which of them the map has.
    channels: Of the map.
  """

  channel: jax.Array
  real: jax.Array
  channels: int

  @classmethod
  def number(cls, index: Any, width: int, channels: int) -> "Block":
    """Return the block `index` of so many channels each."""
    channel = index * width + jnp.arange(width, dtype=jnp.int32)
    return cls(channel, channel < channels, channels)

  def strip(self, column: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
    """Return the offsets of columns in a row, and which of them it has."""
    inside = (column >= 0) & (column < width)
    offsets = column[:, None] * self.channels + self.channel[None, :]
    return offsets, inside[:, None] & self.real[None, :]

  def vector(self, ref: Any, first: Any = 0) -> jax.Array:
    """Return the channels' values of a row of vectors, to broadcast."""
    return load(ref, first + self.channel, self.real)[None, :]


class Read(NamedTuple):
  """What is convolved of a map x: min(max(x * factor + bias, 0), limit).

  Attributes:
    limit: Of the values; infinity for a ReLU, None for no bound on either side.
    affine: factor and bias [c], float32; (): 1 and 0.
  """

  limit: float | None = None
  affine: tuple[jax.Array, ...] = ()

  def clamp(self, refs: Sequence[Any], block: Block) -> Callable[..., Any]:
    """Return (values, mask) -> what is convolved of them, 0 off the map."""
    affine = [block.vector(ref) for ref in refs]

    def clamp(x, mask):
      if affine:
        x = jnp.where(mask, _scaled(x, affine), 0)
      if self.limit is None:
        return x
      x = jnp.maximum(x, 0)
      return x if math.isinf(self.limit) else jnp.minimum(x, self.limit)

    return clamp


def split(number: Any, by: Any) -> tuple[jax.Array, jax.Array]:
  """Return quotient and remainder."""
  by = jnp.asarray(by, number.dtype)  # whose default may be 64 bits
  return lax.div(number, by), lax.rem(number, by)


def load(ref: Any, offset: Any, mask: jax.Array) -> jax.Array:
  """Return values in float32, zeros where `mask` is not."""
  if backend.interpreted():  # which reads masked offsets too
    offset = jnp.where(mask, offset, 0)
  value = triton.load(ref.at[offset], mask=mask, other=0.0)
  return value.astype(jnp.float32)


def store(ref: Any, offset: Any, mask: jax.Array, value: jax.Array) -> None:
  """Store values where `mask` is."""
  if backend.interpreted():
    offset = jnp.where(mask, offset, ref.shape[0])
  triton.store(ref.at[offset], value, mask=mask)


def call(
  body: Callable[..., None],
  grid: tuple[int, ...],
  outs: Sequence[jax.ShapeDtypeStruct],
  name: str,
  warps: int,
  arrays: Sequence[jax.Array],
) -> Sequence[jax.Array]:
  """Run a kernel over flat arrays.

  Args:
    body: Of a program, with the references of `arrays` and `outs`.
    grid: Numbers of programs.
    outs: Shapes of the results.
    name: For profiles.
    warps: Width of a program, in 32 threads each.
    arrays: The maps and vectors, of any shape.
  """
  interpreted = backend.interpreted()
  settings = triton.CompilerParams(num_warps=warps, num_stages=2)
  return pl.pallas_call(
    body,
    grid=grid,
    out_shape=list(outs),
    in_specs=[pl.no_block_spec] * len(arrays),
    out_specs=[pl.no_block_spec] * len(outs),
    interpret=interpreted,
    name=name,
    compiler_params=None if interpreted else settings,
  )(*(array.reshape(-1) for array in arrays))


class Writer:
  """Stores outputs, and adds up what a norm wants to know of them.

  Without a map behind them, outputs y are those of a convolution, and the sums
  those of y - shift and its square. With one they are gradients by what the
  convolution made of that map x: here they pass its bounds, and the sums are
  those of g and of g * (x - shift).
  """

  def __init__(self, refs, behind, shift, block, dtype):
    refs = iter(refs)
    self._block, self._dtype = block, dtype
    self._x = self._limit = self._shift = None
    if operands := _operands(behind, shift):
      self._x = next(refs)
      self._limit = behind[1].limit
      self._affine = [block.vector(next(refs)) for _ in operands[1:]]
    if shift is not None:
      self._shift = block.vector(next(refs))
    self._out, *self._sums = refs
    self._totals: list[Any] = [0.0, 0.0]

  def put(self, offsets, mask, value):
    """Store a strip of outputs."""
    x = None
    if self._x is not None:
      x = load(self._x, offsets, mask)
      if self._limit is not None:
        inner = _scaled(x, self._affine)
        value = jnp.where((inner > 0) & (inner < self._limit), value, 0)
    value = value.astype(self._dtype)
    store(self._out, offsets, mask, value)
    if self._shift is not None:
      # Sums of the rounded values, which the norm reads.
      value = value.astype(jnp.float32)
      if x is None:
        first = jnp.where(mask, value - self._shift, 0)
        second = first * first
      else:
        first = jnp.where(mask, value, 0)
        second = first * (x - self._shift)
      self._totals = [self._totals[0] + first, self._totals[1] + second]

  def finish(self, part, parts):
    """Store the sums of a program, one of `parts`."""
    for ref in self._sums:
      for n, total in enumerate(self._totals):
        offsets = (n * parts + part) * self._block.channels
        offsets = offsets + self._block.channel
        store(ref, offsets, self._block.real, total.sum(0))


def written(body, grid, name, warps, arrays, *, shape, behind, shift):
  """Run a kernel with a `Writer`; return its map, and its sums or None."""
  dtype, channels = arrays[0].dtype, shape[-1]
  arrays = (*arrays, *_operands(behind, shift))
  outs = [jax.ShapeDtypeStruct((math.prod(shape),), dtype)]
  if shift is None:
    (y,) = call(body, grid, outs, name, warps, arrays)
    return y.reshape(shape), None
  outs.append(jax.ShapeDtypeStruct((2 * grid[0] * channels,), jnp.float32))
  y, sums = call(body, grid, outs, name, warps, (*arrays, shift))
  return y.reshape(shape), sums.reshape(2, grid[0], channels).sum(1)


def _operands(behind, shift):
  """Return what a `Writer` reads of the map behind its outputs, if anything."""
  if behind is None or (shift is None and behind[1].limit is None):
    return ()
  return behind[0], *behind[1].affine


def _scaled(x, affine):
  for factor, bias in zip(affine[::2], affine[1::2], strict=True):
    x = x * factor + bias
  return x
