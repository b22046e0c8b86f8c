"""The training loss: cross entropy over the pixels that have a label."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deeplax.ops import cross_entropy
from deeplax.ops import resize


class PixelSums(NamedTuple):
  """Sums over one device's pixels; ratios are made after they are added up.

  Attributes:
    loss: Summed cross entropy of the valid pixels.
    valid: Pixels with a legal label.
    illegal: Pixels whose label is neither a class nor the ignore label.
    correct: Valid pixels whose largest logit is the label's.
  """

  loss: jax.Array
  valid: jax.Array
  illegal: jax.Array
  correct: jax.Array


def match(
  logits: Float[Array, "b h w k"],
  labels: Int[Array, "b H W"],
  *,
  upsample_logits: bool,
) -> tuple[jax.Array, jax.Array]:
  """Bring logits and labels to one size.

  The papers upsample the logits and keep every label (v3, section 4.1: 1.2
  points better); the other way is table 8's "no upsampling".
  """
  if upsample_logits:
    return resize.resize_bilinear(logits, _size(labels)), labels
  return logits, resize.resize_nearest(labels, _size(logits))


def _size(x: jax.Array) -> tuple[int, int]:
  return x.shape[1], x.shape[2]


def pixel_sums(
  logits: Float[Array, "b h w k"],
  labels: Int[Array, "b h w"],
  *,
  ignore_label: int = 255,
) -> PixelSums:
  """Sum the loss and the counts of one device's pixels.

  Ignored and illegal labels are mapped to class 0 before the cross entropy and
  masked after it: an illegal one would give NaN, or wrap around to the last
  class, without a word.
  """
  known = (labels >= 0) & (labels < logits.shape[-1])
  ignored = labels == ignore_label
  valid = known & ~ignored
  entropy = cross_entropy.cross_entropy(logits, jnp.where(valid, labels, 0))
  return PixelSums(
    loss=jnp.sum(jnp.where(valid, entropy, 0.0)),
    valid=jnp.sum(valid, dtype=jnp.int32),
    illegal=jnp.sum(~known & ~ignored, dtype=jnp.int32),
    correct=jnp.sum(
      valid & (jnp.argmax(logits, -1) == labels), dtype=jnp.int32
    ),
  )
