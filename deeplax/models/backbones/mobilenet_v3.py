"""MobileNetV3 (arXiv:1905.02244) for segmentation, and MobileNet-EdgeTPU.

tensorflow/models research/slim/nets/mobilenet/mobilenet_v3.py V3_LARGE,
V3_SMALL and V3_EDGETPU, the first two with the last blocks that
research/deeplab core/feature_extractor.py makes half as wide. TensorFlow's
SAME padding throughout, unless told otherwise.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.models import layers
from deeplax.models import style
from deeplax.models.backbones import dilation
from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import units
from deeplax.ops import broadcast
from deeplax.ops import true_size


class Block(NamedTuple):
  """A row of the paper's tables 1 and 2.

  Attributes:
    kernel: Side of the spatial filter.
    expanded: Width inside; no expansion where it is the input's.
    channels: Width of the output.
    stride: Stride of the spatial filter.
    activation: Activation inside; the output has none.
    squeeze: Whether the block has squeeze-and-excite.
    fused: One full convolution expands and filters (EdgeTPU).
    residual: Whether input and output of one shape are added.
  """

  kernel: int
  expanded: int
  channels: int
  stride: int
  activation: str = "relu"
  squeeze: bool = False
  fused: bool = False
  residual: bool = True


class Variant(NamedTuple):
  """One network.

  Attributes:
    blocks: Rows of the table, in order.
    last: Width of the last, 1x1 convolution.
    low4: Index of the last block at stride 4.
    low8: Index of the last block at stride 8.
    stem: Width of the first convolution.
    activation: Activation of the first and of the last convolution.
    scales_last: Whether the depth multiplier applies to the last one.
    middle: Index of the block for a second head; None: the last one before the
      last stride.
  """

  blocks: tuple[Block, ...]
  last: int
  low4: int
  low8: int
  stem: int = 16
  activation: str = "hard_swish"
  scales_last: bool = True
  middle: int | None = None


_swish = partial(Block, activation="hard_swish")
_fused = partial(Block, 3, fused=True)

# Table 1 up to its last three blocks.
_LARGE = (
  Block(3, 16, 16, 1),
  *(Block(3, 64, 24, 2), Block(3, 72, 24, 1)),
  Block(5, 72, 40, 2, squeeze=True),
  *(2 * (Block(5, 120, 40, 1, squeeze=True),)),
  *(_swish(3, 240, 80, 2), _swish(3, 200, 80, 1)),
  *(2 * (_swish(3, 184, 80, 1),)),
  _swish(3, 480, 112, 1, squeeze=True),
  _swish(3, 672, 112, 1, squeeze=True),
)

VARIANTS = {
  # Table 1. torchvision's second head is on the first block of stride 8.
  "large": Variant(
    blocks=(
      *_LARGE,
      _swish(5, 672, 160, 2, squeeze=True),
      *(2 * (_swish(5, 960, 160, 1, squeeze=True),)),
    ),
    last=960,
    low4=2,
    low8=5,
    middle=3,
  ),
  # Table 1; its last three blocks and its last convolution are twice as wide.
  "large_seg": Variant(
    blocks=(
      *_LARGE,
      _swish(5, 336, 80, 2, squeeze=True),
      *(2 * (_swish(5, 480, 80, 1, squeeze=True),)),
    ),
    last=480,
    low4=2,
    low8=5,
  ),
  # Table 2, likewise.
  "small_seg": Variant(
    blocks=(
      Block(3, 16, 16, 2, squeeze=True),
      *(Block(3, 72, 24, 2), Block(3, 88, 24, 1)),
      _swish(5, 96, 40, 2, squeeze=True),
      *(2 * (_swish(5, 240, 40, 1, squeeze=True),)),
      *(_swish(5, n, 48, 1, squeeze=True) for n in (120, 144)),
      _swish(5, 144, 48, 2, squeeze=True),
      *(2 * (_swish(5, 288, 48, 1, squeeze=True),)),
    ),
    last=288,
    low4=0,
    low8=2,
  ),
  # The published 0.75 network keeps all 1280 channels at the end (slim
  # edge_tpu_075). The reference has no decoder on it: its low-level features
  # are chosen here as those of the others.
  "edgetpu": Variant(
    stem=32,
    activation="relu",
    blocks=(
      _fused(32, 16, 1),
      *(_fused(128, 32, 2), *(3 * (_fused(128, 32, 1),))),
      *(_fused(256, 48, 2), *(3 * (_fused(192, 48, 1),))),
      *(Block(3, 384, 96, 2), *(3 * (Block(3, 384, 96, 1),))),
      Block(3, 768, 96, 1, residual=False),
      *(3 * (Block(3, 384, 96, 1),)),
      *(Block(5, 768, 160, 2), *(3 * (Block(5, 640, 160, 1),))),
      Block(3, 1280, 192, 1),
    ),
    last=1280,
    scales_last=False,
    low4=4,
    low8=8,
  ),
}


def dilated_units(
  variant: str, output_stride: int, *, dilate_from: str = "next"
) -> list[dilation.Unit]:
  """Return the name, stride and rate of the stem and of each block."""
  blocks = VARIANTS[variant].blocks
  units = [
    (mobilenet_v2.name(i), block.stride) for i, block in enumerate(blocks)
  ]
  units = [("conv", 2), *units]
  return dilation.dilate(units, output_stride, dilate_from=dilate_from)


class SqueezeExcite(nn.Module):
  """Weigh channels by their global means (section 5.3; slim squeeze_excite)."""

  kernel_init: layers.Init
  dtype: DTypeLike
  gate: str = "hard_sigmoid"

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w c"]:
    conv = partial(
      layers.ConvNorm,
      use_bias=True,
      kernel_init=self.kernel_init,
      dtype=self.dtype,
    )
    channels = x.shape[-1]
    mean = true_size.mean(x)
    width = mobilenet_v2.divisible(channels / 4, 8)
    y = conv(width, activation="relu", name="squeeze")(mean, train=train)
    gate = conv(channels, activation=self.gate, name="excite")
    return broadcast.widely(jnp.multiply, x, gate(y, train=train))


class InvertedResidual(nn.Module):
  """Expand, filter, weigh the channels, project (figure 4).

  Returns its output and that of the spatial filter.
  """

  block: Block
  expanded: int
  channels: int
  stride: int
  rate: int
  norm: layers.Norm
  kernel_init: layers.Init
  dtype: DTypeLike
  padding: str = "same"
  gate: str = "hard_sigmoid"

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> tuple[Float[Array, "b H W k"], Float[Array, "b H W e"]]:
    settings: dict[str, Any] = dict(
      kernel_init=self.kernel_init, dtype=self.dtype
    )
    conv = partial(layers.ConvNorm, norm=self.norm, **settings)
    inner = partial(conv, activation=self.block.activation)
    spatial: dict[str, Any] = dict(
      kernel=self.block.kernel,
      stride=self.stride,
      rate=self.rate,
      padding=self.padding,
    )
    y = x
    if self.expanded > x.shape[-1]:
      size = spatial if self.block.fused else {}
      y = inner(self.expanded, name="expand", **size)(y, train=train)
    if not self.block.fused:
      depthwise = inner(depthwise=True, name="depthwise", **spatial)
      y = depthwise(y, train=train)
    filtered = y
    if self.block.squeeze:
      weigh = SqueezeExcite(gate=self.gate, name="squeeze_excite", **settings)
      y = weigh(y, train=train)
    y = conv(self.channels, name="project")(y, train=train)
    if self.block.residual and self.stride == 1 and y.shape == x.shape:
      y = y + x
    return y, filtered


class MobileNetV3(nn.Module):
  """MobileNetV3 or MobileNet-EdgeTPU up to the last convolution before pooling.

  Attributes:
    norm: Settings of all norms; squeeze-and-excite has none.
    variant: Key of VARIANTS.
    depth_multiplier: Factor of every width, in multiples of 8.
    output_stride: 8, 16 or 32, from the same parameters.
    padding: As in ConvNorm.
    dilate_from: As in `dilation.dilate`.
    gate: Activation that ends squeeze-and-excite.
    remat: Compute each unit once more in the backward pass, for less memory.
    kernel_init: How kernels are drawn.
    dtype: Compute dtype; parameters stay float32.
  """

  norm: layers.Norm
  variant: str = "large_seg"
  depth_multiplier: float = 1.0
  output_stride: int = 16
  padding: str = "same"
  dilate_from: str = "next"
  gate: str = "hard_sigmoid"
  remat: bool = False
  kernel_init: layers.Init = layers.Init("truncated_normal", 0.09)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Arrays, "b h w c"], *, train: bool
  ) -> dict[str, Array]:
    """Return `low4`, `low8`, `middle` and `high` of normalized images."""
    layers.check_one_of("variant", self.variant, sorted(VARIANTS))
    variant = VARIANTS[self.variant]
    settings = style.of_backbone(self)
    conv = partial(layers.ConvNorm, activation=variant.activation, **settings)
    stem, *rest = dilated_units(
      self.variant, self.output_stride, dilate_from=self.dilate_from
    )
    y = conv(
      self._width(variant.stem),
      kernel=3,
      stride=stem.stride,
      padding=self.padding,
      name=stem.name,
    )(jnp.asarray(x, self.dtype), train=train)
    features, before = {}, variant.stem
    run = units.runner(remat=self.remat, train=train)
    strided = [i for i, block in enumerate(variant.blocks) if block.stride > 1]
    middle = strided[-1] - 1 if variant.middle is None else variant.middle
    for index, (block, unit) in enumerate(
      zip(variant.blocks, rest, strict=True)
    ):
      # slim expand_input_by_factor: a multiple of the actual input's width.
      factor = block.expanded / before
      residual = InvertedResidual(
        block=block,
        expanded=mobilenet_v2.divisible(y.shape[-1] * factor, 8),
        channels=self._width(block.channels),
        stride=unit.stride,
        rate=unit.rate,
        padding=self.padding,
        gate=self.gate,
        name=unit.name,
        **settings,
      )
      y, filtered = run(residual, y)
      before = block.channels
      if index == variant.low4:
        features["low4"] = filtered
      if index == variant.low8:
        features["low8"] = filtered
      if index == middle:
        features["middle"] = y
    last = self._width(variant.last) if variant.scales_last else variant.last
    return features | {"high": conv(last, name="conv_1")(y, train=train)}

  def _width(self, channels: int) -> int:
    return mobilenet_v2.divisible(channels * self.depth_multiplier, 8)
