"""Upsampled logits against downsampled labels in training (v3 and v3+).

COMMAND: python -m experiments.run upsample_logits

v3's network, the "naive decoder" of v3+: v3+ (section 4) puts the gain of full
labels at 1.2 points, which are the first and third row of v3's table 8.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101"
PAPER = papers.Paper(papers.table("v3_table8")["source"], (77.21, 76.01))


def sweep():
  """Yield the settings of each row."""
  for upsample_logits in (True, False):
    yield {"train.upsample_logits": upsample_logits}
