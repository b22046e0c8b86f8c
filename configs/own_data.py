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
"""

from deeplax.settings import defaults

ARGS = ("", "debug")


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
  return c
