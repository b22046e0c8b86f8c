"""A map combined with one value for many of its pixels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def widely(
  combine: Callable[[jax.Array, jax.Array], jax.Array],
  x: Float[Array, "b h w c"],
  y: Float[Array, "#b #h #w c"],
) -> Float[Array, "b h w c"]:
  """Return `combine(x, y)` in x's dtype, combined in float32.

  That is for the gradient of `y`, a sum over the pixels: bfloat16 has 8 bits,
  in which a sum stops growing at some hundred times the size of its summands.
  """
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return combine(x.astype(wide), y.astype(wide)).astype(x.dtype)
