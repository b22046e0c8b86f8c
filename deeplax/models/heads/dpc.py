"""The dense prediction cell (DPC, arXiv:1809.04184): a head found by search.

Layers: tensorflow/models research/deeplab core/dense_prediction_cell.py. Of
its operations only the separable atrous convolution is offered, the one that
the published cell uses; 1x1 convolutions and pyramid pooling are not.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.models import style as style_lib

# Each branch: its input (-1: the features; else an earlier branch, counted from
# 0), and its rates of rows and columns.
Cell = tuple[tuple[int, tuple[int, int]], ...]

# The output stride that the rates of a cell are given for.
CELL_STRIDE = 16


def check(cell: Cell) -> None:
  """Raise ValueError unless each branch reads the features or one before it."""
  if not cell:
    raise ValueError("model.cell () has no branch")
  for place, (source, rates) in enumerate(cell):
    if not -1 <= source < place:
      raise ValueError(
        f"model.cell: branch {place} reads {source}; it can read -1, the "
        "features, and the branches before it, counted from 0"
      )
    if min(rates) < 1:
      raise ValueError(
        f"model.cell: rates {rates} of branch {place} are not 1 or more"
      )


def at_stride(cell: Cell, output_stride: int) -> Cell:
  """Return the cell with its rates at `output_stride`.

  Raises:
    ValueError: A rate is no integer at that stride.
  """

  def scaled(rate: int) -> int:
    result, rest = divmod(rate * CELL_STRIDE, output_stride)
    if rest:
      raise ValueError(
        f"model.cell: rate {rate}, at output stride {CELL_STRIDE}, is not "
        f"whole at {output_stride}; use output stride 4, 8 or 16"
      )
    return result

  return tuple((i, (scaled(h), scaled(w))) for i, (h, w) in cell)


def furthest(cell: Cell) -> int:
  """Return the largest sum of rates on any way through the cell, either axis.

  With 3x3 kernels the head sees that many features to each side.
  """
  reach = []
  for source, rates in cell:
    before = reach[source] if source >= 0 else (0, 0)
    reach.append((before[0] + rates[0], before[1] + rates[1]))
  return max(max(pair) for pair in reach)


class DPC(nn.Module):
  """Separable atrous convolutions that read each other, joined and projected.

  Attributes:
    style: Settings of every convolution here.
    cell: The branches, with the rates at this network's output stride.
    channels: Width of every branch and of the result.
    separable: Whether the branches are separable (the published ones are).
    dropout: Rate on the joined branches, in training: before the projection,
      unlike ASPP's.
  """

  style: style_lib.Style
  cell: Cell
  channels: int = 256
  separable: bool = True
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    branches = []
    conv = partial(self.style.conv, self.channels)
    atrous = partial(conv, kernel=3, separable=self.separable)
    for place, (source, rates) in enumerate(self.cell):
      x = high if source < 0 else branches[source]
      branches.append(atrous(f"branch{place}", rate=rates)(x, train=train))
    x = jnp.concatenate(branches, axis=-1)
    x = self.style.dropout(self.dropout)(x, train=train)
    return conv("projection")(x, train=train)
