"""A second head, for training only."""

import flax.linen as nn
from jaxtyping import Array, Float

from deeplax.models import layers
from deeplax.models import style as style_lib


class Auxiliary(nn.Module):
  """A second classifier on a middle feature (PSPNet, 1612.01105, 3.2).

  It helps the backbone train and is left out afterwards. The layers are those
  of torchvision's FCNHead.

  Attributes:
    style: Settings of both convolutions.
    num_classes: Background included.
    dropout: Rate before the logits, in training.
  """

  style: style_lib.Style
  num_classes: int
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self, middle: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    # torchvision's FCNHead: a quarter of the channels.
    width = max(middle.shape[-1] // 4, 1)
    x = self.style.conv(width, "conv", kernel=3)(middle, train=train)
    x = self.style.dropout(self.dropout)(x, train=train)
    return layers.ConvNorm(
      self.num_classes,
      use_bias=True,
      kernel_init=self.style.logits_init,
      name="logits",
    )(x, train=train)
