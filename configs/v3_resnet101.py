"""DeepLabv3 with ResNet-101: multi-grid and ASPP, or cascaded blocks.

COMMAND: python -m deeplax.main --config=configs/v3_resnet101.py
         (then :stage2; or :cascade, then :cascade_stage2; other stages:
         docs/protocols.md; :debug and :cascade_debug need no data set)

arXiv:1706.05587. Expected mIoU on VOC 2012 val, from ImageNet weights, trained
at output stride 16: 77.21 there and 78.51 at 8, with six scales 79.45, flipped
too 79.77 (table 6). `:cascade` is block5 to block7 after block4, without ASPP:
76.66 and 78.05, 78.93, 79.35 (table 4). Cityscapes val: 77.23 and 77.82, with
three scales 79.06, flipped too 79.30 (table 12). Time and memory: not measured.

`model.multi_grid` and `model.cascade_blocks` are table 3's rows and columns, 0
its block4. Table 1's output strides of 64 and more are not offered.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

# Each follows the colon itself, or after "cascade_".
STAGES = ("debug", *protocols.STAGES)
ARGS = ("", *STAGES, "cascade", *(f"cascade_{stage}" for stage in STAGES))


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("v3_resnet101", arg, ARGS)
  c = defaults.base()
  c.model.backbone = "resnet_v1_101_beta"
  c.model.multi_grid = (1, 2, 4)  # table 5
  c.model.separable = False
  c.model.decoder.kind = "none"
  c.optim.weight_decay = 1e-4  # research/deeplab/train.py
  c.eval.pad_to = (513, 513)
  name, stage = "v3_resnet101", arg
  if arg.startswith("cascade"):
    c = protocols.v3_cascade(c)
    name, stage = "v3_resnet101_cascade", arg[len("cascade_") :]
  if stage == "debug":
    c.model.backbone = "resnet_v1_50_beta"
    # Small checkpoints.
    c.model.channels = 32
    c.model.cascade_blocks = 1
    return defaults.debug(c)
  if stage:
    return protocols.STAGES[stage](c, name)
  return c
