"""More cascaded blocks, ResNet-50 and ResNet-101 (v3, table 2).

COMMAND: python -m experiments.run v3_table2

VOC 2012 val, output stride 16, no multi-grid; 0 blocks is block4's row.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101:cascade"
PAPER = papers.numbers("v3_table2", ("block4", "block5", "block6", "block7"))


def sweep():
  """Yield the settings of each row, network by network."""
  for backbone in ("resnet_v1_50_beta", "resnet_v1_101_beta"):
    for blocks in range(4):
      yield {
        "model.backbone": backbone,
        "model.cascade_blocks": blocks,
        "model.multi_grid": (1, 1, 1),
      }
