"""Batch statistics and batch normalization, over the devices of a mapped step.

Statistics are float32. Two passes, mean then variance, keep all digits. One
pass reads the map once and takes one sum over devices in place of two that wait
for each other. E[x^2] - E[x]^2 alone would lose the digits by which mean and
deviation differ, so it sums x - s and its square, with a shift s near the mean:
the running one. Kernels do the same where XLA's own reductions are slow
(sum_kernels.py).
"""

import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.ops import backend


class Over(NamedTuple):
  """The devices of a mapped step that share statistics.

  Attributes:
    axis_name: The mapped axis.
    groups: Of its devices, of equal size, each with statistics of its own;
      None: all share theirs.
  """

  axis_name: str
  groups: tuple[tuple[int, ...], ...] | None = None


@flax.struct.dataclass
class Normed:
  """A map to be normalized, and bounded, by what reads it.

  Attributes:
    x: The map, [..., c].
    scale: Of the normalized values, [c].
    offset: Added to them, [c].
    mean: Of the map, over all devices that share statistics, [c].
    var: The same, biased, [c].
    eps: Added to the variance.
    limit: Bounds the result by 0 and this; None: no bounds.
    over: The devices that share statistics.
  """

  # Not jax.Array: JAX makes trees of this shape with other leaves, too.
  x: Any
  scale: Any
  offset: Any
  mean: Any
  var: Any
  eps: float = flax.struct.field(pytree_node=False)
  limit: float | None = flax.struct.field(pytree_node=False)
  over: Over | None = flax.struct.field(pytree_node=False)

  def affine(self) -> tuple[jax.Array, jax.Array]:
    """Return the factor and the bias that normalize."""
    factor = self.scale * lax.rsqrt(self.var + self.eps)
    return factor, self.offset - self.mean * factor

  def gradient(self, g: jax.Array, sums: jax.Array) -> "Normed":
    """Return the gradients by map, scale and offset, the others zero.

    Mean and variance are of the same map, so that their part is in the map's.

    Args:
      g: The gradient by the normalized map, within the bounds.
      sums: Of g and of g * (x - mean) on this device, [2, c].
    """
    count = self.x.size // self.x.shape[-1] * _devices(self.over)
    g, centered = _wide(g), _wide(self.x) - _last(self.mean, self.x)
    inverse = lax.rsqrt(self.var + self.eps)
    factor = self.scale * inverse
    doffset, dscale = sums[0], sums[1] * inverse
    # Every device's loss depends on the statistics that all of them share, so
    # these two are summed over the devices; scale and offset are per device.
    shared = jnp.stack([-factor * doffset, -factor * inverse * dscale / 2])
    dmean, dvar = _sum(shared, self.over)
    dx = g * _last(factor, self.x)
    dx += _last(dmean / count, self.x) + centered * _last(
      2 * dvar / count, self.x
    )
    return dataclasses.replace(
      jax.tree.map(jnp.zeros_like, self),
      x=dx.astype(self.x.dtype),
      scale=dscale.astype(self.scale.dtype),
      offset=doffset.astype(self.offset.dtype),
    )


