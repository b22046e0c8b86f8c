"""Cross entropy of every pixel, in two forms.

passes    reads the logits once for their maximum, once for the sum of their
          exponentials, and again for the label's and for the largest one.
one_pass  reads them once: a sum that meets a larger logit is scaled down.
"""

import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Integer

from deeplax.arrays import Arrays
from deeplax.ops import backend


def cross_entropy(
  logits: Float[Arrays, "*n k"], labels: Integer[Arrays, "*n"]
) -> Float[Array, "*n"]:
  """Return -log softmax(logits)[label] in float32.

  Labels must lie in 0..k-1: one outside would pass for a logit of zero, so
  the caller maps ignored pixels to a class first and masks them after.
  """
  return with_best(logits, labels)[0]


def with_best(
  logits: Float[Arrays, "*n k"], labels: Integer[Arrays, "*n"]
) -> tuple[Float[Array, "*n"], Int32[Array, "*n"]]:
  """Return the cross entropy, and the first class of the largest logit."""
  logits = jnp.asarray(logits).astype(jnp.float32)
  labels = jnp.asarray(labels).astype(jnp.int32)
  if backend.form("cross_entropy") == "one_pass":
    return _one_pass(logits, labels)
  # A select costs less than a gather, and its gradient is no scatter.
  chosen = jnp.where(_is_label(logits, labels), logits, 0)
  entropy = jax.nn.logsumexp(logits, axis=-1) - chosen.sum(axis=-1)
  return entropy, jnp.argmax(logits, -1).astype(jnp.int32)


@jax.custom_vjp
def _one_pass(logits, labels):
  return _forward(logits, labels)[0]


def _forward(logits, labels):
  rows = (
    logits,
    jnp.ones_like(logits),
    jnp.where(_is_label(logits, labels), logits, 0),
    _classes(logits),
  )
  # The least number, not -inf: their difference must be one.
  least = jnp.finfo(jnp.float32).min
  empty = (least, 0.0, 0.0, jnp.iinfo(jnp.int32).max)
  starts = tuple(
    jnp.asarray(n, row.dtype) for n, row in zip(empty, rows, strict=True)
  )
  top, total, chosen, best = lax.reduce(
    rows, starts, _joined, (logits.ndim - 1,)
  )
  whole = jnp.log(total) + top
  return (whole - chosen, best), (logits, labels, whole)


def _joined(a, b):
  """Join (largest, sum of exponentials below it, label's, class of largest)."""
  (top, total, chosen, best), (other, *sums, place) = a, b
  most = jnp.maximum(top, other)
  total = total * jnp.exp(top - most) + sums[0] * jnp.exp(other - most)
  first = (other > top) | ((other == top) & (place < best))
  return most, total, chosen + sums[1], jnp.where(first, place, best)


def _backward(kept, gradients):
  logits, labels, whole = kept
  share = jnp.exp(logits - whole[..., None])
  return gradients[0][..., None] * (share - _is_label(logits, labels)), None


_one_pass.defvjp(_forward, _backward)


def _classes(logits):
  return lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)


def _is_label(logits, labels):
  return _classes(logits) == labels[..., None]
