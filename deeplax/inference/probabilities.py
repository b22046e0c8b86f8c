"""Class probabilities of images at several scales and mirrored.

Multi-scale prediction follows the reference's predict_labels_multi_scale
(tensorflow/models research/deeplab model.py) without its second softmax.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped
import numpy as np

from deeplax.inference import mode as mode_lib
from deeplax.ops import resize
from deeplax.ops import true_size

Numbers = Sequence[float | int]
Images = Shaped[Array | np.ndarray, "b h w c"]


def predict_probabilities(
  model: nn.Module,
  variables: Any,
  images: Images,
  scales: Numbers = (1.0,),
  flip: bool = False,
) -> Float[Array, "b h w k"]:
  """Return class probabilities: the mean of the softmax over scales and flips.

  Args:
    model: With a `coarse` method (logits before any resize).
    variables: Of `model`.
    images: Not normalized: RGB of 0..255 or the model's own bands.
    scales: Factors the images are resized by. At (1.0,) this is the papers'
      single-scale prediction; a flip at one scale is averaged too, where the
      reference leaves it out.
    flip: Average with the left-right mirrored images.
  """
  mode = mode_lib.Mode(tuple(scales), flip)
  # One batch, so that the program has the network once for each scale.
  images = jnp.concatenate([jnp.asarray(images)] * (1 + flip))
  mirrored = jnp.repeat(
    jnp.arange(1 + flip) == 1, images.shape[0] // (1 + flip)
  )
  parts = [
    jax.nn.softmax(
      logits_at_size(model, variables, images, mirrored, scale=scale)
    )
    for scale in sorted(mode.scales)
  ]
  # Plain views first, in the order of `averaging`.
  halves = [jnp.split(part, 1 + flip) for part in parts]
  views = [half[m] for m in range(1 + flip) for half in halves]
  return sum(views[1:], start=views[0]) / len(views)


def logits_at_size(
  model: nn.Module,
  variables: Any,
  images: Images,
  mirrored: Bool[Array, " b"],
  true: Integer[Array, "2 2"] | None = None,
  *,
  scale: float,
) -> Float[Array, "b h w k"]:
  """Return logits at the images' size, of mirrored ones mirrored back.

  Args:
    model: See `predict_probabilities`.
    variables: See `predict_probabilities`.
    images: See `predict_probabilities`.
    mirrored: Which images the network sees mirrored.
    true: (height, width) of the images without padding, then of the scaled
      ones; None: there is no padding, or the network sees it.
    scale: Factor the images are resized by.
  """
  size = images.shape[1], images.shape[2]
  at_scale = size if scale == 1.0 else scaled_size(size, scale)
  extent = None if true is None else true_size.Extent(size, true[0])
  scaled_extent = None if true is None else true_size.Extent(at_scale, true[1])
  # Where a network does not say, corners are aligned as in the reference.
  align_corners = getattr(model, "align_corners", True)

  def resized(x: jax.Array, size: tuple[int, int], *ends: Any) -> jax.Array:
    if true is None:
      return resize.resize_bilinear(x, size, align_corners=align_corners)
    old, new = (
      e.sides(s) for e, s in zip(ends, (x.shape[1:3], size), strict=True)
    )
    return resize.resize_within(x, size, old, new, align_corners=align_corners)

  def coarse(images: jax.Array) -> Any:
    return model.apply(variables, images, train=False, method="coarse")

  def turned(x: jax.Array) -> jax.Array:
    return jnp.where(mirrored[:, None, None, None], true_size.mirrored(x), x)

  images = jnp.asarray(images, jnp.float32)
  scaled = images
  if scale != 1.0:
    scaled = resized(images, at_scale, extent, scaled_extent)
  with true_size.within(scaled_extent):
    logits = turned(coarse(turned(scaled)).astype(jnp.float32))
  if scale < 1.0:
    # The reference resizes twice: first to the size of logits at scale 1.
    at_one = jax.eval_shape(coarse, images).shape[1:3]
    logits = resized(logits, at_one, scaled_extent, extent)
    scaled_extent = extent
  return resized(logits, size, scaled_extent, extent)


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
  """Return the (height, width) that the network sees of an image."""
  height, width = (resize.scale_dimension(side, scale) for side in size)
  return height, width
