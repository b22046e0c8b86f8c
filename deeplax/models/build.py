"""Build the network that `config.model` describes.

`head_from_config` and `decoder_from_config` read the keys of those two parts.
"""

from collections.abc import Callable
from functools import partial
import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from deeplax.models import config_values
from deeplax.models import conventions
from deeplax.models import decoder_from_config
from deeplax.models import deeplab
from deeplax.models import head_from_config
from deeplax.models import layers
from deeplax.models.backbones import dilation
from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import mobilenet_v3
from deeplax.models.backbones import resnet
from deeplax.models.backbones import vgg
from deeplax.models.backbones import xception
from deeplax.models.heads import auxiliary as auxiliary_head

# Programs outside of this repository call it from here.
from deeplax.models.variables import initial_variables as initial_variables

BACKBONES: dict[str, Callable[..., nn.Module]] = {
  "mobilenet_v2": mobilenet_v2.MobileNetV2,
  "mobilenet_v3_large": partial(mobilenet_v3.MobileNetV3, variant="large"),
  "mobilenet_v3_large_seg": partial(
    mobilenet_v3.MobileNetV3, variant="large_seg"
  ),
  "mobilenet_v3_small_seg": partial(
    mobilenet_v3.MobileNetV3, variant="small_seg"
  ),
  "mobilenet_edgetpu": partial(mobilenet_v3.MobileNetV3, variant="edgetpu"),
  "resnet50": partial(resnet.ResNet, depth=50, stem="plain"),
  "resnet101": partial(resnet.ResNet, depth=101, stem="plain"),
  "resnet_v1_50": partial(resnet.ResNet, depth=50, stem="plain"),
  "resnet_v1_50_beta": partial(resnet.ResNet, depth=50, stem="beta"),
  "resnet_v1_101": partial(resnet.ResNet, depth=101, stem="plain"),
  "resnet_v1_101_beta": partial(resnet.ResNet, depth=101, stem="beta"),
  "vgg16": vgg.VGG16,
  "xception_41": partial(xception.Xception, depth=41),
  "xception_65": partial(xception.Xception, depth=65),
  "xception_71": partial(xception.Xception, depth=71),
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
PRECISIONS = ("default", "high", "highest")

# (mean, std) of each channel of the images.
Channels = tuple[tuple[float, ...], tuple[float, ...]]


def from_config(
  config: ml_collections.ConfigDict,
  *,
  num_classes: int,
  axis_name: str | None = None,
  output_stride: int | None = None,
  auxiliary: bool = False,
  channels: Channels | None = None,
  trained: tuple[str, ...] = (),
) -> deeplab.DeepLab:
  """Return the network that `config.model` describes.

  Args:
    config: The `model` part of a configuration.
    num_classes: Background included.
    axis_name: Of the mapped axis of devices; None outside one.
    output_stride: Replaces that of the configuration. The parameters are the
      same for every output stride; atrous rates follow it.
    auxiliary: Whether the network has a second head, for training only.
    channels: Mean and std of each channel of the images; None: RGB.
    trained: Names of the parts that train, as in `optim.trained`; the norms of
      the other parts are fixed. (): every part trains.

  Raises:
    ValueError: Naming the key, the value and what is allowed.
  """
  row = conventions.get(config.conventions)
  _check_names(config)
  config_values.positive("num_classes", num_classes)
  images = row.backbone(config.backbone)
  mean, std = channels or (images.mean, images.std)
  stride = config.output_stride if output_stride is None else output_stride
  for value in (config.output_stride, stride):
    layers.check_one_of("output_stride", value, dilation.OUTPUT_STRIDES)
  style = row.style._replace(
    norm=_norm(config.batch_norm, row.style.norm, axis_name),
    dtype=DTYPES[config.dtype],
  )
  backbone = _backbone(config, row, stride, axis_name)
  # LR-ASPP's decoder adds up class scores.
  kind = decoder_from_config.kind(config.decoder)
  scores = config.head == "lraspp" and kind == "sum"
  model = deeplab.DeepLab(
    backbone=backbone,
    head=head_from_config.build(
      config, row, stride, style, backbone=backbone, num_classes=num_classes
    ),
    head_logits=config.head == "aspp_sum",
    input_scales=_input_scales(config, auxiliary),
    decoder=decoder_from_config.build(
      config.decoder, row, style, num_classes=num_classes if scores else None
    ),
    decoder_logits=scores,
    align_corners=row.align_corners,
    auxiliary=auxiliary_head.Auxiliary(style, num_classes)
    if auxiliary
    else None,
    num_classes=num_classes,
    mean=mean,
    std=std,
    logits_init=style.logits_init,
    dtype=style.dtype,
    precision=None if config.precision == "default" else config.precision,
  )
  return _fix_others(model, trained) if trained else model


def _fix_others(
  model: deeplab.DeepLab, trained: tuple[str, ...]
) -> deeplab.DeepLab:
  """Return the network with fixed norms in the parts that do not train."""
  missing = {
    "decoder": model.decoder is None,
    "auxiliary": model.auxiliary is None,
    "logits": model.head_logits or model.decoder_logits,
  }
  parts = [*("backbone", "head"), *(k for k, no in missing.items() if not no)]
  if not set(trained) & set(parts):
    raise ValueError(
      f"optim.trained {tuple(trained)}: this network has no such part, and "
      f"nothing would train. It has {', '.join(parts)}"
    )
  fixed = {
    name: deeplab.with_norm(getattr(model, name), norm._replace(mode="fixed"))
    for name, norm in deeplab.norms(model).items()
    if name not in trained
  }
  return model.clone(**fixed)


def mean_pixel(
  config: ml_collections.ConfigDict, channels: Channels | None = None
) -> tuple[float, ...]:
  """Return the value that images are padded with; RGB is 0..255.

  Args:
    config: The `model` part of a configuration.
    channels: As in `from_config`.
  """
  if channels:
    return channels[0]
  return conventions.get(config.conventions).backbone(config.backbone).mean


def _check_names(config: ml_collections.ConfigDict) -> None:
  layers.check_one_of("model.backbone", config.backbone, sorted(BACKBONES))
  layers.check_one_of("model.head", config.head, head_from_config.HEADS)
  layers.check_one_of("model.dtype", config.dtype, sorted(DTYPES))
  layers.check_one_of("model.precision", config.precision, PRECISIONS)


def _backbone(
  config: ml_collections.ConfigDict,
  row: conventions.Conventions,
  output_stride: int,
  axis_name: str | None,
) -> nn.Module:
  own = row.backbone(config.backbone)
  options = {**_backbone_options(config), **own.fields}
  if not config.atrous:
    options["dilate_from"] = "never"
  return BACKBONES[config.backbone](
    output_stride=output_stride,
    norm=_norm(config.batch_norm, own.norm, axis_name),
    kernel_init=own.kernel_init,
    dtype=DTYPES[config.dtype],
    **options,
  )


def _norm(
  config: ml_collections.ConfigDict,
  norm: layers.Norm,
  axis_name: str | None,
) -> layers.Norm:
  """Return a part's conventional norm as `config.batch_norm` wants it."""
  layers.check_one_of("model.batch_norm.mode", config.mode, layers.NORM_MODES)
  if config.decay is not None:
    decay = config_values.fraction("model.batch_norm.decay", config.decay)
    norm = norm._replace(decay=decay)
  norm = norm._replace(mode=config.mode, group=config.group)
  norm.over()  # outside a mapped step it checks the spelling of the group alone
  return norm._replace(axis_name=axis_name)


def _backbone_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Return the settings that only some backbones take.

  Raises:
    ValueError: One differs from its neutral value on a backbone without it.
  """
  family = re.split("[_0-9]", config.backbone)[0]
  multi_grid = config_values.as_tuple("model.multi_grid", config.multi_grid)
  dilation.check_multi_grid(multi_grid)
  factor = config.depth_multiplier
  if factor <= 0:
    raise ValueError(f"model.depth_multiplier {factor} is not positive")
  modified = config.xception
  if modified.middle_units is not None:
    config_values.positive("model.xception.middle_units", modified.middle_units)
  for key, allowed in (
    ("after_depthwise", xception.AFTER_DEPTHWISE),
    ("downsample", xception.DOWNSAMPLE),
  ):
    layers.check_one_of(f"model.xception.{key}", modified[key], allowed)
  options = {
    "atrous": (config.atrous, True, ("mobilenet", "resnet")),
    "depth_multiplier": (factor, 1.0, ("mobilenet",)),
    "multi_grid": (multi_grid, (1, 1, 1), ("resnet", "xception")),
    "remat": (config.remat, False, ("mobilenet", "resnet", "xception")),
    "xception.after_depthwise": (
      modified.after_depthwise,
      "norm",
      ("xception",),
    ),
    "xception.middle_units": (modified.middle_units, None, ("xception",)),
    "xception.downsample": (modified.downsample, "separable", ("xception",)),
  }
  for key, (value, neutral, families) in options.items():
    if value != neutral and family not in families:
      raise ValueError(
        f"model.{key} {value} is for {' and '.join(families)} backbones; "
        f"{config.backbone} needs {neutral}"
      )
  taken = {
    key.rpartition(".")[2]: value
    for key, (value, _, families) in options.items()
    if family in families and key != "atrous"
  }
  if config.backbone == "mobilenet_v2":
    taken["last_conv"] = config.head == "classifier"
  return taken


def _input_scales(
  config: ml_collections.ConfigDict, auxiliary: bool
) -> tuple[float, ...]:
  """Return the scales besides 1 that the network sees each image at."""
  scales = tuple(float(scale) for scale in config.input_scales)
  if any(not 0 < scale < 1 for scale in scales):
    raise ValueError(
      f"model.input_scales {scales} are not between 0 and 1, such as "
      "(0.5, 0.75); the scale 1 is always there"
    )
  if scales and auxiliary:
    raise ValueError(
      "model.input_scales have a loss each: set train.auxiliary_weight to 0"
    )
  return scales
