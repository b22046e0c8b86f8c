"""Variables of a network: shapes, initial values, and RGB kernels for bands."""

from collections.abc import Callable, Mapping
import functools
from typing import Any
import zlib

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from deeplax import errors
from deeplax.models import cost


def initial_variables(model: nn.Module, seed: int) -> dict[str, Any]:
  """Return initial values of {"params", "batch_stats"}.

  The model is only traced and NumPy draws the values, since compiling `init`
  takes longer than both together. Each array is drawn from its path and the
  seed alone: a part that two networks share starts equal in both. What is in
  no convolution of deeplax, in parts of a user's own, is drawn by Flax.

  Args:
    model: As `from_config` returns it.
    seed: Seed of the run.
  """
  variables, convolutions = cost.trace(model, cost.TRACE_SIZE)
  inits = {conv.path: conv.module.kernel_init for conv in convolutions}
  constants = {"scale": 1, "var": 1, "offset": 0, "mean": 0, "bias": 0}
  others = of_other_layers(model)
  values = _by_flax(model, seed, others) if others else {}

  def draw(keys, leaf):
    collection, *names = (key.key for key in keys)
    path = tuple(names)
    if (collection, *path) in values:
      return values[collection, *path]
    if path[-1] in constants:
      value = np.full(leaf.shape, constants[path[-1]], leaf.dtype)
      return jnp.asarray(value)
    rng = np.random.default_rng([zlib.crc32("/".join(path).encode()), seed])
    return jnp.asarray(inits[path[:-1]].draw(rng, leaf.shape))

  return jax.tree_util.tree_map_with_path(draw, variables)


def of_other_layers(model: nn.Module) -> tuple[tuple[str, ...], ...]:
  """Return the paths of what is in no convolution of deeplax."""
  variables, convolutions = cost.trace(model, cost.TRACE_SIZE)
  inside = {conv.path for conv in convolutions}
  flat: Any = flax.traverse_util.flatten_dict(variables)
  return tuple(path for path in flat if path[1:-1] not in inside)


def _by_flax(
  model: nn.Module, seed: int, paths: tuple[tuple[str, ...], ...]
) -> dict[tuple[str, ...], jax.Array]:
  """Return values that the modules' own initializers draw, by path.

  Flax folds the path into the key.
  """
  drawn = _drawing(model, paths)(jax.random.key(seed))
  return dict(zip(paths, drawn, strict=True))


@functools.lru_cache(maxsize=8)
def _drawing(
  model: nn.Module, paths: tuple[tuple[str, ...], ...]
) -> Callable[[jax.Array], list[jax.Array]]:
  """Return the compiled key -> values of the variables at some paths.

  All else that `init` would compute is left out of the program, since nothing
  that it returns needs it.
  """

  def init(key):
    channels = len(getattr(model, "mean", "RGB"))
    images = jnp.zeros((1, *cost.TRACE_SIZE, channels))
    variables = model.init(key, images, train=False, method="coarse")
    flat: Any = flax.traverse_util.flatten_dict(dict(variables))
    return [flat[path] for path in paths]

  return jax.jit(init)


def inflate(variables: dict[str, Any], model: nn.Module) -> dict[str, Any]:
  """Return an RGB network's variables, its first kernel widened to `model`'s.

  Channel i takes the weights of channel i mod 3, times 3 / channels, which
  keeps the size of the output; a single one takes the sum of the three
  (segmentation_models.pytorch's rule). All other variables stay.

  Args:
    variables: {"params", ...} of a network that takes three channels.
    model: The same network, for any number of channels.
  """
  (*path, name) = first_kernel(model)
  flat = flax.traverse_util.flatten_dict(dict(variables))
  kernel = np.asarray(flat[*path, name])
  channels = len(model.mean)
  if channels == 1:
    wide = kernel.sum(axis=2, keepdims=True)
  else:
    wide = kernel[:, :, np.arange(channels) % 3] * np.float32(3 / channels)
  return flax.traverse_util.unflatten_dict(flat | {(*path, name): wide})


def first_kernel(model: nn.Module) -> tuple[str, ...]:
  """Return the path of the kernel that sees the images, "params" first."""
  return ("params", *cost.traced(model, cost.TRACE_SIZE).first, "kernel")


def flat_arrays(variables: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
  """Return the variables as NumPy arrays by path, the collection first."""
  flat = flax.traverse_util.flatten_dict(dict(variables))
  return {path: np.asarray(value) for path, value in flat.items()}


def shapes(model: nn.Module) -> dict[tuple[str, ...], tuple[int, ...]]:
  """Return the shape of every parameter and running statistic, by path."""
  variables, _ = cost.trace(model, cost.TRACE_SIZE)
  flat: Any = flax.traverse_util.flatten_dict(variables)
  return {path: leaf.shape for path, leaf in flat.items()}


def refuse_other(model: nn.Module, variables: Mapping[str, Any]) -> None:
  """Refuse variables that are not those of a network.

  Raises:
    InputError: Naming the first path that differs.
  """
  have = {path: x.shape for path, x in flat_arrays(variables).items()}
  for path, shape in shapes(model).items():
    if have.get(path) != shape:
      raise errors.InputError(
        f"the network given is not the run's: {'/'.join(path[1:])} is {shape} "
        f"in it, and {have.get(path, 'missing')} in the checkpoint. Give the "
        "one that was trained"
      )


def differing(model: nn.Module, other: nn.Module) -> set[tuple[str, ...]]:
  """Return the paths at which two networks have other shapes."""
  theirs = shapes(other)
  return {p for p, shape in shapes(model).items() if shape != theirs[p]}
