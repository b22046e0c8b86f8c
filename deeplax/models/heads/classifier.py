"""The head of a whole ImageNet network."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.models import layers
from deeplax.models.heads import blocks


class Classifier(nn.Module):
  """Global means and dropout: an ImageNet network up to its last layer.

  Attributes:
    norm: For the name of the mapped axis.
    dropout: Of the means, in training.
    dtype: Compute dtype.
  """

  norm: layers.Norm
  dropout: float = 0.0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b 1 1 c"]:
    x = blocks.average_pool(high, None).astype(self.dtype)
    dropout = layers.Dropout(self.dropout, self.norm.axis_name, name="dropout")
    return dropout(x, train=train)
