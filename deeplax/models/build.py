"""From `config.model` to a network: the one reader of that ConfigDict."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
import re
from typing import Any
import zlib

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeplax.models import cascade
from deeplax.models import conventions
from deeplax.models import cost
from deeplax.models import decoder as decoder_lib
from deeplax.models import deeplab
from deeplax.models import dpc
from deeplax.models import heads
from deeplax.models import large_fov
from deeplax.models import layers
from deeplax.models import lraspp
from deeplax.models import mobilenet
from deeplax.models import mobilenet_v3
from deeplax.models import resnet
from deeplax.models import vgg
from deeplax.models import xception

BACKBONES: dict[str, Callable[..., nn.Module]] = {
  "mobilenet_v2": mobilenet.MobileNetV2,
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
HEADS = (
  *("aspp", "aspp_sum", "cascade", "classifier", "dpc"),
  *("large_fov", "lraspp"),
)
ATROUS_HEADS = ("aspp", "aspp_sum", "large_fov")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
LOW_LEVEL_STRIDES = (2, 4, 8)
DECODER_STRIDES = (2, 4, 8)

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
) -> deeplab.DeepLab:
  """Return the network that `config.model` describes.

  Args:
    config: The `model` part of a configuration.
    num_classes: Background included.
    axis_name: Of the mapped axis of devices; None outside one.
    output_stride: Another one than the configuration's. The parameters are
      the same for every output stride; atrous rates follow it.
    auxiliary: Whether there is a second head, for training only.
    channels: Mean and std of each channel of the images; None: RGB.

  Raises:
    ValueError: Naming the key, the value and what is allowed.
  """
  row = conventions.get(config.conventions)
  layers.check_one_of("model.backbone", config.backbone, sorted(BACKBONES))
  layers.check_one_of("model.head", config.head, HEADS)
  layers.check_one_of("model.dtype", config.dtype, sorted(DTYPES))
  _positive("num_classes", num_classes)
  dtype = DTYPES[config.dtype]
  backbone_row = row.backbone(config.backbone)
  norm = partial(_norm, config.batch_norm, axis_name=axis_name)
  head_norm = norm(row.head_decay, row.head_eps)
  inits: dict[str, Any] = {
    "conv_init": row.conv_init,
    "depthwise_init": row.depthwise_init,
    "pointwise_init": row.pointwise_init,
  }
  stride = config.output_stride if output_stride is None else output_stride
  for value in (config.output_stride, stride):
    layers.check_one_of("output_stride", value, layers.OUTPUT_STRIDES)
  mean, std = channels or (backbone_row.mean, backbone_row.std)
  # LR-ASPP's sum is one of class scores.
  scored = config.head == "lraspp" and _decoder_kind(config.decoder) == "sum"
  backbone = BACKBONES[config.backbone](
    output_stride=stride,
    norm=norm(backbone_row.decay, backbone_row.eps),
    kernel_init=backbone_row.kernel_init,
    dtype=dtype,
    **{
      **_backbone_options(config),
      **backbone_row.fields,
      **({} if config.atrous else {"dilate_from": "never"}),
    },
  )
  return deeplab.DeepLab(
    backbone=backbone,
    head=_head(
      config,
      stride,
      backbone=backbone,
      num_classes=num_classes,
      row=row,
      norm=head_norm,
      inits=inits,
      dtype=dtype,
    ),
    head_logits=config.head == "aspp_sum",
    input_scales=_input_scales(config, auxiliary),
    decoder=_decoder(
      config.decoder,
      scores=num_classes if scored else None,
      norm=head_norm,
      norm_between=row.norm_between,
      align_corners=row.align_corners,
      dtype=dtype,
      **inits,
    ),
    decoder_logits=scored,
    align_corners=row.align_corners,
    auxiliary=heads.Auxiliary(
      norm=head_norm,
      num_classes=num_classes,
      conv_init=row.conv_init,
      logits_init=row.logits_init,
      dtype=dtype,
    )
    if auxiliary
    else None,
    num_classes=num_classes,
    mean=mean,
    std=std,
    logits_init=row.logits_init,
    dtype=dtype,
  )


def mean_pixel(
  config: ml_collections.ConfigDict, channels: Channels | None = None
) -> tuple[float, ...]:
  """Return the value that images are padded with; RGB is 0..255.

  Args:
    config: The `model` part of a configuration.
    channels: As `from_config`.
  """
  if channels:
    return channels[0]
  return conventions.get(config.conventions).backbone(config.backbone).mean


def initial_variables(
  model: nn.Module, seed: int, image_size: tuple[int, int] = (33, 33)
) -> dict[str, Any]:
  """Return drawn {"params", "batch_stats"}.

  The model is only traced and the values drawn by NumPy, since compiling
  `init` takes longer than everything here. Each array is drawn from its path
  and the seed alone: a part that two networks share starts equal in both.

  Args:
    model: As `from_config` returns it.
    seed: Of the run.
    image_size: (height, width) to trace with; no array depends on it.

  Raises:
    ValueError: A parameter has no rule here.
  """
  variables, convolutions = cost.trace(model, image_size)
  inits = {conv.path: conv.module.kernel_init for conv in convolutions}
  constants = {"scale": 1, "var": 1, "offset": 0, "mean": 0, "bias": 0}

  def draw(keys, leaf):
    path = tuple(key.key for key in keys[1:])
    if path[-1] in constants:
      value = np.full(leaf.shape, constants[path[-1]], leaf.dtype)
      return jnp.asarray(value)
    if path[:-1] not in inits:
      raise ValueError(f"no initialiser for parameter {'/'.join(path)}")
    rng = np.random.default_rng([zlib.crc32("/".join(path).encode()), seed])
    return jnp.asarray(inits[path[:-1]].draw(rng, leaf.shape))

  return jax.tree_util.tree_map_with_path(draw, variables)


def inflate(variables: dict[str, Any], model: nn.Module) -> dict[str, Any]:
  """Return an RGB network's variables, the first kernel widened to `model`'s.

  Channel i takes the weights of channel i mod 3, times 3 / channels, which
  keeps the size of what comes out; a single one takes the sum of the three
  (segmentation_models.pytorch's rule). All other variables stay.

  Args:
    variables: {"params", ...} of a network that takes three channels.
    model: The same network, for any number of channels.
  """
  (*path, name) = first_kernel(model)
  flat = flax.traverse_util.flatten_dict(dict(variables))
  kernel = np.asarray(flat[*path, name])
  count = len(model.mean)
  if count == 1:
    wide = kernel.sum(axis=2, keepdims=True)
  else:
    wide = kernel[:, :, np.arange(count) % 3] * np.float32(3 / count)
  return flax.traverse_util.unflatten_dict(flat | {(*path, name): wide})


def first_kernel(model: nn.Module) -> tuple[str, ...]:
  """Return the path of the kernel that sees the images, "params" first."""
  return ("params", *cost.trace(model, (33, 33))[1][0].path, "kernel")


def _norm(
  config: ml_collections.ConfigDict,
  decay: float,
  eps: float,
  *,
  axis_name: str | None,
) -> layers.Norm:
  """Return settings of a norm whose conventional decay and eps are given."""
  layers.check_one_of("model.batch_norm.mode", config.mode, layers.NORM_MODES)
  if config.decay is not None:
    decay = _fraction("model.batch_norm.decay", config.decay)
  norm = layers.Norm(decay, eps, config.mode, axis_name, config.group)
  # Outside a mapped step only the spelling of the group can be checked.
  norm._replace(axis_name=None).over()
  return norm


def _backbone_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Return what only some backbones take; elsewhere it must be neutral."""
  family = re.split("[_0-9]", config.backbone)[0]
  multi_grid = _tuple("model.multi_grid", config.multi_grid)
  layers.check_multi_grid(multi_grid)
  factor = config.depth_multiplier
  if factor <= 0:
    raise ValueError(f"model.depth_multiplier {factor} is not positive")
  modified = config.xception
  if modified.middle_units is not None:
    _positive("model.xception.middle_units", modified.middle_units)
  for key, allowed in (
    ("after_depthwise", xception.AFTER_DEPTHWISE),
    ("downsample", xception.DOWNSAMPLE),
  ):
    layers.check_one_of(f"model.xception.{key}", modified[key], allowed)
  options = {
    "atrous": (config.atrous, True, ("mobilenet", "resnet")),
    "depth_multiplier": (factor, 1.0, ("mobilenet",)),
    "multi_grid": (multi_grid, (1, 1, 1), ("resnet", "xception")),
    "remat": (config.remat, False, ("xception",)),
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


def _head(
  config: ml_collections.ConfigDict,
  output_stride: int,
  *,
  backbone: nn.Module,
  num_classes: int,
  row: conventions.Conventions,
  norm: layers.Norm,
  inits: dict[str, Any],
  dtype: Any,
) -> nn.Module:
  """Return the head, refusing what it has no use for."""
  dropout = row.dropout
  if config.dropout is not None:
    dropout = _fraction("model.dropout", config.dropout)
  common: dict[str, Any] = dict(norm=norm, dropout=dropout, dtype=dtype)
  if config.head not in ATROUS_HEADS and config.atrous_rates:
    raise ValueError(
      f"model.atrous_rates {tuple(config.atrous_rates)} are for the heads "
      f"{', '.join(ATROUS_HEADS)}; {config.head!r} has no atrous branch, set "
      "them to ()"
    )
  if config.head == "classifier":
    if _decoder_kind(config.decoder) != "none":
      raise ValueError(
        "model.head 'classifier' gives one answer for the whole image: set "
        "model.decoder.kind to 'none'"
      )
    if config.backbone == "vgg16":
      raise ValueError(
        "model.head 'classifier' averages the features; vgg16 classifies by "
        "fc6 and fc7: model.head 'large_fov' with model.fc6_kernel 7"
      )
    return heads.Classifier(**common)
  if config.head == "cascade":
    return _cascade(config, output_stride, backbone=backbone, common=common)
  if config.head in ("large_fov", "aspp_sum"):
    return _fully_connected(
      config, output_stride, num_classes=num_classes, row=row, common=common
    )
  common["channels"] = _positive("model.channels", config.channels)
  if config.head == "dpc":
    cell = _cell(config.cell)
    return dpc.DPC(
      cell=dpc.at_stride(cell, output_stride),
      separable=config.separable,
      norm_between=row.norm_between,
      **common,
      **inits,
    )
  common |= {
    "image_pooling": config.image_pooling,
    "pool_window": _pool_window(config.image_pooling_crop, output_stride),
    "pool_stride": _pair(
      "model.image_pooling_stride", config.image_pooling_stride
    ),
  }
  if config.head == "lraspp":
    return lraspp.LRASPP(conv_init=inits["conv_init"], **common)
  refine = "dense" if _decoder_kind(config.decoder) == "none" else "separable"
  return heads.ASPP(
    rates=_atrous_rates(config, output_stride, row.atrous_rates),
    pooling_first=row.pooling_first,
    separable=config.separable,
    norm_between=row.norm_between,
    refine=refine if row.refine else None,
    **common,
    **inits,
  )


def _cascade(
  config: ml_collections.ConfigDict,
  output_stride: int,
  *,
  backbone: nn.Module,
  common: dict[str, Any],
) -> nn.Module:
  """Return v3's blocks after block4, which they are copies of."""
  if not isinstance(backbone, resnet.ResNet):
    raise ValueError(
      "model.head 'cascade' repeats a ResNet's last block; "
      f"{config.backbone} is none"
    )
  allowed = range(cascade.MOST_BLOCKS + 1)
  layers.check_one_of("model.cascade_blocks", config.cascade_blocks, allowed)
  own = common | {"norm": backbone.norm, "kernel_init": backbone.kernel_init}
  return cascade.Cascade(
    blocks=config.cascade_blocks,
    output_stride=output_stride,
    multi_grid=backbone.multi_grid,
    **own,
  )


def _cell(config: Iterable[Any]) -> dpc.Cell:
  """Return the dense prediction cell; a list would not hash."""
  cell = []
  for branch in config:
    try:
      source, (rows, columns) = branch
      _tuple("model.cell", (source, rows, columns))
    except (TypeError, ValueError):
      raise ValueError(
        f"model.cell: {branch} is not (what it reads, (rate of rows, rate of "
        "columns)), such as (-1, (1, 6))"
      ) from None
    cell.append((source, (rows, columns)))
  dpc.check(tuple(cell))
  return tuple(cell)


def _fully_connected(
  config: ml_collections.ConfigDict,
  output_stride: int,
  *,
  num_classes: int,
  row: conventions.Conventions,
  common: dict[str, Any],
) -> nn.Module:
  """Return v1's or v2's head."""
  kernel, channels = config.fc6_kernel, config.channels
  by_stride = large_fov.fc6_rates(kernel)
  common = common | {"kernel": kernel, "conv_init": row.conv_init}
  if config.head == "large_fov":
    rates = _atrous_rates(config, output_stride, by_stride)
    if len(rates) != 1:
      raise ValueError(
        f"model.atrous_rates {rates}: the head 'large_fov' has one rate; "
        "'aspp_sum' takes several"
      )
    channels = _positive("model.channels", channels)
    return large_fov.LargeFOV(rate=rates[0], channels=channels, **common)
  if _decoder_kind(config.decoder) != "none":
    raise ValueError(
      "model.head 'aspp_sum' gives the class scores: set model.decoder.kind to "
      "'none'"
    )
  rates = _atrous_rates(config, output_stride, large_fov.aspp_rates())
  if not rates or channels < 0:
    raise ValueError(
      f"model.atrous_rates {rates}, model.channels {channels}: the head "
      "'aspp_sum' needs a rate, and channels of 0 (no fc6 and fc7) or more"
    )
  return large_fov.ASPPSum(
    num_classes=num_classes,
    rates=rates,
    channels=channels,
    logits_init=row.logits_init,
    **common,
  )


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


def _pool_window(
  crop: Iterable[Any] | None, output_stride: int
) -> tuple[int, int] | None:
  """Return the size, in features, of a crop given in pixels."""
  if crop is None:
    return None
  size = _pair("model.image_pooling_crop", crop)
  return decoder_lib.scaled(size, output_stride)


def _atrous_rates(
  config: ml_collections.ConfigDict,
  output_stride: int,
  conventional: Mapping[int, tuple[int, ...]],
) -> tuple[int, ...]:
  """Return the head's rates at `output_stride`.

  Rates that are given, or else conventional, belong to the configured output
  stride and scale with it, so that they span the same pixels at any other.
  """
  if config.atrous_rates is None:
    if config.output_stride not in conventional:
      raise ValueError(
        f"model.atrous_rates None: no rates are published for output stride "
        f"{config.output_stride}, only for {sorted(conventional)}; give some"
      )
    given = conventional[config.output_stride]
  else:
    given = _tuple("model.atrous_rates", config.atrous_rates)
  rates = []
  for rate in given:
    rate, rest = divmod(
      _positive("model.atrous_rates", rate) * config.output_stride,
      output_stride,
    )
    if rest or not rate:
      raise ValueError(
        f"model.atrous_rates {given} at output stride {config.output_stride} "
        f"are not whole at {output_stride}; use None, which follows the output "
        "stride, or rates that divide"
      )
    rates.append(rate)
  return tuple(rates)


def _decoder_kind(config: ml_collections.ConfigDict | None) -> str:
  """Return the decoder's kind; the configuration None means "none"."""
  kind = "none" if config is None else config.kind
  kinds = ("none", "branches", *decoder_lib.KINDS)
  layers.check_one_of("model.decoder.kind", kind, kinds)
  return kind


def _decoder(
  config: ml_collections.ConfigDict | None,
  *,
  scores: int | None,
  **settings: Any,
) -> nn.Module | None:
  """Return the decoder, or None for kind "none".

  With `scores`, a number of classes, it is LR-ASPP's: of the configuration
  only `features` and `output_stride` count.
  """
  kind = _decoder_kind(config)
  if config is None or kind == "none":
    return None
  if kind == "branches":
    return large_fov.Branches(
      channels=_positive("model.decoder.channels", config.channels),
      conv_init=settings["conv_init"],
      dtype=settings["dtype"],
    )
  layers.check_one_of("model.decoder.kernel", config.kernel, (1, 3))
  finest = config.output_stride
  layers.check_one_of("model.decoder.output_stride", finest, DECODER_STRIDES)
  strides = _tuple("model.decoder.features", config.features)
  descending = sorted(set(strides), reverse=True)
  if not strides or list(strides) != descending or finest > strides[-1]:
    raise ValueError(
      f"model.decoder.features {strides} are not strides from coarse to fine "
      f"down to decoder.output_stride {finest}, such as (4,) or (8, 4)"
    )
  for stride in strides:
    layers.check_one_of("model.decoder.features", stride, LOW_LEVEL_STRIDES)
  numbers = {
    key: _positive(f"model.decoder.{key}", config[key])
    for key in ("low_level_channels", "convs", "channels")
  }
  if scores is not None:
    numbers |= {"convs": 1, "num_classes": scores}
  return decoder_lib.Decoder(
    kind=config.kind,
    kernel=config.kernel,
    separable=config.separable,
    features=strides,
    output_stride=finest,
    **numbers,
    **settings,
  )


def _positive(name: str, value: int) -> int:
  if value < 1:
    raise ValueError(f"{name} {value} is not 1 or more")
  return value


def _pair(name: str, value: Iterable[Any]) -> tuple[int, int]:
  """Return (rows, columns), both 1 or more."""
  pair = _tuple(name, value)
  if len(pair) != 2 or min(pair) < 1:
    raise ValueError(f"{name} {pair} is not two numbers of 1 or more")
  return pair


def _fraction(name: str, value: float) -> float:
  if not 0 <= value < 1:
    raise ValueError(f"{name} {value} is not in [0, 1)")
  return value


def _tuple(name: str, value: Iterable[Any]) -> tuple[int, ...]:
  """Return whole numbers as a tuple; a list would not hash."""
  values = tuple(value)
  if not all(isinstance(v, int) for v in values):
    raise ValueError(f"{name} {values} are not whole numbers")
  return values
