"""DeepLab v1: VGG-16 with holes, LargeFOV head (arXiv:1412.7062).

COMMAND: python -m deeplax.main --config=configs/v1_vgg16_largefov.py \\
           --config.init.checkpoint=IMAGENET
         (IMAGENET: a workdir that deeplax.convert made, see docs/networks.md;
         :debug needs no data set)

:7x7 and :4x4 are fc6 at its full size and subsampled less (v2, table 1). :msc,
after the plain run, adds branches from the image and the first four poolings
(section 4.3) and trains them and the logits, which start anew.

Expected mIoU on VOC 2012 val, one scale, from ImageNet weights, without and
with the dense CRF: 62.25 and 67.64; :7x7 64.38 and 67.64; :4x4 63.41 and 67.14
(v2, table 1); :msc 64.21 and 68.70 (v1, table 1). Time and memory: not
measured.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

ARGS = ("", "7x7", "4x4", "msc", "debug")


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("v1_vgg16_largefov", arg, ARGS)
  c = protocols.v1(defaults.base())
  c.model.conventions = "caffe"
  c.model.backbone = "vgg16"
  c.model.output_stride = 8
  c.model.head = "large_fov"
  c.model.channels = 1024
  c.model.decoder.kind = "none"
  c.model.pool5a = arg not in ("7x7", "4x4")
  if arg in ("7x7", "4x4"):
    c.model.fc6_kernel = int(arg[0])
    c.model.channels = 4096
  if arg == "msc":
    c.init.checkpoint = "runs/v1_vgg16_largefov"
    c.model.decoder.kind = "branches"
    c.model.decoder.channels = 128
    c.optim.trained = ("decoder", "logits")
  if arg == "debug":
    c.model.channels = 32  # small checkpoints
    return defaults.debug(c)
  return c
