"""Width of the decoder's low-level features (v3+, table 1).

COMMAND: python -m experiments.run v3plus_table1
         python -m experiments.run v3plus_table1:debug   (made-up data, minutes)

ResNet-101, VOC 2012 val, output stride 16, one scale. The table fixes the rest
of the decoder as one [3x3, 256] on Conv2 features, so the row for 48 is the
first row of table 2 and not the final network, which has two.
"""

from deeplax.ablation import papers

BASE = "v3plus_resnet101"
PAPER = papers.numbers("v3plus_table1")


def sweep():
  """Yield the settings of each row."""
  for channels in (8, 16, 32, 48, 64):
    yield {
      "model.decoder.low_level_channels": channels,
      "model.decoder.convs": 1,
    }
