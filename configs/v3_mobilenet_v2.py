"""DeepLabv3 with MobileNetV2, for phones (arXiv:1801.04381, section 6.3).

COMMAND: python -m deeplax.main --config=configs/v3_mobilenet_v2.py
         (then :stage2; or :aspp, then :aspp_stage2; other stages:
         docs/protocols.md; :debug needs no data set)

Of the head there are the 1x1 convolution and image pooling, and no decoder:
2.11M parameters, 2.75B Multiply-Adds. Expected mIoU on VOC 2012 val, from COCO
weights (:coco, then :after_coco): 75.32 at output stride 16, 77.33 at 8 with
six scales and flip (table 7). `:aspp` has the atrous branches too (4.52M,
5.8B): 75.70 and 78.42. From ImageNet weights expect some points less: no paper
has that number. Time and memory: not measured.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

# Each follows the colon itself, or after "aspp_".
STAGES = ("debug", *protocols.STAGES)
ARGS = ("", *STAGES, "aspp", *(f"aspp_{stage}" for stage in STAGES))


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("v3_mobilenet_v2", arg, ARGS)
  c = defaults.base()
  c.model.backbone = "mobilenet_v2"
  c.model.separable = False  # table 7's Multiply-Adds
  c.model.decoder.kind = "none"
  c.model.atrous_rates = ()
  c.eval.pad_to = (513, 513)
  name, stage = "v3_mobilenet_v2", arg
  if arg.startswith("aspp"):
    c.model.atrous_rates = None
    name, stage = "v3_mobilenet_v2_aspp", arg[len("aspp_") :]
  if stage == "debug":
    c.model.channels = 32
    return defaults.debug(c)
  if stage:
    return protocols.STAGES[stage](c, name)
  return c
