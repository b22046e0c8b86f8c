"""The head of a whole ImageNet network."""

import flax.linen as nn
from jaxtyping import Array, Float

from deeplax.models import style as style_lib
from deeplax.models.heads import image_pooling


class Classifier(nn.Module):
  """Global means and dropout: an ImageNet network up to its last layer.

  Attributes:
    style: For the dtype, and the mapped axis of the norm.
    dropout: Of the means, in training.
  """

  style: style_lib.Style
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b 1 1 c"]:
    x = image_pooling.average_pool(high, None).astype(self.style.dtype)
    return self.style.dropout(self.dropout)(x, train=train)
