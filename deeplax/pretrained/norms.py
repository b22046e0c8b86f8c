"""The arrays of a norm: their paths, and values that change nothing."""

import math

import flax.linen as nn

from deeplax.models import cost
from deeplax.models import layers

LEAVES = ("scale", "offset", "mean", "var")
STATISTICS = ("mean", "var")  # the leaves that are not trained


def paths(module: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
  """Return the path of each leaf of a module's norm, the collection first."""
  return {
    leaf: ("batch_stats" if leaf in STATISTICS else "params", *module, leaf)
    for leaf in LEAVES
  }


def neutral(eps: float) -> dict[str, float]:
  """Return the value of each leaf of a norm that changes nothing."""
  return {"scale": math.sqrt(1 + eps), "offset": 0, "mean": 0, "var": 1}


def normed(model: nn.Module) -> list[tuple[cost.Convolution, layers.Norm]]:
  """Return the convolutions that a norm follows, each with its settings."""
  convolutions = cost.trace(model, cost.TRACE_SIZE)[1]
  return [(c, c.module.norm) for c in convolutions if c.module.norm is not None]
