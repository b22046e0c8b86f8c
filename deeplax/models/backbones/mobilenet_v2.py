"""MobileNetV2 (arXiv:1801.04381), which DeepLab uses up to its 320 channels.

tensorflow/models research/slim/nets/mobilenet/mobilenet_v2.py V2_DEF, with
TensorFlow's SAME padding throughout, unless told otherwise.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.models import layers
from deeplax.models import style
from deeplax.models.backbones import dilation
from deeplax.models.backbones import units


class Block(NamedTuple):
  """A row of table 2: expansion, output channels, stride."""

  expansion: int
  channels: int
  stride: int


BLOCKS = (
  Block(1, 16, 1),
  *(Block(6, 24, 2), Block(6, 24, 1)),
  *(Block(6, 32, 2), Block(6, 32, 1), Block(6, 32, 1)),
  *(Block(6, 64, 2), Block(6, 64, 1), Block(6, 64, 1), Block(6, 64, 1)),
  *(Block(6, 96, 1), Block(6, 96, 1), Block(6, 96, 1)),
  *(Block(6, 160, 2), Block(6, 160, 1), Block(6, 160, 1)),
  Block(6, 320, 1),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
# Blocks that give the low-level feature of a stride: the last that runs at it
# (feature_extractor.py networks_to_feature_maps, where they are layer_4 and
# layer_7).
LOW_LEVEL = {"expanded_conv_2": "low4", "expanded_conv_5": "low8"}
MIDDLE = "expanded_conv_12"  # the last unit before the last stride
# The feature is the output of the block's depthwise convolution or the block's.
LOW_LEVELS = ("filtered", "output")


def name(index: int) -> str:
  """Return the name of the block at `index`; slim leaves out the 0."""
  return f"expanded_conv_{index}" if index else "expanded_conv"


def dilated_units(
  output_stride: int, *, dilate_from: str = "next"
) -> list[dilation.Unit]:
  """Return the name, stride and rate of the stem and of each block."""
  blocks = [(name(i), block.stride) for i, block in enumerate(BLOCKS)]
  units = [("conv", 2), *blocks]
  return dilation.dilate(units, output_stride, dilate_from=dilate_from)


def divisible(value: int | float, divisor: int) -> int:
  """Return a multiple of `divisor`, never less than nine tenths of `value`."""
  rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * value else rounded


class InvertedResidual(nn.Module):
  """Expand by 1x1, filter by 3x3 depthwise, project by 1x1 (section 3.4).

  Returns its output and that of the depthwise convolution.
  """

  expansion: int
  channels: int
  stride: int
  rate: int
  norm: layers.Norm
  kernel_init: layers.Init
  dtype: DTypeLike
  padding: str = "same"

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> tuple[Float[Array, "b H W k"], Float[Array, "b H W e"]]:
    conv = partial(layers.ConvNorm, **style.of_backbone(self))
    y = x
    if self.expansion > 1:
      # slim expand_input_by_factor rounds to 8 whatever the multiplier.
      wide = divisible(x.shape[-1] * self.expansion, 8)
      expand = conv(wide, activation="relu6", name="expand")
      y = expand.normed(y, train=train)
    filtered = conv(
      kernel=3,
      stride=self.stride,
      rate=self.rate,
      padding=self.padding,
      depthwise=True,
      activation="relu6",
      name="depthwise",
    )(y, train=train)
    y = conv(self.channels, name="project")(filtered, train=train)
    if self.stride == 1 and self.channels == x.shape[-1]:
      y = y + x
    return y, filtered


class MobileNetV2(nn.Module):
  """MobileNetV2 without its classifier.

  Attributes:
    depth_multiplier: Factor of every width.
    output_stride: 4, 8, 16 or 32, from the same parameters.
    last_conv: Whether the 1x1 convolution to 1280 channels follows, which
      ImageNet networks have and DeepLab leaves out.
    padding: As in ConvNorm.
    dilate_from: As in `dilation.dilate`.
    low_level: The output of a block that is a low-level feature, "filtered"
      (its depthwise convolution's) or "output" (its own).
    norm: Settings of the norm behind every convolution.
    remat: Compute each unit once more in the backward pass, for less memory.
    kernel_init: How kernels are drawn.
    dtype: Compute dtype; parameters stay float32.
  """

  norm: layers.Norm
  depth_multiplier: float = 1.0
  output_stride: int = 16
  last_conv: bool = False
  padding: str = "same"
  dilate_from: str = "next"
  low_level: str = "filtered"
  remat: bool = False
  kernel_init: layers.Init = layers.Init("truncated_normal", 0.09)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Arrays, "b h w c"], *, train: bool
  ) -> dict[str, Array]:
    """Return `low4`, `low8`, `middle` and `high` of normalized images."""
    layers.check_one_of("low_level", self.low_level, LOW_LEVELS)
    settings = style.of_backbone(self)
    # feature_extractor.py _mobilenet_v2: widths are multiples of 8 unless a
    # multiplier is given. ImageNet networks always have multiples of 8.
    divisor = 8 if self.depth_multiplier == 1 or self.last_conv else 1
    stem, *rest = dilated_units(
      self.output_stride, dilate_from=self.dilate_from
    )
    y = layers.ConvNorm(
      divisible(STEM_CHANNELS * self.depth_multiplier, divisor),
      kernel=3,
      stride=stem.stride,
      padding=self.padding,
      activation="relu6",
      name=stem.name,
      **settings,
    )(jnp.asarray(x, self.dtype), train=train)
    features, run = {}, units.runner(remat=self.remat, train=train)
    for block, unit in zip(BLOCKS, rest, strict=True):
      residual = InvertedResidual(
        expansion=block.expansion,
        channels=divisible(block.channels * self.depth_multiplier, divisor),
        stride=unit.stride,
        rate=unit.rate,
        padding=self.padding,
        name=unit.name,
        **settings,
      )
      y, filtered = run(residual, y)
      if unit.name in LOW_LEVEL:
        low = y if self.low_level == "output" else filtered
        features[LOW_LEVEL[unit.name]] = low
      if unit.name == MIDDLE:
        features["middle"] = y
    if self.last_conv:
      # slim finegrain_classification_mode: never narrower than at 1.
      last = divisible(LAST_CHANNELS * max(self.depth_multiplier, 1), divisor)
      conv = layers.ConvNorm(
        last, activation="relu6", name="conv_1", **settings
      )
      y = conv(y, train=train)
    return features | {"high": y}
