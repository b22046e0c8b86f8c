"""Everything a training run changes, as one pytree of arrays."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class State:
  """The training state: arrays only, so that a checkpoint holds all of it.

  Attributes:
    step: int32 scalar, updates made so far.
    params: Trained parameters, float32.
    batch_stats: Running means and variances of the norms, float32.
    opt_state: Of the optax chain.
    rng: uint32 key data; folded with the step, never split, so that a resumed
      run draws what the uninterrupted one would have.
  """

  # Not jax.Array: trees of this shape also hold specs, shardings and None.
  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  rng: Any

  @property
  def variables(self) -> dict[str, Any]:
    """What `model.apply` takes."""
    return {"params": self.params, "batch_stats": self.batch_stats}


def create(
  variables: dict[str, Any], tx: optax.GradientTransformation, *, seed: int
) -> State:
  """Return the state before step 0."""
  return State(
    step=jnp.zeros((), jnp.int32),
    params=variables["params"],
    batch_stats=variables.get("batch_stats", {}),
    opt_state=tx.init(variables["params"]),
    rng=jax.random.key_data(jax.random.key(seed)),
  )
