"""Crop size, upsampled logits and trained norms (v3, table 8).

COMMAND: python -m experiments.run v3_table8

ResNet-101, VOC 2012 val, output stride 16. Not upsampled: the loss is on labels
at the logits' size.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101"
PAPER = papers.numbers("v3_table8")


def sweep():
  """Yield the settings of each row, in the columns' order."""
  for crop, upsample_logits, trained_norms, _ in PAPER.rows():
    yield {
      "data.crop_size": (crop, crop),
      "train.upsample_logits": upsample_logits,
      "model.batch_norm.mode": "train" if trained_norms else "frozen",
    }
