"""Atrous spatial pyramid pooling (DeepLab v3, arXiv:1706.05587)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.models import layers
from deeplax.models.heads import blocks
from deeplax.ops import resize

REFINE = (None, "dense", "separable")


class ASPP(nn.Module):
  """Parallel branches over one feature map, concatenated and projected.

  Branches: `image_pooling`, `aspp0` (1x1), then one per rate: `aspp1`, ...
  They are named by place, not by rate, since the rates follow the output
  stride and the parameters do not.

  Attributes:
    norm: Of every convolution here.
    rates: Atrous rates; () leaves the MobileNet zoo head (image pooling, 1x1).
    channels: Width of every branch and of the result.
    image_pooling: Whether there is a branch of global means.
    pool_window: (height, width), in features, of what image pooling averages;
      None: the whole map.
    pool_stride: Of these windows.
    pooling_first: Whether the image pooling leads the concatenation or ends it.
    separable: Whether the atrous 3x3 convolutions are separable (v3+, 3.1).
    norm_between: Whether separable convolutions have a norm and a ReLU between
      their halves.
    dropout: After the projection, in training.
    refine: A 3x3 convolution after that, "dense" or "separable"; None: none.
    conv_init: How dense kernels are drawn.
    depthwise_init: How depthwise kernels are drawn.
    pointwise_init: How the 1x1 kernels of separable convolutions are drawn.
    dtype: Compute dtype.
  """

  norm: layers.Norm
  rates: tuple[int, ...] = (6, 12, 18)
  channels: int = 256
  image_pooling: bool = True
  pool_window: tuple[int, int] | None = None
  pool_stride: tuple[int, int] = (1, 1)
  pooling_first: bool = True
  separable: bool = True
  norm_between: bool = True
  dropout: float = 0.1
  refine: str | None = None
  conv_init: layers.Init = layers.Init("xavier_uniform")
  depthwise_init: layers.Init = layers.Init("truncated_normal", 0.33)
  pointwise_init: layers.Init = layers.Init("truncated_normal", 0.06)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    layers.check_one_of("refine", self.refine, REFINE)
    branches, pooled = [], []
    if self.image_pooling:
      pooled.append(self._image_level(high, train=train))
    branches.append(self._conv("aspp0")(high, train=train))
    for place, rate in enumerate(self.rates, start=1):
      conv = self._conv(
        f"aspp{place}", kernel=3, rate=rate, separable=self.separable
      )
      branches.append(conv(high, train=train))
    parts = (pooled, branches) if self.pooling_first else (branches, pooled)
    x = jnp.concatenate([*parts[0], *parts[1]], axis=-1)
    x = self._conv("projection")(x, train=train)
    dropout = layers.Dropout(self.dropout, self.norm.axis_name, name="dropout")
    x = dropout(x, train=train)
    if self.refine:
      conv = self._conv(
        "refine", kernel=3, separable=self.refine == "separable"
      )
      x = conv(x, train=train)
    return x

  def _conv(
    self,
    name: str,
    *,
    kernel: int = 1,
    rate: int = 1,
    separable: bool = False,
  ) -> nn.Module:
    return blocks.convolution(
      self.channels,
      kernel=kernel,
      rate=rate,
      separable=separable,
      norm_between=self.norm_between,
      norm=self.norm,
      conv_init=self.conv_init,
      depthwise_init=self.depthwise_init,
      pointwise_init=self.pointwise_init,
      dtype=self.dtype,
      name=name,
    )

  def _image_level(self, high: jax.Array, *, train: bool) -> jax.Array:
    """Global mean, 1x1 convolution, spread back over the map (ParseNet)."""
    mean = blocks.average_pool(high, self.pool_window, self.pool_stride)
    if train and self.norm.mode == "train":
      _, _, devices = self.norm.over()
      if mean.shape[0] * mean.shape[1] * mean.shape[2] * devices < 2:
        raise ValueError(
          "image pooling sees one value per channel (batch 1, one pooled "
          "pixel): its batch norm would output 0 and learn nothing. Use "
          "train.batch_size >= 2 per norm group, "
          "model.batch_norm.mode='frozen' or model.image_pooling=False"
        )
    x = self._conv("image_pooling")(mean.astype(self.dtype), train=train)
    return resize.resize_bilinear(x, (high.shape[1], high.shape[2]))
