"""The program of the dense CRF: from padded probabilities to marginals.

It is one program, and the host pads and cuts arrays by NumPy, so that nothing
else is compiled for an image of another size.
"""

from collections.abc import Callable, Sequence
from functools import partial
import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deeplax.arrays import Arrays
from deeplax.crf import lattice as lattice_lib
from deeplax.crf import mean_field
from deeplax.crf import negligible

# A probability of 0 would be an infinite energy, which no neighbor outweighs.
# pydensecrf's unary_from_softmax has the same floor.
FLOOR = 1e-5

_compiled: dict[Any, Any] = {}


def log(probabilities: Float[Arrays, "*b n k"]) -> Float[Array, "*b n k"]:
  """Return log probabilities, none below that of `FLOOR`."""
  return jnp.log(jnp.clip(probabilities, FLOOR, 1))


@partial(jax.jit, static_argnames=("iterations", "active"))
def marginals(
  probabilities: Float[Arrays, "*b n k"],
  lattices: tuple[lattice_lib.Lattice, ...],
  weights: Sequence[Any],
  compatibility: Float[Arrays, "k k"] | None,
  order: Int[Arrays, " k"] | None,
  *,
  iterations: int,
  active: int | None,
) -> Float[Array, "*b n k"]:
  """Return marginals.

  Args:
    probabilities: Padded to the pixels of the lattices.
    lattices: See `mean_field.mean_field`.
    weights: Of the lattices, numbers or scalar arrays.
    compatibility: See `mean_field.mean_field`.
    order: The classes, those that send messages first; None with `active`.
    iterations: Updates of mean field.
    active: How many classes send messages; None: all.
  """
  unary = log(probabilities)
  if order is None or active is None:
    return mean_field.mean_field(
      unary,
      lattices,
      weights,
      iterations=iterations,
      compatibility=compatibility,
    )
  return negligible.mean_field(
    unary, lattices, weights, order, active=active, iterations=iterations
  )


def run(
  *arrays: Any,
  iterations: int,
  active: int | None,
  compiled: Callable[[float], None] | None,
) -> Float[Array, "*b n k"]:
  """Return `marginals` of arrays, none of them traced.

  Args:
    *arrays: Of `marginals`, on a device.
    iterations: See `marginals`.
    active: See `marginals`.
    compiled: Receives the seconds of compiling, where that was needed.
  """
  leaves, structure = jax.tree.flatten(arrays)
  kinds = tuple((leaf.shape, leaf.dtype, leaf.sharding) for leaf in leaves)
  key = (kinds, structure, iterations, active)
  program = _compiled.get(key)
  if program is None:
    start = time.perf_counter()
    program = _compiled[key] = marginals.lower(
      *arrays, iterations=iterations, active=active
    ).compile()
    if compiled is not None:
      compiled(time.perf_counter() - start)
  return program(*arrays)
