"""Dropout that does not depend on the number of devices."""

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.arrays import Arrays


class Dropout(nn.Module):
  """Dropout whose masks depend on the example, not on the device that has it.

  The caller folds the step into the "dropout" key; here each example's place
  in the global batch is folded in, so 1 and 8 devices drop the same values.

  Attributes:
    rate: Probability of a zero.
    axis_name: Name of the mapped axis of devices; None outside one.
  """

  rate: float
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, x: Float[Arrays, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w c"]:
    x = jnp.asarray(x)
    if not train or self.rate == 0:
      return x
    first = 0
    if self.axis_name is not None:
      first = lax.axis_index(self.axis_name) * x.shape[0]
    key = self.make_rng("dropout")

    def mask(index: jax.Array) -> jax.Array:
      example_key = jax.random.fold_in(key, index)
      return jax.random.bernoulli(example_key, 1 - self.rate, x.shape[1:])

    keep = jax.vmap(mask)(first + jnp.arange(x.shape[0]))
    return jnp.where(keep, x / (1 - self.rate), jnp.zeros_like(x))
