"""Mean-field inference in a fully connected CRF.

Krahenbuhl and Koltun, "Efficient inference in fully connected CRFs with
Gaussian edge potentials" (2011), algorithm 1. As in their program kernels are
symmetric and normalized, and a pixel's message to itself is included.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deeplax.arrays import Arrays
from deeplax.crf import filtering
from deeplax.crf import lattice as lattice_lib

Lattice = lattice_lib.Lattice


def mean_field(
  log_probabilities: Float[Arrays, "*b n k"],
  lattices: Sequence[Lattice],
  weights: Sequence[Any],
  *,
  iterations: int = 10,
  compatibility: Float[Arrays, "k k"] | None = None,
  isolate_last: bool = False,
) -> Float[Array, "*b n k"]:
  """Return the marginals of every pixel, of one image or of a batch.

  Differentiable with respect to the log probabilities, the weights and the
  compatibility; compiled for each shape.

  Args:
    log_probabilities: The negative unary energies.
    lattices: One for each kernel, for n pixels. For a batch each is a stack, or
      one lattice for all images.
    weights: Of the kernels; numbers or scalar arrays.
    iterations: Parallel updates of all pixels.
    compatibility: The cost of label l beside label m, [l, m]; None: the Potts
      model, 1 - identity. Only differences along l matter.
    isolate_last: The last label takes its share of each pixel, but neither
      sends nor receives messages. For the Potts model alone.

  Raises:
    ValueError: Arguments contradict each other.
  """
  if len(weights) != len(lattices):
    raise ValueError(f"{len(weights)} weights for {len(lattices)} kernels")
  if iterations < 0:
    raise ValueError(f"iterations {iterations} must be 0 or more")
  if isolate_last and compatibility is not None:
    raise ValueError("isolate_last is for the Potts model alone")
  if compatibility is not None:
    compatibility = jnp.asarray(compatibility, jnp.float32)
  return _mean_field(
    jnp.asarray(log_probabilities, jnp.float32),
    tuple(lattices),
    [jnp.asarray(weight, jnp.float32) for weight in weights],
    compatibility,
    iterations,
    isolate_last,
  )


@partial(jax.jit, static_argnums=(4, 5))
def _mean_field(
  log_probabilities: Float[Array, "*b n k"],
  lattices: tuple[Lattice, ...],
  weights: list[Float[Array, ""]],
  compatibility: Float[Arrays, "k k"] | None,
  iterations: int,
  isolate_last: bool,
) -> Float[Array, "*b n k"]:
  # The labels that send and receive messages.
  active = slice(-1 if isolate_last else None)

  def infer(log_probabilities, lattices):
    def update(logits, _):
      marginals = jax.nn.softmax(logits, axis=-1)[..., active]
      message = jnp.zeros((), jnp.float32)
      for lattice, weight in zip(lattices, weights, strict=True):
        filtered: Any = filtering.apply(lattice, marginals)
        message = message + weight * filtered
      if compatibility is None:
        # The messages of all labels sum to a constant of the pixel, so that
        # 1 - identity and minus the identity have the same softmax.
        return log_probabilities.at[..., active].add(message), None
      return log_probabilities - message @ compatibility.T, None

    # The scan carries logits, not marginals: XLA would fuse the softmax with
    # the last gathers of an update, and repeat those for each of its passes.
    logits, _ = jax.lax.scan(update, log_probabilities, length=iterations)
    return jax.nn.softmax(logits, axis=-1)

  if log_probabilities.ndim == 2:
    return infer(log_probabilities, lattices)
  stacked = [lattice.corners.ndim == 3 for lattice in lattices]

  def of_image(unary_and_own):
    unary, own = unary_and_own
    both = zip(own, lattices, strict=True)
    return infer(unary, [of_one or of_all for of_one, of_all in both])

  # One image after the other: one keeps every core busy, and the arrays of all
  # images need not be in memory together.
  own = [x if s else None for x, s in zip(lattices, stacked, strict=True)]
  return jax.lax.map(of_image, (log_probabilities, own))
