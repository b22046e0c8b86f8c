"""How the best network of cascaded blocks is evaluated (v3, table 4).

COMMAND: python -m experiments.run v3_table4

ResNet-101 with block7 and multi-grid (1, 2, 1), trained at output stride 16:
one training for all rows.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101:cascade"
PAPER = papers.numbers("v3_table4")


def sweep():
  """Yield the settings of each row, in the columns' order."""
  for stride, several_scales, flip, _ in PAPER.rows():
    yield {
      "name": f"{stride}{'-scales' * several_scales}{'-flip' * flip}",
      "eval.output_stride": stride,
      "eval.scales": papers.SCALES if several_scales else (1.0,),
      "eval.flip": flip,
    }
