"""A decoder of one's own: a gate lets fine features through where they help."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class MyDecoder(nn.Module):
  """Features at stride 4: the head's, and the backbone's behind a gate."""

  style: Any = None  # deeplax hands it over: convolution, norm and ReLU
  channels: int = 64

  @nn.compact
  def __call__(self, high, features, image_size, *, train):
    low = self.style.conv(self.channels, "reduce")(
      features["low4"], train=train
    )
    size = (*low.shape[:3], high.shape[-1])
    high = jax.image.resize(high, size, "bilinear")
    gate = nn.sigmoid(nn.Conv(1, (1, 1), name="gate")(high))
    merged = jnp.concatenate([high, gate * low], axis=-1)
    refine = self.style.conv(self.channels, "refine", kernel=3)
    return refine(merged, train=train)
