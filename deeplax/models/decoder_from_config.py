"""Build the decoder that `config.model.decoder` describes."""

from typing import Any

import flax.linen as nn
import ml_collections

from deeplax.models import config_values
from deeplax.models import conventions
from deeplax.models import decoder
from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models.heads import large_fov
from deeplax.settings import own

LOW_LEVEL_STRIDES = (2, 4, 8)
OUTPUT_STRIDES = (2, 4, 8)


def kind(config: ml_collections.ConfigDict | None) -> str:
  """Return the decoder's kind; the configuration None means "none"."""
  name = "none" if config is None else config.kind
  if own.is_own(name):
    return name
  kinds = ("none", "branches", *decoder.KINDS, own.FORM)
  layers.check_one_of("model.decoder.kind", name, kinds)
  return name


def build(
  config: ml_collections.ConfigDict | None,
  row: conventions.Conventions,
  style: style_lib.Style,
  *,
  num_classes: int | None,
) -> nn.Module | None:
  """Return the decoder; None for kind "none".

  Args:
    config: The `model.decoder` part of a configuration.
    num_classes: If given, the decoder is LR-ASPP's, which adds up class
      scores: of the configuration only `features` and `output_stride` matter.

  Raises:
    ValueError: Naming the key, the value and what is allowed.
  """
  if config is None or kind(config) == "none":
    return None
  if config.kind == "branches":
    width = config_values.positive("model.decoder.channels", config.channels)
    return large_fov.Branches(style=style, channels=width)
  layers.check_one_of("model.decoder.kernel", config.kernel, (1, 3))
  sizes: dict[str, Any] = {
    key: config_values.positive(f"model.decoder.{key}", config[key])
    for key in ("low_level_channels", "convs", "channels")
  }
  if num_classes is not None:
    sizes |= {"convs": 1, "num_classes": num_classes}
  return decoder.Decoder(
    kind=config.kind,
    kernel=config.kernel,
    separable=config.separable,
    features=_features(config),
    output_stride=config.output_stride,
    align_corners=row.align_corners,
    style=style,
    **sizes,
  )


def _features(config: ml_collections.ConfigDict) -> tuple[int, ...]:
  """Return the strides of the low-level features, coarse to fine."""
  finest = config.output_stride
  layers.check_one_of("model.decoder.output_stride", finest, OUTPUT_STRIDES)
  strides = config_values.as_tuple("model.decoder.features", config.features)
  descending = sorted(set(strides), reverse=True)
  if not strides or list(strides) != descending or finest > strides[-1]:
    raise ValueError(
      f"model.decoder.features {strides} are not strides from coarse to fine "
      f"down to decoder.output_stride {finest}, such as (4,) or (8, 4)"
    )
  for stride in strides:
    layers.check_one_of("model.decoder.features", stride, LOW_LEVEL_STRIDES)
  return strides
