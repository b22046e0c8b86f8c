"""ResNet v1 (arXiv:1512.03385) in the reference's two forms and PyTorch's.

tensorflow/models research/deeplab/core/resnet_v1_beta.py and slim resnet_v1:
the stride sits in the last unit of a block, and the beta form replaces the 7x7
stem by three 3x3 convolutions. torchvision models/resnet.py: the stride sits in
the first unit ("v1.5": in its 3x3 convolution). The Caffe networks have it in
that unit's first 1x1 convolution.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.models import layers
from deeplax.models import style
from deeplax.models.backbones import dilation
from deeplax.models.backbones import units
from deeplax.ops import pooling

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STEMS = ("plain", "beta")
WIDTHS = (64, 128, 256, 512)  # of the 3x3 convolutions; outputs are 4 times
# The stride of each block's last unit, or of its first, by `strided`.
STRIDES = {"last": (2, 2, 2, 1), "first": (1, 2, 2, 2)}
# The unit before the strided one gives a stride's low-level feature. 50 and 101
# agree in blocks 1 and 2.
LOW_LEVEL = {
  "last": {"block1_unit2": "low4", "block2_unit3": "low8"},
  "first": {"block1_unit3": "low4", "block2_unit4": "low8"},
}
# The low-level feature: that unit's value before the sum (feature_extractor.py
# networks_to_feature_maps), or after the sum and its ReLU.
LOW_LEVELS = ("residual", "output")
# The convolution that has a unit's stride: the 3x3 or the first 1x1.
STRIDE_IN = ("conv2", "conv1")


def dilated_units(
  depth: int,
  output_stride: int,
  *,
  multi_grid: tuple[int, ...] = (1, 1, 1),
  strided: str = "last",
  dilate_from: str = "next",
) -> list[dilation.Unit]:
  """Return the name, stride and rate of the stem, the pooling and each unit.

  Raises:
    ValueError: On an unknown depth or output stride, or a multi-grid that is
      not of three rates.
  """
  layers.check_one_of("depth", depth, DEPTHS)
  layers.check_one_of("strided", strided, STRIDES)
  dilation.check_multi_grid(multi_grid)
  units = [("stem", 2), ("pool1", 2)]
  for block, count in enumerate(DEPTHS[depth]):
    place = count - 1 if strided == "last" else 0
    for i in range(count):
      stride = STRIDES[strided][block] if i == place else 1
      units.append((f"block{block + 1}_unit{i + 1}", stride))
  steps = dilation.dilate(units, output_stride, dilate_from=dilate_from)
  last = [
    unit._replace(rate=unit.rate * grid)
    for unit, grid in zip(steps[-3:], multi_grid, strict=True)
  ]
  return steps[:-3] + last


class Bottleneck(nn.Module):
  """1x1, 3x3, 1x1 and a shortcut (section 4.1).

  Returns the output and the residual branch before the sum.
  """

  width: int
  stride: int
  rate: int
  norm: layers.Norm
  kernel_init: layers.Init
  dtype: DTypeLike
  stride_in: str = "conv2"

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], *, train: bool
  ) -> tuple[Float[Array, "b H W k"], Float[Array, "b H W k"]]:
    conv = partial(
      layers.ConvNorm, padding="symmetric", **style.of_backbone(self)
    )
    channels = 4 * self.width
    if x.shape[-1] == channels:
      shortcut = x[:, :: self.stride, :: self.stride]
    else:
      shortcut = conv(channels, stride=self.stride, name="shortcut")(
        x, train=train
      )
    early = self.stride_in == "conv1"
    y = conv(
      self.width,
      stride=self.stride if early else 1,
      activation="relu",
      name="conv1",
    )(x, train=train)
    y = conv(
      self.width,
      kernel=3,
      stride=1 if early else self.stride,
      rate=self.rate,
      activation="relu",
      name="conv2",
    )(y, train=train)
    residual = conv(channels, name="conv3")(y, train=train)
    return nn.relu(shortcut + residual), residual


class ResNet(nn.Module):
  """ResNet without its classifier.

  Attributes:
    norm: Of every convolution.
    depth: 50 or 101.
    stem: "plain" (7x7) or "beta" (three 3x3).
    output_stride: 4, 8, 16 or 32, from the same parameters.
    multi_grid: Factors of the rates of block4's units (v3, section 3.2.1).
    strided: The unit of a block that has its stride, "last" or "first".
    stride_in: The convolution of that unit with the stride, "conv2" (3x3) or
      "conv1" (the first 1x1).
    dilate_from: As `dilation.dilate`.
    pool_padding: Of the max-pooling, "same" (TensorFlow's), "symmetric"
      (PyTorch's) or "ceil" (Caffe's).
    low_level: The value of a unit that is a low-level feature, "residual" or
      "output".
    remat: Compute each unit once more in the backward pass, for less memory.
    kernel_init: How kernels are drawn.
    dtype: Compute dtype; parameters stay float32.
  """

  norm: layers.Norm
  depth: int = 101
  stem: str = "beta"
  output_stride: int = 16
  multi_grid: tuple[int, ...] = (1, 1, 1)
  strided: str = "last"
  stride_in: str = "conv2"
  dilate_from: str = "next"
  pool_padding: str = "same"
  low_level: str = "residual"
  remat: bool = False
  kernel_init: layers.Init = layers.Init("variance_scaling", 2.0)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Arrays, "b h w c"], *, train: bool
  ) -> dict[str, Array]:
    """Return `low4`, `low8`, `middle` and `high` of normalized images."""
    layers.check_one_of("stem", self.stem, STEMS)
    layers.check_one_of("stride_in", self.stride_in, STRIDE_IN)
    layers.check_one_of("low_level", self.low_level, LOW_LEVELS)
    settings = style.of_backbone(self)
    conv = partial(
      layers.ConvNorm, padding="symmetric", activation="relu", **settings
    )
    _, _, *dilated = dilated_units(
      self.depth,
      self.output_stride,
      multi_grid=self.multi_grid,
      strided=self.strided,
      dilate_from=self.dilate_from,
    )
    y = jnp.asarray(x, self.dtype)
    if self.stem == "plain":
      y = conv(64, kernel=7, stride=2, name="conv1")(y, train=train)
    else:
      y = conv(64, kernel=3, stride=2, name="conv1_1")(y, train=train)
      y = conv(64, kernel=3, name="conv1_2")(y, train=train)
      y = conv(128, kernel=3, name="conv1_3")(y, train=train)
    # The reference's one strided layer with TensorFlow's SAME padding.
    y = pooling.max_pool(y, 3, stride=2, padding=self.pool_padding)
    low_level, features = LOW_LEVEL[self.strided], {}
    run = units.runner(remat=self.remat, train=train)
    for unit in dilated:
      block = int(unit.name[len("block")]) - 1
      bottleneck = Bottleneck(
        width=WIDTHS[block],
        stride=unit.stride,
        rate=unit.rate,
        stride_in=self.stride_in,
        name=unit.name,
        **settings,
      )
      y, residual = run(bottleneck, y)
      if unit.name in low_level:
        low = y if self.low_level == "output" else residual
        features[low_level[unit.name]] = low
      if unit.name.startswith("block3"):
        features["middle"] = y
    return features | {"high": y}