@jax.named_scope("statistics")  # so that profiles tell them
def moments(
  x: Float[Arrays, "*n c"],
  *,
  shift: Float[Arrays, " c"] | None = None,
  sums: Float[Arrays, "2 c"] | None = None,
  over: Over | None = None,
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
  """Return mean and biased variance over all but the last axis.

  Args:
    shift: Near the mean, for statistics of one pass; None: 0.
    sums: Of x - shift and its square on this device, where they are known.
    over: The devices that are counted together; None: this one.
  """
  x = jnp.asarray(x)
  axes = tuple(range(x.ndim - 1))
  pixels = x.size // x.shape[-1]
  form = backend.form("statistics")
  # Every device holds as many values, so the mean of means is the mean.
  if form == "two_passes" and sums is None:
    x = _wide(x)
    mean = _mean(jnp.mean(x, axes), over)
    var = _mean(jnp.mean(lax.square(x - _last(mean, x)), axes), over)
    return mean, var
  if shift is None:
    shift = jnp.zeros(x.shape[-1:], jnp.float32)
  if sums is not None:
    means = sums / pixels
  elif form == "kernels" and backend.kernels_take(x):
    from deeplax.ops import sum_kernels

    means = sum_kernels.sums(x, shift) / pixels
  else:
    x = _wide(x) - _last(jnp.asarray(shift), x)
    means = jnp.stack([jnp.mean(x, axes), jnp.mean(lax.square(x), axes)])
  mean, square = _mean(means, over)
  return mean + shift, jnp.maximum(square - lax.square(mean), 0)


def normed(
  x: Float[Arrays, "*n c"],
  scale: Float[Arrays, " c"],
  offset: Float[Arrays, " c"],
  *,
  eps: float,
  limit: float | None = None,
  shift: Float[Arrays, " c"] | None = None,
  sums: Float[Arrays, "2 c"] | None = None,
  over: Over | None = None,
) -> Normed:
  """Return a map that is normalized where it is read.

  No gradient passes through its mean and variance; that of what they normalize
  has their part.

  Args:
    eps: Added to the variance.
    limit: Bounds the result by 0 and this; None: no bounds.
    shift: See `moments`, also for `sums` and `over`.
  """
  x, scale, offset = jnp.asarray(x), jnp.asarray(scale), jnp.asarray(offset)
  fixed, shift, sums = lax.stop_gradient((x, shift, sums))
  mean, var = moments(fixed, shift=shift, sums=sums, over=over)
  return Normed(x, scale, offset, mean, var, eps, limit, over)


@jax.custom_vjp
def applied(of: Normed) -> jax.Array:
  """Return the normalized map, in the map's dtype."""
  y = _affine(of.x, of.mean, of.affine()[0], of.offset)
  return y if of.limit is None else jnp.clip(y, 0, of.limit)


def _forward(of):
  return applied(of), of


@jax.named_scope("statistics")
def _backward(of, dy):
  sums = None
  kernels = backend.form("statistics") == "kernels"
  if kernels and backend.kernels_take(of.x):
    from deeplax.ops import sum_kernels

    sums = sum_kernels.gradient_sums(dy, of)
  if of.limit is not None:
    inner = _affine(of.x, of.mean, of.affine()[0], of.offset)
    dy = jnp.where((inner > 0) & (inner < of.limit), dy, 0)
  if sums is None:
    wide = _wide(dy)
    moved = wide * (_wide(of.x) - _last(of.mean, of.x))
    axes = tuple(range(dy.ndim - 1))
    sums = jnp.stack([jnp.sum(wide, axes), jnp.sum(moved, axes)])
  return (of.gradient(dy, sums),)


applied.defvjp(_forward, _backward)


def now(x: Arrays | Normed) -> jax.Array:
  """Return a map, normalized if that was left to its reader."""
  return applied(x) if isinstance(x, Normed) else jnp.asarray(x)


def map_of(x: jax.Array | Normed) -> jax.Array:
  """Return a map as it is, normalized or not."""
  return x.x if isinstance(x, Normed) else x


def batch_norm_plain(
  x: Float[Arrays, "*n c"],
  scale: Float[Arrays, " c"],
  offset: Float[Arrays, " c"],
  *,
  eps: float,
  over: Over | None = None,
) -> tuple[Float[Array, "*n c"], Float[Array, " c"], Float[Array, " c"]]:
  """Return result, mean and biased variance, with the gradient JAX derives."""
  with backend.chosen(statistics="two_passes"):
    mean, var = moments(x, over=over)
  return _affine(x, mean, scale * lax.rsqrt(var + eps), offset), mean, var


def _affine(x, mean, factor, offset):
  y = (_wide(x) - _last(mean, x)) * _last(factor, x) + _last(offset, x)
  return y.astype(x.dtype)


def _wide(x):
  return jnp.asarray(x).astype(jnp.promote_types(x.dtype, jnp.float32))


def _last(vector, x):
  """Shape one value per channel so that it broadcasts against x."""
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _sum(x, over):
  if over is None:
    return x
  return lax.psum(x, over.axis_name, axis_index_groups=over.groups)


def _mean(x, over):
  if over is None:
    return x
  return lax.pmean(x, over.axis_name, axis_index_groups=over.groups)


def _devices(over):
  if over is None:
    return 1
  return len(over.groups[0]) if over.groups else lax.axis_size(over.axis_name)
