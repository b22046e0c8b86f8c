"""Structure of the decoder behind 48 low-level channels (v3+, table 2).

COMMAND: python -m experiments.run v3plus_table2

ResNet-101, VOC 2012 val, output stride 16. The second row is the network that
the paper goes on with; the last refines at Conv3 and then at Conv2.
"""

from deeplax.ablation import papers

BASE = "v3plus_resnet101"
PAPER = papers.numbers("v3plus_table2")


def sweep():
  """Yield the settings of each row."""
  for features, kernel, channels, convs in (
    ((4,), 3, 256, 1),
    ((4,), 3, 256, 2),
    ((4,), 3, 256, 3),
    ((4,), 3, 128, 1),
    ((4,), 1, 256, 1),
    ((8, 4), 3, 256, 1),
  ):
    yield {
      "model.decoder.features": features,
      "model.decoder.kernel": kernel,
      "model.decoder.channels": channels,
      "model.decoder.convs": convs,
    }
