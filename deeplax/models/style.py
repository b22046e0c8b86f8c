"""What the convolutions of one part of a network have in common."""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from deeplax.models import dropout as dropout_lib
from deeplax.models import layers
from deeplax.ops import padding


class Style(NamedTuple):
  """The settings of all convolutions in head and decoder.

  The defaults are those of tensorflow/models research/deeplab.

  Attributes:
    norm: Settings of the norm behind each convolution; a ReLU follows it.
    norm_between: Whether a separable convolution has a norm and a ReLU between
      its halves as well (utils.py `split_separable_conv2d`).
    conv_init: How dense kernels are drawn.
    depthwise_init: How depthwise kernels are drawn.
    pointwise_init: How the 1x1 kernels of separable convolutions are drawn.
    logits_init: How the kernels that give class scores are drawn.
    dtype: Compute dtype; class scores are float32.
  """

  norm: layers.Norm
  norm_between: bool = True
  conv_init: layers.Init = layers.Init("xavier_uniform")
  depthwise_init: layers.Init = layers.Init("truncated_normal", 0.33)
  pointwise_init: layers.Init = layers.Init("truncated_normal", 0.06)
  logits_init: layers.Init = layers.Init("truncated_normal", 0.01)
  dtype: DTypeLike = jnp.float32

  def conv(
    self,
    features: int,
    name: str,
    *,
    kernel: int = 1,
    rate: padding.Rate = 1,
    separable: bool = False,
  ) -> layers.ConvNorm | layers.SeparableConv:
    """Return a convolution with a norm and a ReLU."""
    settings: dict[str, Any] = {
      "features": features,
      "kernel": kernel,
      "rate": rate,
      "norm": self.norm,
      "activation": "relu",
      "dtype": self.dtype,
      "name": name,
    }
    if not separable:
      return layers.ConvNorm(kernel_init=self.conv_init, **settings)
    return layers.SeparableConv(
      norm_between=self.norm_between,
      activation_between="relu" if self.norm_between else None,
      depthwise_init=self.depthwise_init,
      pointwise_init=self.pointwise_init,
      **settings,
    )

  @property
  def biased(self) -> partial[layers.ConvNorm]:
    """Return a maker of convolutions that have a bias instead of the norm."""
    return partial(
      layers.ConvNorm,
      use_bias=True,
      kernel_init=self.conv_init,
      dtype=self.dtype,
    )

  def dropout(self, rate: float, name: str = "dropout") -> dropout_lib.Dropout:
    return dropout_lib.Dropout(rate, self.norm.axis_name, name=name)


def of_backbone(module: Any) -> dict[str, Any]:
  """Return the fields that a backbone hands to its units and convolutions."""
  return {key: getattr(module, key) for key in ("norm", "kernel_init", "dtype")}
