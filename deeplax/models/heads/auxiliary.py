"""A second head, for training only."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.models import layers


class Auxiliary(nn.Module):
  """A second classifier on a middle feature (PSPNet, 1612.01105, 3.2).

  It helps the backbone train and is left out afterwards. The layers are those
  of torchvision's FCNHead.

  Attributes:
    norm: Of the 3x3 convolution, to a quarter of the feature's channels.
    num_classes: Background included.
    dropout: Before the logits, in training.
    conv_init: How the 3x3 kernel is drawn.
    logits_init: How the last kernel is drawn.
    dtype: Compute dtype; logits are float32.
  """

  norm: layers.Norm
  num_classes: int
  dropout: float = 0.1
  conv_init: layers.Init = layers.Init("xavier_uniform")
  logits_init: layers.Init = layers.Init("truncated_normal", 0.01)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, middle: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    x = layers.ConvNorm(
      max(middle.shape[-1] // 4, 1),
      kernel=3,
      norm=self.norm,
      activation="relu",
      kernel_init=self.conv_init,
      dtype=self.dtype,
      name="conv",
    )(middle, train=train)
    dropout = layers.Dropout(self.dropout, self.norm.axis_name, name="dropout")
    return layers.ConvNorm(
      self.num_classes,
      use_bias=True,
      kernel_init=self.logits_init,
      name="logits",
    )(dropout(x, train=train), train=train)
