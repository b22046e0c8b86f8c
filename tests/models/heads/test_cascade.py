"""v3's cascade: its rates and its parameters."""

from typing import Any

import jax
import numpy as np
import pytest

from deeplax.models import cost
from tests.models.networks import SIZE
from tests.models.networks import Tiny
from tests.models.networks import network

CASCADE: dict[str, Any] = {
  "backbone": "resnet_v1_50_beta",
  "head": "cascade",
  "multi_grid": (1, 2, 1),
  "decoder__kind": "none",
}


def rates(model):
  """Rates of the head's 3x3 convolutions by module, in order."""
  return [
    (conv.path[1], conv.module.rate)
    for conv in cost.trace(model.clone(backbone=Tiny()), SIZE)[1]
    if conv.path[0] == "head" and conv.module.kernel == 3
  ]


def test_rates_of_the_cascade_are_those_of_v3_figure_3():
  # At 16, block4 has rate 2 and each block after it twice the one before.
  found = rates(network(**{**CASCADE, "multi_grid": (1, 2, 4)}))
  assert found == [
    (f"block{block}_unit{unit}", 2 ** (block - 3) * grid)
    for block in (5, 6, 7)
    for unit, grid in ((1, 1), (2, 2), (3, 4))
  ]
  half = rates(network(output_stride=32, **CASCADE))
  assert [rate for _, rate in half] == [2, 4, 2, 4, 8, 4, 8, 16, 8]


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_each_block_of_the_cascade_is_a_copy_of_block4(blocks, short):
  model = network(cascade_blocks=blocks, **CASCADE)
  params = jax.tree.map(np.shape, cost.trace(model, SIZE)[0]["params"])
  head = params.get("head", {})
  assert len(head) == 3 * blocks
  for block in range(5, 5 + blocks):
    for unit in (2, 3):
      name = f"block{block}_unit{unit}"
      assert head[name] == params["backbone"][f"block4_unit{unit}"]
    # Its input is as wide as its output already: no convolution beside it.
    assert head[f"block{block}_unit1"] == head[f"block{block}_unit2"]
  assert model.head.style.norm == model.backbone.norm
  assert model.head.style.conv_init == model.backbone.kernel_init
