"""LargeFOV against ASPP, without and with the CRF (v2, table 3).

COMMAND: python -m experiments.run v2_table3

VGG-16, VOC 2012 val. ASPP-S has small rates, ASPP-L large ones.
"""

from deeplax.ablation import papers

BASE = "v2_vgg16"
PAPER = papers.numbers("v2_table3", ("before_CRF", "after_CRF"))


def sweep():
  """Yield the settings of each row, before and after the CRF."""
  for name, head, rates in (
    ("LargeFOV", "large_fov", (12,)),
    ("ASPP-S", "aspp_sum", (2, 4, 8, 12)),
    ("ASPP-L", "aspp_sum", (6, 12, 18, 24)),
  ):
    for crf in (False, True):
      yield {
        "name": f"{name}-CRF" if crf else name,
        "model.head": head,
        "model.pool5a": head == "large_fov",
        "model.atrous_rates": rates,
        "crf": crf,
      }
