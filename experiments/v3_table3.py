"""Multi-grid with cascaded blocks (v3, table 3).

COMMAND: python -m experiments.run v3_table3

ResNet-101, VOC 2012 val, output stride 16; 0 blocks is block4's column.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101:cascade"
PAPER = papers.numbers("v3_table3", ("block4", "block5", "block6", "block7"))
MULTI_GRIDS = ((1, 1, 1), (1, 2, 1), (1, 2, 3), (1, 2, 4), (2, 2, 2))


def sweep():
  """Yield the settings of each row, multi-grid by multi-grid."""
  for multi_grid in MULTI_GRIDS:
    for blocks in range(4):
      yield {
        "model.multi_grid": multi_grid,
        "model.cascade_blocks": blocks,
      }
