"""VGG-16 (arXiv:1409.1556) with holes (DeepLab v1, arXiv:1412.7062, 3.1).

Its fully connected layers are the head's (`large_fov.py`).
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.models import layers
from deeplax.models.backbones import dilation
from deeplax.ops import pooling

# Width and number of the 3x3 convolutions before each pooling.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
NATIVE_STRIDE = 2 ** len(BLOCKS)
# v1's strides. At 4 a second pooling would compute another function than the
# strided one.
OUTPUT_STRIDES = (8, 16, 32)
# Side of the pooling windows: the network's own, and that of the released
# DeepLab models, which puts the centers of all layers' features on one grid.
POOLS = (2, 3)
# The last feature of a stride: what the pooling that leaves it reads.
LOW_LEVEL = {"conv2_2": "low2", "conv3_3": "low4", "conv4_3": "low8"}


class Step(NamedTuple):
  """One layer: a 3x3 convolution or a pooling, with the window it reads."""

  name: str
  kernel: int
  stride: int
  rate: int


def dilated_layers(output_stride: int, *, pool: int = 2) -> list[Step]:
  """Return every layer, in order.

  A pooling past the output stride keeps its window and loses its stride; the
  convolutions after it read at twice the rate. So all features up to the last
  convolution contain those of the strided network. At output stride 8 the last
  pooling computes another function: its window holds neighbors on the finer
  map, that of the strided network neighbors on the coarse one.

  Raises:
    ValueError: On an output stride that VGG-16 does not have here.
  """
  layers.check_one_of("output_stride of vgg16", output_stride, OUTPUT_STRIDES)
  units = []
  for block, (_, count) in enumerate(BLOCKS, 1):
    units += [(f"conv{block}_{i}", 1) for i in range(1, count + 1)]
    units.append((f"pool{block}", 2))
  return [
    Step(unit.name, pool, unit.stride, 1)
    if unit.name.startswith("pool")
    else Step(unit.name, 3, 1, unit.rate)
    for unit in dilation.dilate(units, output_stride)
  ]


class VGG16(nn.Module):
  """The 13 convolutions and five poolings; there are no norms.

  Attributes:
    norm: Unused, since VGG-16 has no norms; every backbone has this field.
    output_stride: 8, 16 or 32, from the same parameters.
    pool: Side of the pooling windows, 2 or 3.
    kernel_init: How kernels are drawn.
    dtype: Compute dtype; parameters stay float32.
  """

  norm: layers.Norm
  output_stride: int = 8
  pool: int = 3
  kernel_init: layers.Init = layers.Init("kaiming_normal", 2.0)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Arrays, "b h w c"], *, train: bool
  ) -> dict[str, Array]:
    """Return `high`, `middle`, `low2` to `low8`, and `pool1` to `pool4`."""
    layers.check_one_of("pool", self.pool, POOLS)
    y, features = jnp.asarray(x, self.dtype), {}
    for step in dilated_layers(self.output_stride, pool=self.pool):
      block = int(step.name[4])
      if step.name.startswith("pool"):
        y = pooling.max_pool(y, step.kernel, stride=step.stride, padding="ceil")
        features[step.name] = y
        continue
      y = layers.ConvNorm(
        BLOCKS[block - 1][0],
        kernel=step.kernel,
        rate=step.rate,
        use_bias=True,
        activation="relu",
        kernel_init=self.kernel_init,
        dtype=self.dtype,
        name=step.name,
      )(y, train=train)
      if step.name in LOW_LEVEL:
        features[LOW_LEVEL[step.name]] = y
    high = features.pop("pool5")
    return features | {"middle": features["pool4"], "high": high}
