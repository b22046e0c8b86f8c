"""Mean field among the classes of an image whose marginals are not negligible.

In a kernel whose rows sum to at most r, a class whose marginals are at most q
sends messages of at most r q times the weight. Messages are never negative, so
a marginal is at most p exp(W q), where p is the class's largest probability and
W the sum of weights times r. A class that starts below tau = q exp(-W q), with
W q at most 1, therefore stays below q in every update. Such a class is left
out: its energies stay those of the network, and it still takes its share of
each pixel.
"""

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from deeplax.arrays import Arrays
from deeplax.crf import lattice as lattice_lib
from deeplax.crf import mean_field as mean_field_lib

# Classes are rounded up to this number, or to twice, four times ... as many:
# each number is compiled anew.
FEWEST = 4


class Split(NamedTuple):
  """The classes of an image in two groups.

  Attributes:
    active: Classes that send and receive messages.
    rest: Classes whose marginals stay below the bound.
  """

  active: Int[np.ndarray, " a"]
  rest: Int[np.ndarray, " r"]


def split(
  peaks: Float[Arrays, " k"],
  lattices: Sequence[lattice_lib.Lattice],
  weights: Sequence[Any],
  *,
  negligible: float,
) -> Split:
  """Return which classes can reach a marginal of `negligible` in some pixel.

  Args:
    peaks: The largest probability of each class, over all pixels of all images
      of a batch.
    lattices: See `mean_field.mean_field`.
    weights: Of the kernels, 0 or more.
    negligible: A marginal, above 0.

  Raises:
    ValueError: A weight is negative, or `peaks` is traced.
  """
  try:
    peaks = np.asarray(peaks)
  except jax.errors.TracerArrayConversionError as error:
    raise ValueError(
      "negligible classes are chosen by their values: leave `negligible` at 0 "
      "inside jit and grad"
    ) from error
  if min(float(weight) for weight in weights) < 0:
    raise ValueError(f"negligible classes need weights of 0 or more: {weights}")
  total = sum(
    float(weight) * _largest_row_sum(lattice)
    for lattice, weight in zip(lattices, weights, strict=True)
  )
  bound = min(negligible, 1 / total) if total else negligible
  order = np.argsort(-peaks, kind="stable")
  needed = int((peaks >= bound * math.exp(-total * bound)).sum())
  count = FEWEST
  while count < needed:
    count *= 2
  count = min(count, len(order))
  return Split(np.sort(order[:count]), np.sort(order[count:]))


def mean_field(
  log_probabilities: Float[Array, "*b n k"],
  lattices: Sequence[lattice_lib.Lattice],
  weights: Sequence[Any],
  order: Int[Arrays, " k"],
  *,
  active: int,
  iterations: int,
) -> Float[Array, "*b n k"]:
  """Return marginals as `mean_field.mean_field` does, with the Potts model.

  Args:
    log_probabilities: See `mean_field.mean_field`.
    lattices: See `mean_field.mean_field`.
    weights: Of the lattices.
    order: The classes, those that send messages first.
    active: How many send messages.
    iterations: Updates of mean field.
  """
  ordered = log_probabilities[..., order]
  rest = ordered[..., active:]
  together = jax.nn.logsumexp(rest, axis=-1, keepdims=True)
  marginals = mean_field_lib.mean_field(
    jnp.concatenate([ordered[..., :active], together], axis=-1),
    lattices,
    weights,
    iterations=iterations,
    isolate_last=True,
  )
  shares = marginals[..., -1:] * jnp.exp(rest - together)
  both = jnp.concatenate([marginals[..., :-1], shares], axis=-1)
  return both[..., jnp.argsort(order)]


def _largest_row_sum(lattice: lattice_lib.Lattice) -> float:
  """Return the largest sum of a kernel's row; of a stack, of all of them."""
  if lattice.corners.ndim == 3:
    return max(
      _largest_row_sum(lattice_lib.Lattice(*one))
      for one in zip(*lattice, strict=True)
    )
  host = jax.tree.map(np.asarray, lattice)
  corners, weights = host.corners, host.weights
  vertices = int(corners.max()) + 1
  value = np.bincount(corners.ravel(), weights.ravel(), minlength=vertices)
  for before, after in host.neighbors[..., :vertices]:
    value = value + 0.5 * (value[before] + value[after])
  return float((weights * value[corners]).sum(0).max())
