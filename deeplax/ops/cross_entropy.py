"""Cross entropy of every pixel."""

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from deeplax.arrays import Arrays


def cross_entropy(
  logits: Float[Arrays, "*n k"], labels: Integer[Arrays, "*n"]
) -> Float[Array, "*n"]:
  """Return -log softmax(logits)[label] in float32.

  Labels must lie in 0..k-1: one outside would pass for a logit of zero, so
  the caller maps ignored pixels to a class first and masks them after.
  """
  logits = jnp.asarray(logits).astype(jnp.float32)
  classes = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
  # A select costs less than a gather, and its gradient is no scatter.
  chosen = jnp.where(classes == jnp.asarray(labels)[..., None], logits, 0)
  return jax.nn.logsumexp(logits, axis=-1) - chosen.sum(axis=-1)
