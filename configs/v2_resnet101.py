"""DeepLab v2 with ResNet-101 over three scales (arXiv:1606.00915, 4.1.2).

COMMAND: python -m deeplax.main --config=configs/v2_resnet101.py \\
           --config.init.checkpoint=COCO
         (COCO: a workdir that deeplax.convert made, see docs/networks.md;
         :debug needs no data set)

ResNet-101 of Caffe's layout with fixed norms, the scores of four 3x3
convolutions at rates (6, 12, 18, 24) added up. The network sees each image at
scales 1, 0.75 and 0.5 and keeps the largest score; each scale has its own
loss. Expected mIoU on VOC 2012 val, from COCO weights, without and with the
dense CRF (table 4): 76.35 and 77.69; from ImageNet without ASPP, augmentation
and several scales 68.72. Time and memory: not measured.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

ARGS = ("", "debug")


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("v2_resnet101", arg, ARGS)
  c = protocols.v2_resnet101(defaults.base())
  c.model.conventions = "caffe"
  c.model.backbone = "resnet101"
  c.model.output_stride = 8
  c.model.head = "aspp_sum"
  c.model.channels = 0  # from the features straight to the scores
  c.model.decoder.kind = "none"
  if arg == "debug":
    c.model.backbone = "resnet50"
    # Frozen at random weights, a norm passes on what 16 sums have added up.
    c.model.batch_norm.mode = "train"
    return defaults.debug(c)
  return c
