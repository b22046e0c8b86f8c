"""Build the head that `config.model` describes, at a given output stride."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import ml_collections

from deeplax.models import config_values
from deeplax.models import conventions
from deeplax.models import decoder
from deeplax.models import decoder_from_config
from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models.backbones import resnet
from deeplax.models.heads import aspp
from deeplax.models.heads import cascade
from deeplax.models.heads import classifier
from deeplax.models.heads import dpc
from deeplax.models.heads import large_fov
from deeplax.models.heads import lraspp

HEADS = (
  *("aspp", "aspp_sum", "cascade", "classifier", "dpc"),
  *("large_fov", "lraspp"),
)
ATROUS_HEADS = ("aspp", "aspp_sum", "large_fov")


def build(
  config: ml_collections.ConfigDict,
  row: conventions.Conventions,
  output_stride: int,
  style: style_lib.Style,
  *,
  backbone: nn.Module,
  num_classes: int,
) -> nn.Module:
  """Return the head that `config.model` describes.

  Args:
    config: The `model` part of a configuration.
    output_stride: Of the features that the head reads.
    backbone: The network that gives these features.
    num_classes: Background included.

  Raises:
    ValueError: On a setting that the head cannot take.
  """
  refuse_unread(config)
  dropout = row.dropout
  if config.dropout is not None:
    dropout = config_values.fraction("model.dropout", config.dropout)
  common = {"dropout": dropout, "style": style}
  if config.head == "classifier":
    return _classifier(config, common)
  if config.head == "cascade":
    return _cascade(config, output_stride, common, backbone=backbone)
  if config.head in ("large_fov", "aspp_sum"):
    return _fully_connected(
      config, output_stride, common, num_classes=num_classes
    )
  common["channels"] = config_values.positive("model.channels", config.channels)
  if config.head == "dpc":
    cell = dpc.at_stride(_cell(config.cell), output_stride)
    return dpc.DPC(cell=cell, separable=config.separable, **common)
  common |= {
    "image_pooling": config.image_pooling,
    "pool_window": _pool_window(config.image_pooling_crop, output_stride),
    "pool_stride": config_values.height_width(
      "model.image_pooling_stride", config.image_pooling_stride
    ),
  }
  if config.head == "lraspp":
    return lraspp.LRASPP(**common)
  refine = "dense" if _last(config) else "separable"
  return aspp.ASPP(
    rates=_atrous_rates(config, output_stride, row.atrous_rates),
    pooling_first=row.pooling_first,
    separable=config.separable,
    refine=refine if row.refine else None,
    **common,
  )


def refuse_unread(config: ml_collections.ConfigDict) -> None:
  """Refuse settings of other heads.

  Raises:
    ValueError: Naming the key and the heads that take it.
  """
  if config.head not in ATROUS_HEADS and config.atrous_rates:
    raise ValueError(
      f"model.atrous_rates {tuple(config.atrous_rates)} are for the heads "
      f"{', '.join(ATROUS_HEADS)}; {config.head!r} has no atrous branch, set "
      "them to ()"
    )
  if config.pool5a and config.head != "large_fov":
    raise ValueError(
      "model.pool5a averages what fc6 of model.head 'large_fov' reads; "
      f"{config.head!r} has none: set it to False"
    )


def _last(config: ml_collections.ConfigDict) -> bool:
  """Whether no decoder follows the head."""
  return decoder_from_config.kind(config.decoder) == "none"


def _classifier(
  config: ml_collections.ConfigDict, common: dict[str, Any]
) -> nn.Module:
  if not _last(config):
    raise ValueError(
      "model.head 'classifier' gives one answer for the whole image: set "
      "model.decoder.kind to 'none'"
    )
  if config.backbone == "vgg16":
    raise ValueError(
      "model.head 'classifier' averages the features; vgg16 classifies by "
      "fc6 and fc7: model.head 'large_fov' with model.fc6_kernel 7"
    )
  return classifier.Classifier(**common)


def _cascade(
  config: ml_collections.ConfigDict,
  output_stride: int,
  common: dict[str, Any],
  *,
  backbone: nn.Module,
) -> nn.Module:
  """Return v3's blocks after block4, of which they are copies."""
  if not isinstance(backbone, resnet.ResNet):
    raise ValueError(
      "model.head 'cascade' repeats a ResNet's last block; "
      f"{config.backbone} is none"
    )
  allowed = range(cascade.MOST_BLOCKS + 1)
  layers.check_one_of("model.cascade_blocks", config.cascade_blocks, allowed)
  common["style"] = common["style"]._replace(
    norm=backbone.norm, conv_init=backbone.kernel_init
  )
  return cascade.Cascade(
    blocks=config.cascade_blocks,
    output_stride=output_stride,
    multi_grid=backbone.multi_grid,
    **common,
  )


def _cell(config: Iterable[Any]) -> dpc.Cell:
  """Return the dense prediction cell; a list would not hash."""
  cell = []
  for branch in config:
    try:
      source, (rows, columns) = branch
      config_values.as_tuple("model.cell", (source, rows, columns))
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
  common: dict[str, Any],
  *,
  num_classes: int,
) -> nn.Module:
  """Return v1's or v2's head."""
  kernel, channels = config.fc6_kernel, config.channels
  by_stride = large_fov.fc6_rates(kernel)
  common["kernel"] = kernel
  if config.head == "large_fov":
    rates = _atrous_rates(config, output_stride, by_stride)
    if len(rates) != 1:
      raise ValueError(
        f"model.atrous_rates {rates}: the head 'large_fov' has one rate; "
        "'aspp_sum' takes several"
      )
    channels = config_values.positive("model.channels", channels)
    return large_fov.LargeFOV(
      rate=rates[0], channels=channels, pool5a=config.pool5a, **common
    )
  if not _last(config):
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
    **common,
  )


def _pool_window(
  crop: Iterable[Any] | None, output_stride: int
) -> tuple[int, int] | None:
  """Return the size, in features, of a crop given in pixels."""
  if crop is None:
    return None
  size = config_values.height_width("model.image_pooling_crop", crop)
  return decoder.scaled(size, output_stride)


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
    rates = conventional[config.output_stride]
  else:
    rates = config_values.as_tuple("model.atrous_rates", config.atrous_rates)
  scaled = []
  for rate in rates:
    rate, rest = divmod(
      config_values.positive("model.atrous_rates", rate) * config.output_stride,
      output_stride,
    )
    if rest or not rate:
      raise ValueError(
        f"model.atrous_rates {rates} at output stride {config.output_stride} "
        f"are not whole at {output_stride}; use None, which follows the output "
        "stride, or rates that divide"
      )
    scaled.append(rate)
  return tuple(scaled)
