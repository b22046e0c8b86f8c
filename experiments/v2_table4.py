"""ResNet-101 step by step: MSC, COCO, Aug, LargeFOV or ASPP, CRF (v2, table 4).

COMMAND: python -m experiments.run v2_table4

VOC 2012 val. MSC: the network sees three scales. Aug: random scales in
training. Without LargeFOV and ASPP the classifier is one 3x3 of rate 1; the
paper does not say its kernel. The rows of COCO start from weights that
deeplax.convert has put into runs/v2_resnet101_coco_HEAD, HEAD being plain,
large_fov or aspp.
"""

from deeplax.ablation import papers

BASE = "v2_resnet101"
PAPER = papers.numbers("v2_table4")
RATES = {"plain": (1,), "large_fov": (12,), "aspp": (6, 12, 18, 24)}


def sweep():
  """Yield the settings of each row, in the columns' order."""
  for scales, coco, augmented, large_fov, aspp, crf, _ in PAPER.rows():
    head = "aspp" if aspp else "large_fov" if large_fov else "plain"
    yield {
      "model.input_scales": (0.75, 0.5) if scales else (),
      "init.checkpoint": f"runs/v2_resnet101_coco_{head}" if coco else None,
      "data.min_scale": 0.5 if augmented else 1.0,
      "data.max_scale": 1.5 if augmented else 1.0,
      "model.atrous_rates": RATES[head],
      "crf": crf,
    }
