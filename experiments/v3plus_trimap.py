"""What the decoder gains near object boundaries (v3+, figure 5).

COMMAND: python -m experiments.run v3plus_trimap

VOC 2012 val, trained and evaluated at output stride 16. mIoU of the pixels
that lie so near to the void label. The paper's gain over bilinear upsampling,
at its smallest width, is 4.8 points with ResNet-101 and 5.4 with Xception; no
text has the curves.
"""

from deeplax.ablation import papers

BASE = "v3plus_resnet101"
# Differences at one width, which no row alone has.
PAPER = papers.Paper(
  papers.table("v3plus_trimap")["source"],
  (None,) * 4,
  table="v3plus_trimap",
)
MEASURE = ("--trimap=1,2,5,10,20,30,40", "--boundary")


def sweep():
  """Yield the settings of each row."""
  for base in (BASE, "v3plus_xception"):
    for decoder in ("none", "concat"):
      yield {"base": base, "model.decoder.kind": decoder}
