"""DeepLab v2 with VGG-16 (arXiv:1606.00915, section 4.1).

COMMAND: python -m deeplax.main --config=configs/v2_vgg16.py \\
           --config.init.checkpoint=IMAGENET
         (IMAGENET: a workdir that deeplax.convert made, see docs/networks.md;
         :debug needs no data set)

The head is ASPP-L, four branches at rates (6, 12, 18, 24); :aspp_s has (2, 4,
8, 12) and :large_fov v1's single branch. Expected mIoU on VOC 2012 val, one
scale, from ImageNet weights, without and with the dense CRF (table 3): 68.96
and 71.57; :aspp_s 66.98 and 69.73; :large_fov 65.76 and 69.84. Time and
memory: not measured.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

ARGS = ("", "aspp_s", "large_fov", "debug")


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("v2_vgg16", arg, ARGS)
  c = protocols.v2_vgg16(defaults.base())
  c.model.conventions = "caffe"
  c.model.backbone = "vgg16"
  c.model.output_stride = 8
  c.model.head = "large_fov" if arg == "large_fov" else "aspp_sum"
  c.model.pool5a = arg == "large_fov"  # v1's network
  c.model.channels = 1024
  c.model.decoder.kind = "none"
  if arg == "aspp_s":
    c.model.atrous_rates = (2, 4, 8, 12)
  if arg == "debug":
    c.model.channels = 32  # small checkpoints
    return defaults.debug(c)
  return c
