"""Layers that several heads and the decoder share."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from deeplax.models import layers
from deeplax.ops import padding
from deeplax.ops import true_size


def convolution(
  features: int,
  *,
  kernel: int,
  rate: padding.Rate = 1,
  separable: bool,
  norm_between: bool = True,
  norm: layers.Norm,
  conv_init: layers.Init,
  depthwise_init: layers.Init,
  pointwise_init: layers.Init,
  dtype: DTypeLike,
  name: str,
) -> layers.ConvNorm | layers.SeparableConv:
  """Return a convolution of head or decoder, ReLU after every norm.

  A separable one also has a norm and a ReLU between its halves (utils.py
  `split_separable_conv2d`), unlike the backbone's, unless `norm_between` is
  False.
  """
  common = {
    "features": features,
    "kernel": kernel,
    "rate": rate,
    "norm": norm,
    "activation": "relu",
    "dtype": dtype,
    "name": name,
  }
  if not separable:
    return layers.ConvNorm(kernel_init=conv_init, **common)
  return layers.SeparableConv(
    norm_between=norm_between,
    activation_between="relu" if norm_between else None,
    depthwise_init=depthwise_init,
    pointwise_init=pointwise_init,
    **common,
  )


def average_pool(
  x: Float[Array, "b h w c"],
  window: tuple[int, int] | None,
  stride: tuple[int, int] = (1, 1),
) -> Float[Array, "b H W c"]:
  """Return float32 means over windows of the map, cut to it; None: over all."""
  size = x.shape[1], x.shape[2]
  if window is None:
    window = size
  window = min(window[0], size[0]), min(window[1], size[1])
  if window == size:
    return true_size.mean(x)
  if true_size.sides(size) is not None:
    raise ValueError(
      f"image pooling over windows of {window[0]}x{window[1]} has no exact "
      f"form on a map of {size[0]}x{size[1]}: use reference sizes"
    )
  # In float32: thousands of bfloat16 summands lose the mean.
  return nn.avg_pool(x.astype(jnp.float32), window, stride, "VALID")
