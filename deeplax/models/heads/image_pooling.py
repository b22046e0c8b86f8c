"""The averages that heads pool images by."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.ops import true_size


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
