"""Heads of DeepLab v1 (arXiv:1412.7062) and v2 (arXiv:1606.00915).

VGG-16's fully connected layers as convolutions: `fc6` reads a window of the
last features, `fc7` follows it 1x1, and the class scores (fc8) are the
network's `logits`. v2's ASPP adds up several such branches (section 3.2).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.ops import pooling
from deeplax.ops import resize

# Sides of fc6's kernel (v2, table 1).
KERNELS = (7, 4, 3)
# ASPP-L (v2, section 4.1.2); ASPP-S is (2, 4, 8, 12).
ASPP_L = (6, 12, 18, 24)
# Features from the first to the last tap of fc6 at output stride 8: 7x7 at rate
# 4, 4x4 at 8, 3x3 at 12. VGG-16's own 7x7 at stride 32 spans the same pixels.
SPAN = 24
# Side of the windows averaged before fc6, see `LargeFOV`.
POOL5A = 3


def fc6_rates(kernel: int) -> dict[int, tuple[int, ...]]:
  """Return the rate of fc6 by output stride, for a field of view of 224.

  Raises:
    ValueError: On a kernel the papers do not have.
  """
  layers.check_one_of("model.fc6_kernel", kernel, KERNELS)
  return {
    stride: (SPAN * 8 // stride // (kernel - 1),) for stride in (8, 16, 32)
  }


def aspp_rates() -> dict[int, tuple[int, ...]]:
  """Return ASPP-L's rates by output stride; at 32 they are not whole."""
  return {
    stride: tuple(rate * 8 // stride for rate in ASPP_L)
    for stride in (4, 8, 16)
  }


class LargeFOV(nn.Module):
  """fc6 and fc7, each with ReLU and dropout.

  The released LargeFOV and MSc-LargeFOV average pool5 before fc6 (`pool5a` of
  their train.prototxt: AVE, 3x3, stride 1, pad 1; so do the ports of DrSleep,
  wangleihitcs and CoinCheung). No paper mentions it. The released network with
  4x4 and v2's with ASPP go from pool5 to fc6; no file with 7x7 is known.

  Attributes:
    style: Settings of the convolutions; they have a bias instead of its norm.
    pool5a: Whether pool5 is averaged before fc6.
    kernel: Side of fc6's window.
    rate: Atrous rate of fc6.
    channels: Width of fc6 and fc7.
    dropout: Rate after each of the two, in training.
  """

  style: style_lib.Style
  pool5a: bool = False
  kernel: int = 3
  rate: int = 12
  channels: int = 1024
  dropout: float = 0.5

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    x = pooling.average_pool(high, POOL5A) if self.pool5a else high
    for name, kernel, rate in (("fc6", self.kernel, self.rate), ("fc7", 1, 1)):
      x = self.style.biased(
        self.channels, kernel=kernel, rate=rate, activation="relu", name=name
      )(x, train=train)
      x = self.style.dropout(self.dropout, f"{name}_dropout")(x, train=train)
    return x


class ASPPSum(nn.Module):
  """v2's ASPP: the class scores of several branches, added up.

  A branch is fc6, fc7 and scores on VGG-16 (`branch0/fc6`, ..., `logits0`), and
  one 3x3 convolution from features to scores on ResNet (`logits0`, ...).

  Attributes:
    style: Settings of the convolutions; they have a bias instead of its norm.
    num_classes: Background included.
    rates: Atrous rate of each branch.
    kernel: Side of the dilated window.
    channels: Width of fc6 and fc7; 0: a branch has neither.
    dropout: Rate after each of the two, in training.
  """

  style: style_lib.Style
  num_classes: int
  rates: tuple[int, ...] = ASPP_L
  kernel: int = 3
  channels: int = 1024
  dropout: float = 0.5

  @nn.compact
  def __call__(
    self, high: Float[Array, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    scores = []
    for place, rate in enumerate(self.rates):
      x, kernel = high, self.kernel
      if self.channels:
        x = LargeFOV(
          style=self.style,
          kernel=self.kernel,
          rate=rate,
          channels=self.channels,
          dropout=self.dropout,
          name=f"branch{place}",
        )(x, train=train)
        kernel, rate = 1, 1
      logits = layers.ConvNorm(
        self.num_classes,
        kernel=kernel,
        rate=rate,
        use_bias=True,
        kernel_init=self.style.logits_init,
        name=f"logits{place}",
      )
      scores.append(logits(x, train=train))
    return sum(scores[1:], start=scores[0])


class Branches(nn.Module):
  """v1's multi-scale branches (MSc, section 4.3): finer features to the head's.

  The image and the output of each of the first four poolings go through a 3x3
  and a 1x1 convolution; all five are joined to the head's features. The paper
  does not say how they are brought to one size. Here the 3x3 convolution has
  the stride between the two, and a map that is still a pixel off is resized.

  Attributes:
    style: Settings of the convolutions; they have a bias instead of its norm.
    channels: Width of each convolution.
  """

  style: style_lib.Style
  channels: int = 128

  @nn.compact
  def __call__(
    self,
    high: Float[Array, "b h w c"],
    features: Mapping[str, jax.Array],
    image_size: tuple[int, int],
    *,
    train: bool,
  ) -> Float[Array, "b h w k"]:
    del image_size
    size = high.shape[1], high.shape[2]
    # The longer side tells the stride between two maps best.
    axis = 1 if size[0] > size[1] else 2
    parts = [high]
    for name in ("image", "pool1", "pool2", "pool3", "pool4"):
      if name not in features:
        raise ValueError(
          f"model.decoder.kind 'branches' reads {name}, which this backbone "
          f"does not give; its features are {sorted(features)}"
        )
      x = features[name]
      stride = max(round((x.shape[axis] - 1) / max(size[axis - 1] - 1, 1)), 1)
      for layer, kernel, step in (("conv1", 3, stride), ("conv2", 1, 1)):
        x = self.style.biased(
          self.channels,
          kernel=kernel,
          stride=step,
          padding="symmetric",
          activation="relu",
          name=f"{name}_{layer}",
        )(x, train=train)
      parts.append(resize.resize_bilinear(x, size))
    return jnp.concatenate(parts, axis=-1)
