"""Sums over all pixels of a map, for the batch norms of NVIDIA cards.

XLA's reductions to one value per channel read a map at half the speed of a
copy. Here a program sums a block of channels over a share of the pixels, in
float32 registers, and writes its part; the parts are added afterwards, always
in the same order, so that equal inputs give equal bits.
"""

from typing import NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.ops import kernel_parts as kernels
from deeplax.ops import norm


class Share(NamedTuple):
  """How the pixels are shared out.

  Attributes:
    values: Of a map that a program reads at once, a power of two.
    channels: Of them, at most.
    loads: Of so many values in flight.
    programs: On all channels together, at most.
    warps: Of a program.
  """

  values: int
  channels: int
  loads: int
  programs: int
  warps: int


SHARE = Share(values=2048, channels=128, loads=4, programs=396, warps=8)


def sums(
  x: Float[Array, "*n c"], shift: Float[Arrays, " c"]
) -> Float[Array, "2 c"]:
  """Return the sums of x - shift and of its square."""

  def terms(values, vectors, mask):
    value = jnp.where(mask, values[0] - vectors[0], 0)
    return value, value * value

  return _sum((x,), (shift,), terms)


def gradient_sums(
  dy: Float[Array, "*n c"], of: norm.Normed
) -> Float[Array, "2 c"]:
  """Return the sums of g and of g * (x - mean).

  Args:
    dy: The gradient by the normalized map; g is its part within the bounds.
    of: The normalized map.
  """
  limit = of.limit
  vectors = (of.mean,) if limit is None else (of.mean, *of.affine())

  def terms(values, vectors, mask):
    g, x = values
    if limit is not None:
      inner = x * vectors[1] + vectors[2]
      g = jnp.where((inner > 0) & (inner < limit), g, 0)
    return g, g * (x - vectors[0])

  return _sum((dy, of.x), vectors, terms)


def _sum(maps, vectors, terms):
  channels = maps[0].shape[-1]
  pixels = maps[0].size // channels
  width = min(SHARE.channels, pl.next_power_of_2(channels))
  rows = SHARE.values // width
  blocks = pl.cdiv(channels, width)
  parts = min(pl.cdiv(pixels, rows), max(SHARE.programs // blocks, 1))
  steps = pl.cdiv(pl.cdiv(pixels, rows * parts), SHARE.loads)

  def body(*refs):
    *refs, out_ref = refs
    map_refs, vector_refs = refs[: len(maps)], refs[len(maps) :]
    part = pl.program_id(0)
    channel = pl.program_id(1) * width + jnp.arange(width)
    real = channel < channels
    read = [kernels.load(ref, channel, real)[None, :] for ref in vector_refs]

    def step(n, totals):
      for k in range(SHARE.loads):
        first = ((n * SHARE.loads + k) * parts + part) * rows
        pixel = first + jnp.arange(rows)
        mask = (pixel < pixels)[:, None] & real[None, :]
        offsets = pixel[:, None] * channels + channel[None, :]
        values = [kernels.load(ref, offsets, mask) for ref in map_refs]
        added = terms(values, read, mask)
        totals = tuple(t + a for t, a in zip(totals, added, strict=True))
      return totals

    zero = jnp.zeros((rows, width), jnp.float32)
    totals = lax.fori_loop(0, steps, step, (zero, zero))
    for n, total in enumerate(totals):
      offsets = (n * parts + part) * channels + channel
      kernels.store(out_ref, offsets, real, total.sum(0))

  (out,) = kernels.call(
    body,
    (parts, blocks),
    [jax.ShapeDtypeStruct((2 * parts * channels,), jnp.float32)],
    "channel_sums",
    SHARE.warps,
    (*maps, *(jnp.asarray(v, jnp.float32) for v in vectors)),
  )
  return out.reshape(2, parts, channels).sum(1)
