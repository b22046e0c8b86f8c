"""The state of a training run: all that a step changes, as one pytree."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@flax.struct.dataclass
class State:
  """The training state: arrays only, so that a checkpoint holds all of it.

  Attributes:
    step: int32 scalar, the number of updates so far.
    params: Trained parameters, float32.
    batch_stats: Running means and variances of the norms, float32.
    opt_state: State of the optax chain.
    rng: uint32 key data; folded with the step and never split, so that a
      resumed run draws the same numbers as one that was never stopped.
    average: Moving average of params and batch_stats, or None.
  """

  # Not jax.Array: trees of this shape also hold specs, shardings and None.
  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  rng: Any
  average: Any = None

  @property
  def trained(self) -> dict[str, Any]:
    """The variables that the next step starts from."""
    return {"params": self.params, "batch_stats": self.batch_stats}

  @property
  def variables(self) -> dict[str, Any]:
    """The variables to evaluate: the average if there is one."""
    return self.trained if self.average is None else self.average

  def averaged(self, decay: float) -> "State":
    """Return the state with its average moved towards `trained`.

    As in TensorFlow's ExponentialMovingAverage with num_updates, the decay is
    (1 + step) / (10 + step) early on, which soon forgets the random start.
    """
    if not decay:
      return self
    rate = 1 - jnp.minimum(decay, (1 + self.step) / (10 + self.step))
    average = jax.tree.map(
      lambda old, new: old + rate * (new - old), self.average, self.trained
    )
    return dataclasses.replace(self, average=average)


def _zeros(shapes: Any) -> Any:
  """Return zeros, at which every rule of `optim` starts.

  They come from NumPy: JAX would compile a program for each new shape.
  """
  return jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)), shapes)


def create(
  variables: dict[str, Any],
  tx: optax.GradientTransformation,
  *,
  seed: int,
  average: bool = False,
) -> State:
  """Return the state before step 0."""
  batch_stats = variables.get("batch_stats", {})
  start = {"params": variables["params"], "batch_stats": batch_stats}
  return State(
    step=jnp.zeros((), jnp.int32),
    params=variables["params"],
    batch_stats=batch_stats,
    opt_state=_zeros(jax.eval_shape(tx.init, variables["params"])),
    rng=jax.random.key_data(jax.random.key(seed)),
    # Copies, since the step gives up the memory of both.
    average=jax.tree.map(jnp.array, start) if average else None,
  )
