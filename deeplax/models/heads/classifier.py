"""The head of a whole ImageNet network."""

import flax.linen as nn
from jaxtyping import Array, Float

from deeplax.models import style as style_lib
from deeplax.models.heads import image_pooling


class Classifier(nn.Module):
  """Global means and dropout: an ImageNet network up to its last layer.

  Attributes:
    style: Only its dtype and the axis name of its norm are used.
    dropout: Rate on the means, in training.
  """

  style: style_lib.Style
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b 1 1 c"]:
    x = image_pooling.average_pool(high, None).astype(self.style.dtype)
    return self.style.dropout(self.dropout)(x, train=train)
