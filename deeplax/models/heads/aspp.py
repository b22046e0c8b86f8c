"""Atrous spatial pyramid pooling (DeepLab v3, arXiv:1706.05587)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models.heads import image_pooling
from deeplax.ops import resize

REFINE = (None, "dense", "separable")


class ASPP(nn.Module):
  """Parallel branches over one feature map, concatenated and projected.

  Branches: `image_pooling`, `aspp0` (1x1), then one per rate: `aspp1`, ...
  They are named by place, not by rate, since the rates follow the output
  stride and the parameters do not.

  Attributes:
    style: Settings of every convolution here.
    rates: Atrous rates; () leaves the MobileNet zoo head (image pooling, 1x1).
    channels: Width of every branch and of the result.
    image_pooling: Whether one branch is of global means.
    pool_window: (height, width), in features, of what image pooling averages;
      None: the whole map.
    pool_stride: (rows, columns) between these windows.
    pooling_first: Whether the image pooling leads the concatenation or ends it.
    separable: Whether the atrous 3x3 convolutions are separable (v3+, 3.1).
    dropout: Rate after the projection, in training.
    refine: Kind of the 3x3 convolution after that, "dense" or "separable";
      None: no such convolution.
  """

  style: style_lib.Style
  rates: tuple[int, ...] = (6, 12, 18)
  channels: int = 256
  image_pooling: bool = True
  pool_window: tuple[int, int] | None = None
  pool_stride: tuple[int, int] = (1, 1)
  pooling_first: bool = True
  separable: bool = True
  dropout: float = 0.1
  refine: str | None = None

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    layers.check_one_of("refine", self.refine, REFINE)
    branches, pooled = [], []
    if self.image_pooling:
      pooled.append(self._image_level(high, train=train))
    conv = partial(self.style.conv, self.channels)
    branches.append(conv("aspp0")(high, train=train))
    atrous = partial(conv, kernel=3, separable=self.separable)
    for place, rate in enumerate(self.rates, start=1):
      branches.append(atrous(f"aspp{place}", rate=rate)(high, train=train))
    parts = (pooled, branches) if self.pooling_first else (branches, pooled)
    x = jnp.concatenate([*parts[0], *parts[1]], axis=-1)
    x = conv("projection")(x, train=train)
    x = self.style.dropout(self.dropout)(x, train=train)
    if self.refine:
      separable = self.refine == "separable"
      x = conv("refine", kernel=3, separable=separable)(x, train=train)
    return x

  def _image_level(self, high: jax.Array, *, train: bool) -> jax.Array:
    """Return image pooling's branch, spread over the map (ParseNet)."""
    mean = image_pooling.average_pool(high, self.pool_window, self.pool_stride)
    style = self.style
    if train and style.norm.mode == "train":
      _, devices = style.norm.over()
      if mean.shape[0] * mean.shape[1] * mean.shape[2] * devices < 2:
        raise ValueError(
          "image pooling sees one value per channel (batch 1, one pooled "
          "pixel): its batch norm would output 0 and learn nothing. Use "
          "train.batch_size >= 2 per norm group, "
          "model.batch_norm.mode='frozen' or model.image_pooling=False"
        )
    conv = style.conv(self.channels, "image_pooling")
    x = conv(mean.astype(style.dtype), train=train)
    return resize.resize_bilinear(x, (high.shape[1], high.shape[2]))
