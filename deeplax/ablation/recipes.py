"""Recipes: a table on other data, with a network small enough for a CPU.

`--data camvid` of `experiments.run` keeps what a configuration says of head,
decoder and loss, and swaps data, backbone, schedule and optimizer. Widths of
head and decoder, batches, steps and crops that a table varies are scaled; what
the small network cannot have is refused, row by row, with the reason.
"""

from typing import Any

from deeplax.settings import defaults

Settings = dict[str, Any]

# Settings by data set. Crops are 16 n + 1, to suit align-corners resizing.
DATA: dict[str, Settings] = {
  "camvid": {
    "data.name": "camvid",
    "data.train_split": "train",
    "data.eval_split": "val",
    "data.crop_size": (193, 257),
    "data.min_scale": 0.75,
    "data.max_scale": 1.5,
    "data.scale_step": 0.0,
    "eval.pad_to": (361, 481),  # 16 n + 1 over 360x480
  },
  "shapes": {
    "data.name": "shapes",
    "data.train_split": "train",
    "data.eval_split": "val",
    "data.crop_size": (97, 97),
    "data.min_scale": 0.75,
    "data.max_scale": 1.25,
    "data.scale_step": 0.0,
    "eval.pad_to": (97, 97),
  },
  "voc2012": {
    key: defaults.base()[key.split(".")[0]][key.split(".")[1]]
    for key in (
      *("data.name", "data.train_split", "data.eval_split", "data.crop_size"),
      *("data.min_scale", "data.max_scale", "data.scale_step"),
      "train.total_steps",
    )
  }
  | {"eval.pad_to": (513, 513)},
}
NAMES = tuple(DATA)
# The reduced network: MobileNetV2 at half width, as in configs/camvid.py.
NETWORK: Settings = {
  "model.backbone": "mobilenet_v2",
  "model.depth_multiplier": 0.5,
  "model.multi_grid": (1, 1, 1),
  "model.conventions": "tf_deeplab",
  "model.xception.after_depthwise": "norm",
  "model.xception.middle_units": None,
  "model.xception.downsample": "separable",
  "model.remat": False,
}
# From random weights, a few hundred steps: configs/camvid.py's values.
TRAINING: Settings = {
  "model.batch_norm.mode": "train",
  "model.batch_norm.decay": 0.98,  # the published ones suit 30,000 steps
  "optim.base_lr": 0.1,
  "optim.schedule": "poly",
  "optim.weight_decay": 1e-4,
  "optim.slow_start_steps": 20,
  "optim.slow_start_lr": 0.01,
  "optim.head_multiplier": 1.0,
  "optim.multiplied": "head",
  "optim.trained": (),
  "init.checkpoint": None,
  "train.batch_size": 8,
  "train.total_steps": 250,
  "eval.every": 125,
  "checkpoint.every": 125,
  "log.every": 5,
}
# Keys of widths, of the length of a run, and of all sizes but widths.
WIDTHS = ("model.channels", "model.decoder.channels")
STEPS = ("train.total_steps", "optim.step_every")
SCALED = (*STEPS, "train.batch_size", "data.crop_size")


def settings(config: Any, data: str, *, full_size: bool = False) -> Settings:
  """Return the settings of a recipe for a table's configuration.

  Args:
    config: Of the table.
    data: One of `NAMES`.
    full_size: Keep the network; data, schedule and optimizer still change.
  """
  own = config.data.name == data or (
    data == "voc2012" and config.data.name == "shapes"
  )
  if data == "voc2012":
    return {} if own else dict(DATA[data])
  changes = DATA[data] | TRAINING
  if not full_size:
    changes = changes | NETWORK
    for key in WIDTHS:
      value = look_up(config, key)
      changes[key] = round(value * _width_factor(value))
  steps = changes["train.total_steps"] / config.train.total_steps
  changes["optim.step_every"] = max(1, round(config.optim.step_every * steps))
  return changes


def _width_factor(base: int) -> float:
  """Return 1/2 of v3's widths, 1/8 of those of VGG-16's fc6."""
  return 0.5 if base <= 512 else 0.125


def scaled(config: Any, recipe: Settings, row: Settings) -> Settings:
  """Return a row's settings at the size of a recipe.

  Args:
    config: Of the table.
    recipe: Of `settings`, for this configuration.
    row: Its settings in the table.
  """
  resized = dict(row)
  for key in WIDTHS:
    if key in row and key in recipe:
      factor = _width_factor(look_up(config, key))
      resized[key] = max(1, round(row[key] * factor))
  if "train.batch_size" in row and "train.batch_size" in recipe:
    ratio = recipe["train.batch_size"] / config.train.batch_size
    resized["train.batch_size"] = max(2, round(row["train.batch_size"] * ratio))
  for key in STEPS:
    if key in row and "train.total_steps" in recipe:
      ratio = recipe["train.total_steps"] / config.train.total_steps
      resized[key] = max(1, round(row[key] * ratio))
  if "data.crop_size" in row and "data.crop_size" in recipe:
    resized["data.crop_size"] = tuple(
      round(side * small / whole / 16) * 16 + 1
      for side, small, whole in zip(
        row["data.crop_size"],
        recipe["data.crop_size"],
        config.data.crop_size,
        strict=True,
      )
    )
  return resized


def fixed(recipe: Settings) -> set[str]:
  """Return the keys that a row may not set beside this recipe."""
  free = {*WIDTHS, *SCALED}
  # A table may be about a schedule, which every network can have.
  free |= {"optim.schedule", "data.min_scale", "data.max_scale"}
  return set(recipe) - free


def look_up(config: Any, key: str) -> Any:
  """Return the value of a dotted key."""
  for part in key.split("."):
    config = config[part]
  return config


# Known costs of a difference from the papers' protocol, by its key. Numbers are
# mIoU, on VOC 2012 val unless another data set is named.
KNOWN: dict[str, str] = {
  "data.name": "another data set: only differences between rows compare with "
  "the paper's, and they need not carry over",
  "init.checkpoint": "the papers start from ImageNet weights; v3+ with "
  "ResNet-101 on Cityscapes has 78.8 from them, and 69.4 from random ones even "
  "with squeeze-and-excitation (TensorFlow Model Garden)",
  "model.backbone": "MobileNetV2 71.1 against ResNet-101 78.3, v3+ from "
  "ImageNet (VainF/DeepLabV3Plus-Pytorch)",
  "train.total_steps": "v2, table 2: 10,000 to 20,000 steps of batch 10 gave "
  "1.2 points",
  "train.batch_size": "v3, table 9: batch 4, 8, 12, 16 gave 64.43, 75.76, "
  "76.49, 77.21",
  "data.crop_size": "v3, table 8: crop 321 in place of 513 cost 10.0 points",
  "model.output_stride": "v3, table 10: trained at 32 in place of 16 cost 1.3 "
  "points at output stride 16",
  "train.upsample_logits": "v3, table 8: labels at the logits' size cost 1.2 "
  "points",
  "model.batch_norm.mode": "v3, table 8: frozen norms cost 1.3 points",
  "optim.schedule": "v2, table 2: the step policy in place of poly cost 1.2 "
  "points",
  "model.separable": "v3+, table 5: separable convolutions in head and decoder "
  "cost 0.1 to 0.2 points",
  "eval.output_stride": "v3, table 6: 8 in place of 16 gave 1.3 points",
  "model.multi_grid": "v3, table 5: (1, 1, 1) in place of (1, 2, 4) cost 1.2 "
  "points",
  "model.image_pooling": "v3, table 5: image pooling gave 0.6 points",
}
