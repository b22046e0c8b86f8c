"""Build the network that `config.model` describes.

`head_from_config` and `decoder_from_config` read the keys of those two parts.
"""

from collections.abc import Callable, Iterable
from functools import partial
import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from deeplax import errors
from deeplax.models import config_values
from deeplax.models import conventions
from deeplax.models import decoder_from_config
from deeplax.models import deeplab
from deeplax.models import head_from_config
from deeplax.models import layers
from deeplax.models import own as own_parts
from deeplax.models import style as style_lib
from deeplax.models.backbones import dilation
from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import mobilenet_v3
from deeplax.models.backbones import resnet
from deeplax.models.backbones import vgg
from deeplax.models.backbones import xception
from deeplax.models.heads import auxiliary as auxiliary_head

# Programs outside of this repository call it from here.
from deeplax.models.variables import initial_variables as initial_variables
from deeplax.settings import own

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
  backbone: nn.Module | None = None,
  head: nn.Module | None = None,
  decoder: nn.Module | None = None,
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
    backbone: In place of the configured one; see docs/own_network.md.
    head: In place of the configured one.
    decoder: In place of the configured one.

  Raises:
    ValueError: Naming the key, the value and what is allowed.
    InputError: A part of the user's own does not fit.
  """
  if config.given:
    raise errors.InputError(own.FROM_PYTHON)
  objects = {"backbone": backbone, "head": head, "decoder": decoder}
  objects = {k: part for k, part in objects.items() if part is not None}
  if objects:
    config = _marked(config, objects)
  row = conventions.get(config.conventions)
  _check_names(config)
  config_values.positive("num_classes", num_classes)
  images = row.backbone(config.backbone)
  mean, std = channels or (images.mean, images.std)
  stride = config.output_stride if output_stride is None else output_stride
  for value in (config.output_stride, stride):
    layers.check_one_of("output_stride", value, dilation.OUTPUT_STRIDES)
  style = _style(config, row, axis_name)
  parts = _own_parts(config, objects, row, style, stride, num_classes)
  made = _with_configured(parts, config, row, style, stride, num_classes)
  model = deeplab.DeepLab(
    **made,
    head_logits=config.head == "aspp_sum",
    input_scales=_input_scales(config, auxiliary),
    decoder_logits=_adds_scores(config),
    align_corners=row.align_corners,
    auxiliary=(
      auxiliary_head.Auxiliary(style, num_classes) if auxiliary else None
    ),
    num_classes=num_classes,
    mean=mean,
    std=std,
    logits_init=style.logits_init,
    dtype=style.dtype,
    precision=None if config.precision == "default" else config.precision,
  )
  if trained:
    model = fix_others(model, trained)
  if parts:
    whole: Any = model
    own_parts.refuse_misfit(whole, parts, stride, _moving(config, trained))
  return model


def _moving(
  config: ml_collections.ConfigDict, trained: tuple[str, ...]
) -> tuple[str, ...]:
  """Return the parts whose running statistics move in training."""
  moving = config.batch_norm.mode == "train"
  return (trained or ("backbone", "head", "decoder")) if moving else ()


def _with_configured(
  parts: Iterable[own_parts.Part],
  config: ml_collections.ConfigDict,
  row: conventions.Conventions,
  style: style_lib.Style,
  output_stride: int,
  num_classes: int,
) -> dict[str, Any]:
  """Return backbone, head and decoder: a user's own, else the configured."""
  made: dict[str, Any] = {part.name: part.module for part in parts}
  if "backbone" not in made:
    made["backbone"] = _backbone(
      config, row, output_stride, style.norm.axis_name
    )
  if "head" not in made:
    made["head"] = head_from_config.build(
      config,
      row,
      output_stride,
      style,
      backbone=made["backbone"],
      num_classes=num_classes,
    )
  if "decoder" not in made:
    scores = num_classes if _adds_scores(config) else None
    made["decoder"] = decoder_from_config.build(
      config.decoder, row, style, num_classes=scores
    )
  return made


def _adds_scores(config: ml_collections.ConfigDict) -> bool:
  """Whether the decoder adds up class scores, as LR-ASPP's does."""
  kind = decoder_from_config.kind(config.decoder)
  return config.head == "lraspp" and kind == "sum"


def _style(
  config: ml_collections.ConfigDict,
  row: conventions.Conventions,
  axis_name: str | None,
) -> style_lib.Style:
  """Return the settings of head and decoder."""
  norm = _norm(config.batch_norm, row.style.norm, axis_name)
  return row.style._replace(norm=norm, dtype=DTYPES[config.dtype])


def _marked(
  config: ml_collections.ConfigDict, names: Iterable[str]
) -> ml_collections.ConfigDict:
  """Return the configuration with some parts marked as a user's own."""
  config = config.copy_and_resolve_references()
  for name in names:
    key = "decoder.kind" if name == "decoder" else name
    config.update_from_flattened_dict({key: own.FORM})
  return config


def _own_parts(
  config: ml_collections.ConfigDict,
  objects: dict[str, nn.Module],
  row: conventions.Conventions,
  style: style_lib.Style,
  output_stride: int,
  num_classes: int,
) -> tuple[own_parts.Part, ...]:
  """Return the parts that are objects, or in files of the user's own."""
  offered = {
    **{"style": style, "norm": style.norm, "kernel_init": style.conv_init},
    **{"dtype": style.dtype, "align_corners": row.align_corners},
    "num_classes": num_classes,
  }
  # A decoder's output stride is that of its result, and its own affair.
  strided = {**offered, "output_stride": output_stride}
  values = {
    "backbone": ("model.backbone", config.backbone, strided),
    "head": ("model.head", config.head, strided),
    "decoder": (
      "model.decoder.kind",
      decoder_from_config.kind(config.decoder),
      offered,
    ),
  }
  parts = []
  for name, (key, value, fields) in values.items():
    if name in objects:
      parts.append(own_parts.from_object(name, objects[name], fields))
    elif own.is_own(value):
      parts.append(own_parts.from_file(name, own.parsed(key, value), fields))
  names = {part.name for part in parts}
  if "backbone" in names:
    _backbone_options(config)  # refuses what only other backbones take
  if "head" in names:
    head_from_config.refuse_unread(config)
  return tuple(parts)


def fix_others(
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
  for key, value, known in (
    ("model.backbone", config.backbone, sorted(BACKBONES)),
    ("model.head", config.head, head_from_config.HEADS),
  ):
    if not own.is_own(value):
      layers.check_one_of(key, value, [*known, own.FORM])
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
