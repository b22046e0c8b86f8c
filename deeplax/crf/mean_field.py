"""Mean-field inference in a fully connected CRF.

Krahenbuhl and Koltun, "Efficient inference in fully connected CRFs with
Gaussian edge potentials" (2011), algorithm 1. Kernels are symmetric normalised,
and a pixel's message to itself is not taken out, as in their program.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from deeplax.crf import filtering
from deeplax.crf import lattice as lattice_lib

Arrays = Array | np.ndarray
Lattice = lattice_lib.Lattice


def mean_field(
  log_probabilities: Float[Arrays, "n k"],
  lattices: Sequence[Lattice],
  weights: Sequence[Any],
  *,
  iterations: int = 10,
  compatibility: Float[Arrays, "k k"] | None = None,
) -> Float[Array, "n k"]:
  """Return the marginals of every pixel.

  Differentiable with respect to the log probabilities, the weights and the
  compatibility, and jit-compiled for each shape.

  Args:
    log_probabilities: Of a network; the unary energies are their negative.
    lattices: One for each kernel, for n pixels.
    weights: Of the kernels.
    iterations: Parallel updates of all pixels.
    compatibility: What label l costs beside label m, [l, m]; None is the Potts
      model, 1 - identity. Only differences along l matter.
  """
  log_probabilities = jnp.asarray(log_probabilities, jnp.float32)
  weights = [jnp.asarray(w, jnp.float32) for w in weights]
  if len(weights) != len(lattices):
    raise ValueError(f"{len(weights)} weights for {len(lattices)} kernels")
  if iterations < 0:
    raise ValueError(f"iterations {iterations} must be 0 or more")
  return _mean_field(
    log_probabilities, tuple(lattices), weights, compatibility, iterations
  )


@partial(jax.jit, static_argnums=4)
def _mean_field(
  log_probabilities, lattices, weights, compatibility, iterations
):
  def update(logits, _):
    marginals = jax.nn.softmax(logits, axis=-1)
    message = jnp.zeros((), jnp.float32)
    for lattice, weight in zip(lattices, weights, strict=True):
      message = message + weight * filtering.apply(lattice, marginals)
    if compatibility is None:
      # All labels' messages sum to a constant of the pixel: 1 - identity and
      # minus the identity have one softmax.
      return log_probabilities + message, None
    return log_probabilities - message @ compatibility.T, None

  logits, _ = jax.lax.scan(update, log_probabilities, length=iterations)
  return jax.nn.softmax(logits, axis=-1)
