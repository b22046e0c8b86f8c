"""VGG-16's fully connected layers, reduced as v1 and v2 start from them.

The rule (v1, section 3.1, says only that fc6 is subsampled in space, and
section 4.4 that fc6 and fc7 keep 1,024 of 4,096 filters):

- in space, fc6's 7x7 taps are taken evenly from border to border: 0, 2, 4, 6
  for 4x4 and 0, 3, 6 for 3x3. At output stride 8 with rates 8 and 12 they lie
  on the pixels that the 7x7 window has them on;
- of 4,096 channels each n-th is kept, 0, 4, 8, ... for 1,024: outputs of fc6,
  inputs and outputs of fc7. Each branch of v2's ASPP takes the same;
- values stay as they are. Sums of fewer terms are smaller, and training starts
  from that.
"""

import math
from typing import Any

import numpy as np

from deeplax.models.backbones import vgg
from deeplax.models.heads import large_fov
from deeplax.pretrained import rules

_UNREDUCED = (7, 4096)  # kernel and channels of VGG-16
# The class scores of v1 and v2, which no ImageNet file has.
SCORES = ("logits", r"head/logits\d+")


def channel_places(channels: int, kept: int) -> np.ndarray:
  """Return the places of `kept` channels, evenly from the first one."""
  return np.arange(kept) * channels // kept


def tap_places(side: int, kept: int) -> np.ndarray:
  """Return the places of `kept` taps, evenly from end to end."""
  return np.arange(kept) * (side - 1) // max(kept - 1, 1)


def is_unreduced(head: Any) -> bool:
  """Return whether a head has VGG-16's own sizes, so that fc8 fits too."""
  sizes = getattr(head, "kernel", 0), getattr(head, "channels", 0)
  return isinstance(head, large_fov.LargeFOV) and sizes == _UNREDUCED


def layers(head: Any, *, fc6: str, fc7: str, flat: bool) -> list[rules.Layer]:
  """Return the rules of fc6 and fc7 for a head of v1 or v2, else none.

  Args:
    head: Head of the network.
    fc6: Name of fc6 in the source.
    fc7: Name of fc7 in the source.
    flat: Whether the source's layers are matrices [outputs, inputs].
  """
  if not isinstance(head, large_fov.LargeFOV | large_fov.ASPPSum):
    return []
  if not head.channels:
    return []
  first = _fc6(head.kernel, head.channels, flat=flat)
  second = _fc7(head.channels, flat=flat)
  bias = _bias(head.channels)
  rows = []
  for scope in ("head", "head/{branch}"):
    rows += [
      rules.Layer(f"{scope}/fc6", fc6, kernel=first, bias=bias),
      rules.Layer(f"{scope}/fc7", fc7, kernel=second, bias=bias),
    ]
  return rows


def _fc6(kernel: int, channels: int, *, flat: bool) -> rules.Transform:
  def load(x: np.ndarray) -> np.ndarray:
    if x.ndim == 2 or x.shape[2:] == (1, 1):
      # A matrix, or what Caffe makes of one: inputs by channel, row, column.
      width = vgg.BLOCKS[-1][0]
      side = math.isqrt(x[0].size // width)
      if x[0].size != width * side**2:
        return x  # of another network: refused for its shape, as below
      x = x.reshape(len(x), width, side, side)
    side = min(x.shape[2:])
    if side < kernel or len(x) < channels:
      return x
    x = x[channel_places(len(x), channels)]
    x = x[:, :, tap_places(side, kernel)][:, :, :, tap_places(side, kernel)]
    return x.transpose(2, 3, 1, 0)

  def save(x: np.ndarray) -> np.ndarray:
    x = x.transpose(3, 2, 0, 1)
    return x.reshape(len(x), -1) if flat else x

  return rules.Transform(load, save)


def _fc7(channels: int, *, flat: bool) -> rules.Transform:
  def load(x: np.ndarray) -> np.ndarray:
    if min(len(x), x[0].size) < channels:
      return x
    x = x.reshape(len(x), -1)
    x = x[channel_places(len(x), channels)][
      :, channel_places(x.shape[1], channels)
    ]
    return x.T[None, None]

  def save(x: np.ndarray) -> np.ndarray:
    return x[0, 0].T if flat else x.transpose(3, 2, 0, 1)

  return rules.Transform(load, save)


def _bias(channels: int) -> rules.Transform:
  def load(x: np.ndarray) -> np.ndarray:
    return x if len(x) < channels else x[channel_places(len(x), channels)]

  return rules.Transform(load, lambda x: x)
