"""LR-ASPP (MobileNetV3, arXiv:1905.02244, section 6.4 and figure 10).

The head is here; the scores of a finer feature are added to its own by a
`decoder.Decoder` of kind "sum" with `num_classes`. Settings:
tensorflow/models research/deeplab model.py under the model zoo's flags.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.models import layers
from deeplax.models.heads import blocks
from deeplax.ops import resize


class LRASPP(nn.Module):
  """A 1x1 convolution whose channels are weighed by image pooling.

  Attributes:
    norm: Of the 1x1 convolution; the weights have a bias instead.
    channels: Width of the result.
    image_pooling: Whether the channels are weighed.
    pool_window: (height, width), in features, of what image pooling averages;
      None: the whole map.
    pool_stride: Of these windows; their weights are resized to the map.
    dropout: Of the result, in training; the reference has none.
    conv_init: How kernels are drawn.
    dtype: Compute dtype.
  """

  norm: layers.Norm
  channels: int = 128
  image_pooling: bool = True
  pool_window: tuple[int, int] | None = None
  pool_stride: tuple[int, int] = (1, 1)
  dropout: float = 0.0
  conv_init: layers.Init = layers.Init("xavier_uniform")
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    x = layers.ConvNorm(
      self.channels,
      norm=self.norm,
      activation="relu",
      kernel_init=self.conv_init,
      dtype=self.dtype,
      name="aspp0",
    )(high, train=train)
    if self.image_pooling:
      mean = blocks.average_pool(high, self.pool_window, self.pool_stride)
      gate = layers.ConvNorm(
        self.channels,
        use_bias=True,
        activation="hard_sigmoid",
        kernel_init=self.conv_init,
        dtype=self.dtype,
        name="image_pooling",
      )(mean, train=train)
      x = x * resize.resize_bilinear(gate, (high.shape[1], high.shape[2]))
    dropout = layers.Dropout(self.dropout, self.norm.axis_name, name="dropout")
    return dropout(x, train=train)
