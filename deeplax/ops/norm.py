"""Batch statistics and batch normalization, over the devices of a mapped step.

Statistics are float32 and take two passes. E[x^2] - E[x]^2 in one pass loses
the digits that mean and deviation differ by; with the gradient below, two
passes cost no more in a training step.
"""

from collections.abc import Sequence

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.arrays import Arrays

Groups = Sequence[Sequence[int]] | None


def moments(
  x: Float[Arrays, "*n c"],
  *,
  axis_name: str | None = None,
  axis_index_groups: Groups = None,
) -> tuple[Float[Array, " c"], Float[Array, " c"], int]:
  """Return mean, biased variance and count over all but the last axis.

  Args:
    axis_name: Mapped axis whose devices are counted together.
    axis_index_groups: Groups of equal size that are counted apart.
  """
  x = _wide(x)
  over = _over(axis_name, axis_index_groups)
  axes = tuple(range(x.ndim - 1))
  # Every device holds as many values, so the mean of means is the mean.
  mean = _mean(jnp.mean(x, axes), over)
  var = _mean(jnp.mean(lax.square(x - _last(mean, x)), axes), over)
  return mean, var, x.size // x.shape[-1] * _devices(over)


def batch_norm(
  x: Float[Arrays, "*n c"],
  scale: Float[Arrays, " c"],
  offset: Float[Arrays, " c"],
  *,
  eps: float,
  axis_name: str | None = None,
  axis_index_groups: Groups = None,
) -> tuple[Float[Array, "*n c"], Float[Array, " c"], Float[Array, " c"], int]:
  """Normalize with the batch's own statistics.

  Returns the result in x's dtype, and the mean, biased variance and count of
  `moments`.
  """
  over = _over(axis_name, axis_index_groups)
  x, scale, offset = jnp.asarray(x), jnp.asarray(scale), jnp.asarray(offset)
  y, mean, var = _normalize(x, scale, offset, eps, over)
  return y, mean, var, x.size // x.shape[-1] * _devices(over)


def batch_norm_plain(
  x: Float[Arrays, "*n c"],
  scale: Float[Arrays, " c"],
  offset: Float[Arrays, " c"],
  *,
  eps: float,
  axis_name: str | None = None,
  axis_index_groups: Groups = None,
) -> tuple[Float[Array, "*n c"], Float[Array, " c"], Float[Array, " c"], int]:
  """The same with the gradient JAX derives."""
  mean, var, count = moments(
    x, axis_name=axis_name, axis_index_groups=axis_index_groups
  )
  y = _affine(x, mean, scale * lax.rsqrt(var + eps), offset)
  return y, mean, var, count


def _normalized(x, scale, offset, eps, over):
  return _forward(x, scale, offset, eps, over)[0]


def _forward(x, scale, offset, eps, over):
  axis_name, groups = over or (None, None)
  mean, var, _ = moments(x, axis_name=axis_name, axis_index_groups=groups)
  y = _affine(x, mean, scale * lax.rsqrt(var + eps), offset)
  return (y, mean, var), (x, scale, offset, mean, var)


def _backward(eps, over, residuals, gradients):
  x, scale, offset, mean, var = residuals
  dy, dmean, dvar = gradients
  axes = tuple(range(x.ndim - 1))
  count = x.size // x.shape[-1] * _devices(over)
  dy, centered = _wide(dy), _wide(x) - _last(mean, x)
  inverse = lax.rsqrt(var + eps)
  doffset = jnp.sum(dy, axes)
  dscale = jnp.sum(dy * centered, axes) * inverse
  # Every device's loss depends on the statistics that all of them share, so
  # these two are summed over the devices; scale and offset are per device.
  dmean = _sum(dmean - scale * inverse * doffset, over)
  dvar = _sum(dvar - scale * inverse**2 * dscale / 2, over)
  dx = dy * _last(scale * inverse, x)
  dx += _last(dmean / count, x) + centered * _last(2 * dvar / count, x)
  return (
    dx.astype(x.dtype),
    dscale.astype(scale.dtype),
    doffset.astype(offset.dtype),
  )


_normalize = jax.custom_vjp(_normalized, nondiff_argnums=(3, 4))
_normalize.defvjp(_forward, _backward)


def _affine(x, mean, factor, offset):
  y = (_wide(x) - _last(mean, x)) * _last(factor, x) + _last(offset, x)
  return y.astype(x.dtype)


def _wide(x):
  return jnp.asarray(x).astype(jnp.promote_types(x.dtype, jnp.float32))


def _last(vector, x):
  """Shape one value per channel so that it broadcasts against x."""
  return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def _over(axis_name, groups):
  """Axis and groups as something hashable; None outside a mapped step."""
  if axis_name is None:
    return None
  return axis_name, None if groups is None else tuple(map(tuple, groups))


def _sum(x, over):
  return lax.psum(x, over[0], axis_index_groups=over[1]) if over else x


def _mean(x, over):
  return lax.pmean(x, over[0], axis_index_groups=over[1]) if over else x


def _devices(over):
  if over is None:
    return 1
  axis_name, groups = over
  return len(groups[0]) if groups else lax.axis_size(axis_name)
