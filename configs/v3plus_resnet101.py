"""DeepLabv3+ with ResNet-101, "beta" root (arXiv:1802.02611, table 3).

COMMAND: python -m deeplax.main --config=configs/v3plus_resnet101.py
         (then :stage2; other stages: docs/protocols.md; :debug
         needs no data set)

Expected mIoU on VOC 2012 val, one scale: 78.85 at output stride 16, 79.35 at 8
(table 3; re-runs in other code bases: 78.3 to 79.2), from ImageNet weights.
Dense 3x3 convolutions as in tables 1 to 3; `model.separable` and
`model.decoder.separable` make them separable. Time and memory: not measured.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

ARGS = ("", "debug", *protocols.STAGES)


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("v3plus_resnet101", arg, ARGS)
  c = defaults.base()
  c.model.backbone = "resnet_v1_101_beta"
  # The published checkpoints and the tables' Multiply-Adds need it.
  c.model.multi_grid = (1, 2, 4)
  c.model.separable = False
  c.model.decoder.separable = False
  c.optim.weight_decay = 1e-4  # research/deeplab/train.py
  c.eval.pad_to = (513, 513)
  if arg == "debug":
    c.model.backbone = "resnet_v1_50_beta"
    # Small checkpoints.
    c.model.channels = 32
    c.model.decoder.channels = 32
    return defaults.debug(c)
  if arg:
    return protocols.STAGES[arg](c, "v3plus_resnet101")
  return c
