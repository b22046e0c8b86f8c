"""LR-ASPP (MobileNetV3, arXiv:1905.02244, section 6.4 and figure 10).

The head is here; the scores of a finer feature are added to its own by a
`decoder.Decoder` of kind "sum" with `num_classes`. Settings:
tensorflow/models research/deeplab model.py under the model zoo's flags.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from deeplax.models import style as style_lib
from deeplax.models.heads import image_pooling
from deeplax.ops import resize


class LRASPP(nn.Module):
  """A 1x1 convolution whose channels are weighed by image pooling.

  Attributes:
    style: Settings of both 1x1 convolutions; that of the weights has a bias
      instead of the norm.
    channels: Width of the result.
    image_pooling: Whether image pooling weighs the channels.
    pool_window: (height, width), in features, of what image pooling averages;
      None: the whole map.
    pool_stride: (rows, columns) between these windows; their weights are
      resized to the map.
    dropout: Rate on the result, in training; the reference has none.
  """

  style: style_lib.Style
  channels: int = 128
  image_pooling: bool = True
  pool_window: tuple[int, int] | None = None
  pool_stride: tuple[int, int] = (1, 1)
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    x = self.style.conv(self.channels, "aspp0")(high, train=train)
    if self.image_pooling:
      mean = image_pooling.average_pool(
        high, self.pool_window, self.pool_stride
      )
      gate = self.style.biased(
        self.channels, activation="hard_sigmoid", name="image_pooling"
      )(mean, train=train)
      x = x * resize.resize_bilinear(gate, (high.shape[1], high.shape[2]))
    return self.style.dropout(self.dropout)(x, train=train)
