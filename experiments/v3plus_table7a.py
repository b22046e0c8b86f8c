"""Decoder, image pooling and depth on Cityscapes (v3+, table 7a).

COMMAND: python -m experiments.run v3plus_table7a

Cityscapes val, train_fine, whole images, one scale at output stride 16.
"""

from deeplax.ablation import papers

BASE = "v3plus_xception:cityscapes"
PAPER = papers.numbers("v3plus_table7a")


def sweep():
  """Yield the settings of each row."""
  for backbone, decoder, pooling in (
    ("xception_65", "none", True),
    ("xception_65", "concat", True),
    ("xception_65", "concat", False),
    ("xception_71", "concat", False),
  ):
    yield {
      "model.backbone": backbone,
      "model.decoder.kind": decoder,
      "model.image_pooling": pooling,
    }
