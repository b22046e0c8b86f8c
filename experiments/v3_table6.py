"""How v3's best network is evaluated (v3, table 6).

COMMAND: python -m experiments.run v3_table6

One training at output stride 16 gives all rows but the last, which starts from
configs/v3_resnet101.py:coco, to be run before it.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101"
PAPER = papers.numbers("v3_table6")


def sweep():
  """Yield the settings of each row, in the columns' order."""
  for stride, several_scales, flip, coco, _ in PAPER.rows():
    words = "-scales" * several_scales + "-flip" * flip + "-coco" * coco
    yield {
      "name": f"{stride}{words}",
      "base": f"{BASE}:after_coco" if coco else BASE,
      "eval.output_stride": stride,
      "eval.scales": papers.SCALES if several_scales else (1.0,),
      "eval.flip": flip,
    }
