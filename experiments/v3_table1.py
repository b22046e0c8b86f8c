"""Output stride of ResNet-50 with cascaded blocks (v3, table 1).

COMMAND: python -m experiments.run v3_table1

VOC 2012 val, block5 to block7 behind block4, no multi-grid. Each network is
evaluated at the stride that it is trained at. The rows for 64, 128 and 256 need
backbones that stride on, which deeplax does not have.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101:cascade"
PAPER = papers.numbers("v3_table1")


def sweep():
  """Yield the settings of each row."""
  for stride in (8, 16, 32, 64, 128, 256):
    coarse = stride > 32
    yield {
      "name": f"output_stride={stride}",
      "not_here": "output strides go up to 32" if coarse else "",
      "model.backbone": "resnet_v1_50_beta",
      "model.multi_grid": (1, 1, 1),
      "model.output_stride": 32 if coarse else stride,
    }
