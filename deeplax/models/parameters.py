"""Parameters of modules, read without tracing how they are drawn."""

from collections.abc import Callable
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp


def array(
  module: nn.Module,
  name: str,
  init: Callable[..., Any],
  shape: tuple[int, ...],
) -> jax.Array:
  """Return a parameter of the module that is running.

  `module.param` traces `init` for its shape even where the array is given: a
  quarter of the tracing of a network.

  Raises:
    flax.errors.ScopeParamShapeError: The array that is given has another shape.
  """
  if not module.has_variable("params", name):
    # Checkpoints and fresh starts bring NumPy.
    return jnp.asarray(module.param(name, init, shape))
  value = module.get_variable("params", name)
  if value.shape != shape:
    path = "/".join(module.path)
    raise flax.errors.ScopeParamShapeError(name, path, value.shape, shape)
  return jnp.asarray(value)
