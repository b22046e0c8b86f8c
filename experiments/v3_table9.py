"""Batch size (v3, table 9).

COMMAND: python -m experiments.run v3_table9

ResNet-101, VOC 2012 val, output stride 16, 30,000 steps each. Norms see the
whole batch, however many devices share it.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101"
PAPER = papers.numbers("v3_table9")


def sweep():
  """Yield the settings of each row."""
  for batch in (4, 8, 12, 16):
    yield {"train.batch_size": batch}
