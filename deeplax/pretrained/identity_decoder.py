"""A new decoder that starts by passing the head's features through.

A published network without a decoder then keeps its logits: it starts as good
as it was, and the decoder learns to use low-level features. The idea is
Net2DeeperNet's (arXiv:1511.05641, section 2.3): a new layer starts as the
identity.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from deeplax import errors
from deeplax.models import cost
from deeplax.models import variables as variables_lib
from deeplax.pretrained import norms

DECODER = "decoder"


def decoder(
  model: nn.Module, variables: Mapping[str, Any]
) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
  """Return `variables` with an identity decoder, and the modules set in it.

  The convolutions start as the identity on the running features, which have
  passed a ReLU, and ignore the low-level ones; their norms do nothing. The
  low-level projections stay as drawn.

  Args:
    model: The network of the variables.
    variables: {"params", "batch_stats"}.

  Raises:
    InputError: The network has no decoder, or one that adds instead of
      concatenating or is not as wide as the head.
  """
  settings = getattr(model, DECODER, None)
  kind = "none" if settings is None else getattr(settings, "kind", "your own")
  if settings is None or kind != "concat":
    raise errors.InputError(
      f"--transparent_decoder: model.decoder.kind has to be concat, not {kind}"
    )
  flat = variables_lib.flat_arrays(variables)
  modules = []
  for conv in cost.trace(model, cost.TRACE_SIZE)[1]:
    place = conv.path
    if place[0] != DECODER or place[1].startswith("feature_projection"):
      continue
    depthwise = conv.module.depthwise
    leaf = "depthwise_kernel" if depthwise else "kernel"
    kernel = np.zeros(conv.shape, np.float32)
    height, width, incoming, outgoing = conv.shape
    if depthwise:
      kernel[height // 2, width // 2] = 1
    else:
      _check_width(flat, outgoing)
      through = np.arange(min(incoming, outgoing))
      kernel[height // 2, width // 2, through, through] = 1
    flat["params", *place, leaf] = kernel
    eps = conv.module.norm.eps if conv.module.norm else 0.0
    neutral = norms.neutral(eps)
    for leaf, path in norms.paths(place).items():
      flat[path] = np.full(outgoing, neutral[leaf], np.float32)
    modules.append(place)
  return flax.traverse_util.unflatten_dict(flat), modules


def _check_width(flat: Mapping[Any, np.ndarray], channels: int) -> None:
  """Refuse a decoder that is not as wide as the head."""
  width = flat["params", "head", "projection", "kernel"].shape[-1]
  if width != channels:
    raise errors.InputError(
      f"--transparent_decoder: the head gives {width} channels and "
      f"model.decoder.channels is {channels}; make them equal"
    )
