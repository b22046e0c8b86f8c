"""DeepLabv3+ with the modified aligned Xception-65 (arXiv:1802.02611).

COMMAND: python -m deeplax.main --config=configs/v3plus_xception.py
         (then :stage2; other stages: docs/protocols.md; :debug
         needs no data set)

Table 5, row "16 / 16, decoder, separable": 54.17B Multiply-Adds. Expected mIoU
on VOC 2012 val, one scale: 79.79 at output stride 16, 80.02 at 8 (table 5).
Cityscapes val: 78.79 (table 7a). The paper starts from ImageNet weights; from
a random start expect far less. Time and memory: not measured.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

ARGS = ("", "debug", *protocols.STAGES)


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("v3plus_xception", arg, ARGS)
  c = defaults.base()  # this network, without multi-grid (v3+, 4.3)
  c.eval.pad_to = (513, 513)
  if arg == "debug":
    c.model.backbone = "xception_41"
    # Small checkpoints.
    c.model.channels = 32
    c.model.decoder.channels = 32
    return defaults.debug(c)
  if arg:
    return protocols.STAGES[arg](c, "v3plus_xception")
  return c
