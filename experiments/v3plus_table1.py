"""Width of the decoder's low-level features (v3+, table 1).

COMMAND: python -m experiments.run v3plus_table1
         python -m experiments.run v3plus_table1:debug   (made-up data, minutes)

ResNet-101, VOC 2012 val, output stride 16, one scale. The table fixes the rest
of the decoder as one [3x3, 256] on Conv2 features, so the row for 48 is the
first row of table 2 and not the final network, which has two.
"""

BASE = "v3plus_resnet101"
CHANNELS = (8, 16, 32, 48, 64)
PAPER = {
  "source": "arXiv:1802.02611, table 1: mIoU on VOC 2012 val, percent",
  "miou": (77.61, 77.92, 78.16, 78.21, 77.94),
}


def sweep(arg: str = ""):
  """Yield the settings of one training run each, in the order of `PAPER`."""
  del arg  # the same cells for every argument of the configuration
  for channels in CHANNELS:
    yield {
      "model.decoder.low_level_channels": channels,
      "model.decoder.convs": 1,
    }
