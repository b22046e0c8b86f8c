"""Atrous spatial pyramid pooling: multi-grid, rates, image pooling (v3, T5).

COMMAND: python -m experiments.run v3_table5

ResNet-101, VOC 2012 val, output stride 16.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101"
PAPER = papers.numbers("v3_table5")


def sweep():
  """Yield the settings of each row."""
  for multi_grid, rates, pooling in (
    ((1, 1, 1), (6, 12, 18), False),
    ((1, 2, 1), (6, 12, 18), False),
    ((1, 2, 4), (6, 12, 18), False),
    ((1, 2, 4), (6, 12, 18, 24), False),
    ((1, 2, 4), (6, 12, 18), True),
  ):
    yield {
      "model.multi_grid": multi_grid,
      "model.atrous_rates": rates,
      "model.image_pooling": pooling,
    }
