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
from deeplax.crf import filtering
from deeplax.crf import lattice as lattice_lib
from deeplax.crf import mean_field as mean_field_lib

# Numbers of classes are rounded up to multiples: each number is compiled anew.
STEP = 4


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
    float(weight) * float(_row_sums(lattice).max())
    for lattice, weight in zip(lattices, weights, strict=True)
  )
  bound = min(negligible, 1 / total) if total else negligible
  order = np.argsort(-peaks, kind="stable")
  count = int((peaks >= bound * math.exp(-total * bound)).sum())
  count = min(max(-(-count // STEP) * STEP, STEP), len(order))
  return Split(np.sort(order[:count]), np.sort(order[count:]))


def mean_field(
  log_probabilities: Float[Array, "*b n k"],
  lattices: Sequence[lattice_lib.Lattice],
  weights: Sequence[Any],
  *,
  peaks: Float[Arrays, " k"],
  negligible: float,
  iterations: int,
) -> Float[Array, "*b n k"]:
  """Return marginals as `mean_field.mean_field` does, with the Potts model.

  See `split` for the arguments and the errors.
  """
  classes = split(peaks, lattices, weights, negligible=negligible)
  if not classes.rest.size:
    return mean_field_lib.mean_field(
      log_probabilities, lattices, weights, iterations=iterations
    )
  rest = log_probabilities[..., classes.rest]
  together = jax.nn.logsumexp(rest, axis=-1, keepdims=True)
  marginals = mean_field_lib.mean_field(
    jnp.concatenate(
      [log_probabilities[..., classes.active], together], axis=-1
    ),
    lattices,
    weights,
    iterations=iterations,
    isolate_last=True,
  )
  shares = marginals[..., -1:] * jnp.exp(rest - together)
  both = jnp.concatenate([marginals[..., :-1], shares], axis=-1)
  return both[..., np.argsort(np.concatenate(classes))]


@jax.jit
def _row_sums(lattice: lattice_lib.Lattice) -> jax.Array:
  """Return the sums of a kernel's rows; of a stack, those of each kernel."""

  def of_one(kernel):
    ones = jnp.ones((kernel.corners.shape[-1], 1), jnp.float32)
    return filtering.apply(kernel, ones)

  if lattice.corners.ndim == 3:
    return jax.lax.map(of_one, lattice)
  return of_one(lattice)
