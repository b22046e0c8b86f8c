"""DeepLabv3+ with MobileNetV2: the full head and decoder on a small backbone.

COMMAND: python -m deeplax.main --config=configs/v3plus_mobilenet_v2.py
         (then :stage2; other stages: docs/protocols.md; :debug
         needs no data set)

1801.04381 and the model zoo stop at the head (no atrous branch, no decoder);
this is the network that research/deeplab builds with atrous_rates=(6,12,18)
and decoder_output_stride=4. No paper has its number: expect 70 to 71 mIoU on
VOC 2012 val from ImageNet weights (VainF/DeepLabV3Plus-Pytorch: 71.1, resized
crops). Time and memory: not measured.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

ARGS = ("", "debug", *protocols.STAGES)


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("v3plus_mobilenet_v2", arg, ARGS)
  c = defaults.base()
  c.model.backbone = "mobilenet_v2"
  c.eval.pad_to = (513, 513)
  if arg == "debug":
    c.model.channels = 32
    c.model.decoder.channels = 32
    return defaults.debug(c)
  if arg:
    return protocols.STAGES[arg](c, "v3plus_mobilenet_v2")
  return c
