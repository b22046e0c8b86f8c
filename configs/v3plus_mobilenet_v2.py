"""DeepLabv3+ with MobileNetV2: the full head and decoder on a small backbone.

COMMAND: python -m deeplax.main --config=configs/v3plus_mobilenet_v2.py
         (then :stage2; or :cityscapes; :debug needs no data set)

1801.04381 and the model zoo stop at the head (no atrous branch, no decoder);
this is the network that research/deeplab builds with atrous_rates=(6,12,18)
and decoder_output_stride=4. No paper has its number: expect 70 to 71 mIoU on
VOC 2012 val from ImageNet weights (VainF/DeepLabV3Plus-Pytorch: 71.1, resized
crops). Time and memory: not measured.
"""

from configs import v3plus_xception

ARGS = v3plus_xception.ARGS


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  if arg not in ARGS:
    raise ValueError(f"v3plus_mobilenet_v2:{arg} not in {list(ARGS)}")
  c = v3plus_xception.get_config(arg)
  c.model.backbone = "mobilenet_v2"
  if arg == "stage2":
    c.init.workdir = "runs/v3plus_mobilenet_v2"
  return c
