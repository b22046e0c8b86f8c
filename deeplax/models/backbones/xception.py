"""Aligned Xception (v3+, arXiv:1802.02611, section 3.2 and figure 4).

tensorflow/models research/deeplab/core/xception.py: 41, 65 and 71 layers. Each
of the three changes that the paper makes to the original network can be undone
by a field; the released code does not have the first as the paper has it.
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
from deeplax.ops import backend
from deeplax.ops import norm as norm_ops
from deeplax.ops import pooling


class Block(NamedTuple):
  """A block: name, widths of its three separable convolutions, skip, stride.

  `skip` is "conv" (1x1 with norm), "sum" or "none"; `inner` puts a ReLU after
  each of the two convolutions of a pair instead of one before the pair.
  """

  name: str
  widths: tuple[int, int, int]
  skip: str
  stride: int
  inner: bool = False


def _blocks(entry: tuple[tuple[int, int], ...]) -> tuple[Block, ...]:
  """Return all blocks, given width and stride of those in the entry flow."""
  flow = [
    Block(f"entry_flow_block{i}", (width, width, width), "conv", stride)
    for i, (width, stride) in enumerate(entry, 1)
  ]
  return (
    *flow,
    Block("middle_flow", (728, 728, 728), "sum", 1),
    Block("exit_flow_block1", (728, 1024, 1024), "conv", 2),
    Block("exit_flow_block2", (1536, 1536, 2048), "none", 1, inner=True),
  )


class Variant(NamedTuple):
  """One depth: its blocks, how often the middle flow repeats, and low levels.

  `low_level` maps a block to the stride of its last feature before the stride:
  the output of its second convolution's norm (networks_to_feature_maps).
  """

  blocks: tuple[Block, ...]
  middle: int
  low_level: tuple[tuple[str, str], ...]


_SHALLOW = _blocks(((128, 2), (256, 2), (728, 2)))
_DEEP = _blocks(((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)))
_LOW = (("entry_flow_block2", "low4"), ("entry_flow_block3", "low8"))
_LOW_DEEP = (("entry_flow_block3", "low4"), ("entry_flow_block5", "low8"))
DEPTHS = {
  41: Variant(_SHALLOW, 8, _LOW),
  65: Variant(_SHALLOW, 16, _LOW),
  71: Variant(_DEEP, 16, _LOW_DEEP),
}
# The low-level feature before the next convolution's ReLU, or after it (timm).
LOW_LEVELS = ("norm", "relu")
# What follows each depthwise convolution. The paper: "norm_relu"; the released
# code, but for the last block: "norm"; the network before the paper: "none".
AFTER_DEPTHWISE = ("none", "norm", "norm_relu")
# The layer that has a block's stride: the third separable convolution, or in
# its place a 3x3 max-pooling, as before the paper.
DOWNSAMPLE = ("separable", "max_pool")


def dilated_units(depth: int, output_stride: int) -> list[dilation.Unit]:
  """Return the name, stride and rate of the stem and of each block.

  Multi-grid multiplies the rate of the last block's three convolutions.

  Raises:
    ValueError: On an unknown depth or output stride.
  """
  layers.check_one_of("depth", depth, DEPTHS)
  units = [(block.name, block.stride) for block in DEPTHS[depth].blocks]
  return dilation.dilate([("stem", 2), *units], output_stride)


class XceptionModule(nn.Module):
  """Three separable convolutions and a skip; the stride is in the third.

  Returns its output and that of the second convolution.
  """

  block: Block
  stride: int
  rates: tuple[int, int, int]
  norm: layers.Norm
  kernel_init: layers.Init
  dtype: DTypeLike
  after_depthwise: str = "norm"
  downsample: str = "separable"

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> tuple[
    Float[Array, "b H W k"], Float[Array, "b h w d"] | norm_ops.Normed
  ]:
    norm_between = self.after_depthwise != "none"
    between = self.after_depthwise == "norm_relu" or self.block.inner
    pair = partial(
      layers.SeparableConv,
      padding="symmetric",
      norm=self.norm,
      norm_between=norm_between,
      pre_activation=None if self.block.inner else "relu",
      activation_between="relu" if norm_between and between else None,
      activation="relu" if self.block.inner else None,
      depthwise_init=self.kernel_init,
      pointwise_init=self.kernel_init,
      dtype=self.dtype,
    )
    first, second, third = self.block.widths
    a, b, c = self.rates
    y = pair(first, rate=a, name="separable_conv1").normed(x, train=train)
    y = pair(second, rate=b, name="separable_conv2").normed(y, train=train)
    low = y
    if self.downsample == "max_pool" and self.block.stride > 1:
      y = pooling.max_pool(
        norm_ops.now(y), 3, stride=self.stride, rate=c, padding="symmetric"
      )
    else:
      y = pair(third, rate=c, stride=self.stride, name="separable_conv3")(
        y, train=train
      )
    if self.block.skip == "sum":
      y = y + x
    elif self.block.skip == "conv":
      # The shortcut reads the input before its ReLU.
      y = y + layers.ConvNorm(
        third,
        stride=self.stride,
        padding="symmetric",
        norm=self.norm,
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name="shortcut",
      )(x, train=train)
    return y, low


class Xception(nn.Module):
  """Aligned Xception without its classifier.

  The middle flow is a scan over equal units, its parameters stacked, which on
  accelerators is unrolled.

  Attributes:
    norm: Settings of the norm behind every convolution.
    depth: 41, 65 or 71.
    output_stride: 4, 8, 16 or 32, from the same parameters.
    multi_grid: Factors of the rates of the last block's three convolutions.
    after_depthwise: What follows each depthwise convolution, "none", "norm" or
      "norm_relu".
    middle_units: Units in the middle flow; None: 8 at depth 41, else 16.
    downsample: The layer with a block's stride, "separable" or "max_pool".
    remat: Compute each unit once more in the backward pass, for less memory.
    low_level: The value that is a low-level feature, "norm" or "relu".
    kernel_init: How kernels are drawn.
    dtype: Compute dtype; parameters stay float32.
  """

  norm: layers.Norm
  depth: int = 65
  output_stride: int = 16
  multi_grid: tuple[int, ...] = (1, 1, 1)
  after_depthwise: str = "norm"
  middle_units: int | None = None
  downsample: str = "separable"
  remat: bool = False
  low_level: str = "norm"
  kernel_init: layers.Init = layers.Init("truncated_normal", 0.09)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Arrays, "b h w c"], *, train: bool
  ) -> dict[str, Array]:
    """Return `low4`, `low8`, `middle` and `high` of normalized images."""
    dilation.check_multi_grid(self.multi_grid)
    layers.check_one_of("low_level", self.low_level, LOW_LEVELS)
    layers.check_one_of(
      "after_depthwise", self.after_depthwise, AFTER_DEPTHWISE
    )
    layers.check_one_of("downsample", self.downsample, DOWNSAMPLE)
    settings = style.of_backbone(self)
    conv = partial(
      layers.ConvNorm,
      kernel=3,
      padding="symmetric",
      activation="relu",
      **settings,
    )
    stem, *dilated = dilated_units(self.depth, self.output_stride)
    y = conv(32, stride=stem.stride, name="entry_flow_conv1_1")(
      jnp.asarray(x, self.dtype), train=train
    )
    y = conv(64, name="entry_flow_conv1_2")(y, train=train)
    variant = DEPTHS[self.depth]
    low_level = dict(variant.low_level)
    features, run = {}, units.runner(remat=self.remat, train=train)
    for block, unit in zip(variant.blocks, dilated, strict=True):
      grid = self.multi_grid if block.skip == "none" else (1, 1, 1)
      module = XceptionModule(
        block=block,
        stride=unit.stride,
        rates=tuple(unit.rate * factor for factor in grid),  # pyright: ignore
        after_depthwise=self.after_depthwise,
        downsample=self.downsample,
        name=unit.name,
        **settings,
      )
      if unit.name == "middle_flow":
        times = self.middle_units or variant.middle
        y = features["middle"] = self._repeat(module, y, times, train=train)
        continue
      y, low = run(module, y)
      if unit.name in low_level:
        low = norm_ops.now(low)
        low = nn.relu(low) if self.low_level == "relu" else low
        features[low_level[unit.name]] = low
    return features | {"high": y}

  def _repeat(
    self, module: XceptionModule, x: Array, times: int, *, train: bool
  ) -> Array:
    def unit(module, x):
      return module(x, train=train)[0], None

    unrolled = backend.form("repeated_units") == "unrolled"
    scanned = nn.scan(
      # A loop keeps the units apart; unrolled, equal work would be shared.
      nn.remat(unit, prevent_cse=unrolled) if self.remat else unit,
      variable_axes={"params": 0, "batch_stats": 0},
      split_rngs={"params": True},
      length=times,
      unroll=times if unrolled else 1,
      # Nothing is broadcast; the check would trace the unit once more.
      check_constancy_invariants=False,
    )
    return scanned(module, x)[0]
