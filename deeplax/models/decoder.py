"""The DeepLab v3+ decoder (arXiv:1802.02611, section 3.1, tables 1 and 2).

Names and resizes: tensorflow/models research/deeplab model.py
`refine_by_decoder`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.ops import resize

KINDS = ("concat", "sum")


class Decoder(nn.Module):
  """Refine the head's output with low-level features, stage by stage.

  A stage reduces one low-level feature (`feature_projection0`), brings it and
  the running features to its size, merges them and applies `conv0`, `conv1`,
  ... Later stages carry the suffix `_1`, `_2`.

  Attributes:
    style: Of every convolution here.
    kind: "concat" merges before the convolutions; "sum" adds the projected
      low-level feature after them (the reference's decoder_use_sum_merge).
    low_level_channels: Width a low-level feature is reduced to (table 1); a
      sum needs `channels` and ignores this.
    convs: Number of convolutions in a stage (table 2).
    channels: Width of these convolutions (table 2).
    kernel: Side of their kernels (table 2).
    separable: Whether these convolutions are separable.
    features: Strides of the low-level features, coarse to fine: (4,) is Conv2
      of table 2, (8, 4) Conv3 then Conv2.
    output_stride: Stride of the result. Each stage before the last one works
      at the stride of its own feature.
    align_corners: How features are resized; False: half-pixel.
    num_classes: If given, class scores are added and the result is the logits:
      each convolution is 1x1 to that many channels, with a bias and no norm
      (decoder_output_is_logits, as in LR-ASPP).
  """

  style: style_lib.Style
  kind: str = "concat"
  low_level_channels: int = 48
  convs: int = 2
  channels: int = 256
  kernel: int = 3
  separable: bool = True
  features: tuple[int, ...] = (4,)
  output_stride: int = 4
  align_corners: bool = True
  num_classes: int | None = None

  @nn.compact
  def __call__(
    self,
    high: Float[Array, "b h w c"],
    features: Mapping[str, jax.Array],
    image_size: tuple[int, int],
    *,
    train: bool,
  ) -> Float[Array, "b H W k"]:
    layers.check_one_of("decoder.kind", self.kind, KINDS)
    x = high
    for stage, stride in enumerate(self.features):
      suffix = f"_{stage}" if stage else ""
      last = stage == len(self.features) - 1
      size = scaled(image_size, self.output_stride if last else stride)
      width = self.channels if self.kind == "sum" else self.low_level_channels
      reduce = self._conv(width, f"feature_projection0{suffix}")
      low = reduce(low_level(features, stride), train=train)
      low = self._resize(low, size)
      x = self._resize(x.astype(self.style.dtype), size)
      if self.kind == "concat":
        x = jnp.concatenate([x, low], axis=-1)
      for place in range(self.convs):
        conv = self._conv(
          self.channels,
          f"conv{place}{suffix}",
          kernel=self.kernel,
          separable=self.separable,
        )
        x = conv(x, train=train)
      if self.kind == "sum":
        x = x + low
    return x

  def _resize(self, x: jax.Array, size: tuple[int, int]) -> jax.Array:
    return resize.resize_bilinear(x, size, align_corners=self.align_corners)

  def _conv(self, width: int, name: str, **settings: Any) -> nn.Module:
    if self.num_classes is None:
      return self.style.conv(width, name, **settings)
    # In float32, as all logits are.
    return layers.ConvNorm(
      self.num_classes,
      use_bias=True,
      kernel_init=self.style.conv_init,
      name=name,
    )


def scaled(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
  """Return the size of features at a stride, with the reference's rounding."""
  height, width = image_size
  return (
    resize.scale_dimension(height, 1 / stride),
    resize.scale_dimension(width, 1 / stride),
  )


def low_level(features: Mapping[str, jax.Array], stride: int) -> jax.Array:
  """Return the backbone's low-level feature at `stride`.

  Raises:
    ValueError: The backbone has none there.
  """
  if f"low{stride}" not in features:
    have = sorted(int(k[3:]) for k in features if k.startswith("low"))
    raise ValueError(
      f"decoder.features: no low-level feature at stride {stride}; this "
      f"backbone has them at {have}"
    )
  return features[f"low{stride}"]
