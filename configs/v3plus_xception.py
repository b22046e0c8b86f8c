"""DeepLabv3+ with the modified aligned Xception-65 (arXiv:1802.02611).

COMMAND: python -m deeplax.main --config=configs/v3plus_xception.py
         (then :stage2; or :cityscapes; :debug needs no data set)

Table 5, row "16 / 16, decoder, separable": 54.17B Multiply-Adds. Expected mIoU
on VOC 2012 val, one scale: 79.79 at output stride 16, 80.02 at 8 (table 5).
Cityscapes val: 78.79 (table 7a). The paper starts from ImageNet weights; from
a random start expect far less. Time and memory: not measured.
"""

from configs import common

ARGS = ("", "debug", "cityscapes", "stage2")


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  if arg not in ARGS:
    raise ValueError(f"v3plus_xception:{arg} not in {list(ARGS)}")
  c = common.base()
  c.model.backbone = "xception_65"
  c.model.multi_grid = (1, 1, 1)  # none for Xception (v3+, 4.3)
  c.optim.weight_decay = 4e-5  # research/deeplab/train.py
  c.eval.pad_to = (513, 513)
  if arg == "debug":
    c.model.backbone = "xception_41"
    # Small checkpoints.
    c.model.channels = 32
    c.model.decoder.channels = 32
    return common.debug(c)
  if arg == "cityscapes":
    return cityscapes(c)
  if arg == "stage2":
    return stage2(c, after="v3plus_xception")
  return c


def cityscapes(c):
  """The papers' Cityscapes protocol (v3, appendix B): 19 trainIds."""
  c.data.name = "cityscapes"
  c.data.train_split = "train"  # 2,975 fine annotations
  c.data.crop_size = (769, 769)
  c.train.total_steps = 90_000
  c.eval.every = 5_000
  c.eval.pad_to = (1025, 2049)  # whole images of 1024 x 2048
  c.eval.sweep.scales = (0.75, 1.0, 1.25)  # v3, table 12
  return c


def stage2(c, *, after: str):
  """The papers' second stage (v3, 4.1): frozen norms, output stride 8.

  It trains on VOC's own trainval, val included, for the test server: the mIoU
  it reports while training is no validation score.
  """
  c.init.workdir = f"runs/{after}"
  c.data.train_split = "trainval"  # 2,913 images
  c.model.batch_norm.mode = "frozen"
  c.model.output_stride = 8
  c.optim.base_lr = 0.001
  c.eval.sweep.output_strides = (8,)
  return c
