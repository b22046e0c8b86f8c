"""The networks' activations by name."""

import math

import flax.linen as nn
from jaxtyping import Array, Float

from deeplax.arrays import Arrays


def hard_sigmoid(x: Float[Arrays, "*n"]) -> Float[Array, "*n"]:
  """Return a piecewise linear sigmoid, with slim's constant in place of 1/6."""
  return nn.relu6(x + 3) * 0.16667


def exact_hard_sigmoid(x: Float[Arrays, "*n"]) -> Float[Array, "*n"]:
  """Return the same with 1/6 (torchvision): the gap shows after some layers."""
  return nn.relu6(x + 3) * (1 / 6)


def hard_swish(x: Float[Arrays, "*n"]) -> Float[Array, "*n"]:
  """Return a piecewise swish (MobileNetV3, arXiv:1905.02244, section 5.2)."""
  return nn.relu6(x + 3) * x * (1 / 6)


BY_NAME = {
  None: lambda x: x,
  "relu": nn.relu,
  "relu6": nn.relu6,
  "hard_sigmoid": hard_sigmoid,
  "exact_hard_sigmoid": exact_hard_sigmoid,
  "hard_swish": hard_swish,
}
# Bounds of the activations that a norm applies itself.
LIMITS: dict[str | None, float] = {"relu": math.inf, "relu6": 6.0}
