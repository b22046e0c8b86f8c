"""Blocks in cascade after ResNet's last one (v3, arXiv:1706.05587, 3.2)."""

import flax.linen as nn
from jaxtyping import Array, Float

from deeplax.models import style as style_lib
from deeplax.models.backbones import resnet

MOST_BLOCKS = 3  # up to block7
# Stride of block4 in a ResNet that is not dilated.
NATIVE_STRIDE = 32


class Cascade(nn.Module):
  """Copies of block4, `block5` to `block7`, each at twice the rate before it.

  In the paper every block but the last ends with a stride; at a fixed output
  stride it is dropped and doubles the rates after it (figure 3). So one set of
  parameters serves every output stride. Nothing but the logits follows.

  Attributes:
    style: Settings of every convolution, equal to block4's.
    blocks: Number of blocks; 0 puts the logits on block4 (table 2).
    output_stride: Stride of the features; at 16 block4 has rate 2, block5 4.
    multi_grid: Factors of the rates of each block's three units.
    dropout: Rate before the logits, in training.
  """

  style: style_lib.Style
  blocks: int = MOST_BLOCKS
  output_stride: int = 16
  multi_grid: tuple[int, ...] = (1, 1, 1)
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w c"]:
    x = high
    rate = NATIVE_STRIDE // self.output_stride
    for block in range(5, 5 + self.blocks):
      rate *= 2
      for unit, grid in enumerate(self.multi_grid, start=1):
        x, _ = resnet.Bottleneck(
          width=x.shape[-1] // 4,
          stride=1,
          rate=rate * grid,
          norm=self.style.norm,
          kernel_init=self.style.conv_init,
          dtype=self.style.dtype,
          name=f"block{block}_unit{unit}",
        )(x, train=train)
    return self.style.dropout(self.dropout)(x, train=train)
