"""Networks by the keys of `config.model`: any, and those quick to run.

Tracing a network takes as long as it has layers, compiling it as it has
channels, so tests of values want few of both. `small` has few channels;
`shorten` leaves of every backbone a block for each stride and one after it.
"""

from collections.abc import Iterator
import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import resnet
from deeplax.models.backbones import vgg
from deeplax.models.backbones import xception
from deeplax.ops import backend
from deeplax.settings import defaults

# No array depends on the size of the image: traced with this one, a network is
# traced once for all tests of a session.
SIZE = cost.TRACE_SIZE
# The mark of what `make test-all` runs in addition.
SLOW = pytest.mark.slow
# What the fields of a network do not tell, since `shorten` changes it.
TABLES = (
  (mobilenet_v2, "BLOCKS"),
  (resnet, "DEPTHS"),
  (resnet, "WIDTHS"),
  (vgg, "BLOCKS"),
  (xception, "DEPTHS"),
)


def config(**settings) -> Any:
  """Return `config.model` with these keys; `a__b` is `a.b`."""
  c = defaults.base().model
  c.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in settings.items()}
  )
  return c


def network(num_classes=21, **settings) -> nn.Module:
  return build.from_config(config(**settings), num_classes=num_classes)


def small(**settings) -> nn.Module:
  """Return MobileNetV2 with v3+'s head and decoder, of about 8 channels."""
  return network(**{**SMALL, **settings})


SMALL = {
  "backbone": "mobilenet_v2",
  "depth_multiplier": 0.1,
  "channels": 8,
  "decoder__channels": 8,
}


def tables() -> str:
  """Return the tables that layers are made from, as a key."""
  return repr([getattr(module, name) for module, name in TABLES])


@contextlib.contextmanager
def shorten() -> Iterator[None]:
  """Leave few layers (`few_layers`), of forms that are quick to compile."""
  with few_layers(), backend.chosen(depthwise="library", dense="library"):
    yield


@contextlib.contextmanager
def few_layers() -> Iterator[None]:
  """Leave few layers of every backbone but MobileNetV3.

  Every stride and rate, the features for decoders and the residual sums stay.
  Widths shrink as well, but for MobileNetV2's, which have a key.
  """
  with pytest.MonkeyPatch.context() as patch:
    blocks = tuple(mobilenet_v2.BLOCKS[i] for i in (0, 1, 2, 3, 6, 10, 13, 16))
    low_level = {"expanded_conv_2": "low4", "expanded_conv_3": "low8"}
    patch.setattr(mobilenet_v2, "BLOCKS", blocks)
    patch.setattr(mobilenet_v2, "LOW_LEVEL", low_level)
    patch.setattr(mobilenet_v2, "MIDDLE", "expanded_conv_5")
    for depth in resnet.DEPTHS:
      patch.setitem(resnet.DEPTHS, depth, (3, 4, 1, 3))
    patch.setattr(resnet, "WIDTHS", (4, 4, 4, 4))
    for depth, full in xception.DEPTHS.items():
      narrow = tuple(b._replace(widths=(8, 8, 8)) for b in full.blocks)
      variant = full._replace(blocks=narrow, middle=2)
      patch.setitem(xception.DEPTHS, depth, variant)
    patch.setattr(vgg, "BLOCKS", tuple((4, n) for _, n in vgg.BLOCKS))
    yield


def drawn(model: nn.Module, seed: int = 0) -> dict[str, Any]:
  """Return variables at random: every norm, mean and variance its own value.

  Args:
    model: A whole network, or a backbone alone.
    seed: Of the values.
  """
  if hasattr(model, "coarse"):
    shapes = cost.trace(model, SIZE)[0]
  else:
    shapes = jax.eval_shape(
      lambda x: model.init(jax.random.key(0), x, train=False),
      jax.ShapeDtypeStruct((1, *SIZE, 3), np.float32),
    )
  return filled(shapes, seed)


def filled(shapes: Any, seed: int = 0) -> Any:
  """Return values for arrays of these shapes, as `drawn` has them."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    if path[-1].key in ("scale", "var"):
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    fan_in = np.prod(leaf.shape[-4:-1]) if leaf.ndim >= 4 else 100
    return rng.normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


class Tiny(nn.Module):
  """A backbone of two strided convolutions, for tests of what follows it."""

  norm: layers.Norm = layers.Norm(decay=0.9, eps=1e-5)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x, *, train):
    settings: Any = {
      "features": 8, "kernel": 3, "stride": 4, "activation": "relu",
      "norm": self.norm, "dtype": self.dtype,
    }  # fmt: skip
    low = layers.ConvNorm(**settings, name="conv1")(x, train=train)
    high = layers.ConvNorm(**settings, name="conv2")(low, train=train)
    return {"low4": low, "middle": low, "high": high}
