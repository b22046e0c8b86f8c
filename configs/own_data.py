"""DeepLabv3+ on your own images: no code, one folder.

COMMAND: python -m deeplax.check_data DIR
         python -m deeplax.main --config=configs/own_data.py \\
           --config.data.root=DIR --workdir=runs/mine

DIR/images/train/a.jpg  DIR/images/val/b.jpg    pictures of any kind and size
DIR/labels/train/a.png  DIR/labels/val/b.png    one number per pixel: the class
DIR/classes.json  {"names": ["background", "cat"], "ignore_label": 255}

Image and mask share the name before the suffix; sub-folders are fine. Masks
are PNGs (gray, palette or 1 bit), never JPEG; pixels of ignore_label are not
learned from and not counted. The number of classes follows from classes.json.
For masks of colors it is {"colors": {"road": [128, 64, 128], "car": "#00008e"},
"ignore_color": [0, 0, 0]}: they are read as they are.

A small network and a short schedule, from random weights: for a few hundred
images and a first impression. MobileNetV2, v3+ head and decoder.
Expected mIoU: depends on the data. Time: not measured.

From published weights, which is better for a few hundred images: MobileNetV2 of
VOC (its head too) or of ImageNet, FILE as `python -m deeplax.convert --list`
has it (of folded norms also --statistics=64):

  python -m deeplax.convert --source=tf_deeplab --checkpoint=FILE \\
    --config=configs/own_data.py:pretrained --config.data.root=DIR \\
    --new=decoder --workdir=runs/start
  python -m deeplax.main --config=configs/own_data.py:pretrained \\
    --config.data.root=DIR --config.init.checkpoint=runs/start \\
    --workdir=runs/mine
  python -m deeplax.evaluate --workdir=runs/mine

Measured on 120 photographs of CamVid, mIoU on 30 others: 120 steps of batch 8
at crop 321 give 39.1 from VOC's backbone (--new=head) and 10.4 from random
weights; 50 steps of batch 4 at crop 241 give 24.6 from VOC's with its head,
18.9 with --new=head and 21.8 from ImageNet's. One seed each. The whole
schedule: not measured.
"""

from deeplax.settings import defaults

ARGS = ("", "pretrained", "debug")


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("own_data", arg, ARGS)
  c = defaults.base()
  c.data.name = "folder"
  c.data.train_split = "train"
  c.data.crop_size = (321, 321)

  c.model.backbone = "mobilenet_v2"
  c.model.channels = 128
  c.model.decoder.channels = 128
  # The published decays (0.997, 0.9997) need 30,000 steps to settle; this one
  # has forgotten the random start after a few hundred.
  c.model.batch_norm.decay = 0.99

  c.optim.base_lr = 0.05  # from random weights; 0.007 is for pretrained ones
  c.optim.slow_start_steps = 100
  c.optim.slow_start_lr = 0.005

  c.train.batch_size = 8
  c.train.total_steps = 5_000
  c.eval.every = 500
  c.checkpoint.every = 500
  if arg == "debug":
    return defaults.debug(c)
  return _pretrained(c) if arg else c


def _pretrained(c):
  """From published weights: see the commands at the top."""
  # The head of the zoo's MobileNetV2 of VOC, image pooling and 1x1: it fits.
  c.model.channels = 256
  c.model.atrous_rates = ()
  c.model.batch_norm.decay = 0.98  # for some hundred steps

  c.optim.name = "adamw"
  c.optim.base_lr = 1e-3
  c.optim.schedule = "cosine"
  c.optim.weight_decay = 0.01
  c.optim.head_multiplier = 2.0  # new parts learn faster than known ones
  c.optim.slow_start = "linear"
  c.optim.slow_start_steps = 50
  c.optim.slow_start_lr = 1e-4

  c.train.total_steps = 600
  c.eval.every = 200
  c.checkpoint.every = 200
  return c
