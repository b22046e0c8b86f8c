"""Running statistics for norms that were folded into their convolutions.

Such a norm has mean 0 and variance 1. That is right for prediction, but
training would normalize by a batch with other statistics and so change the
function. Here the statistics are measured, and scale and offset are set so that
the function stays the same.
"""

import collections
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from deeplax.models import variables as variables_lib
from deeplax.pretrained import norms

Module = tuple[str, ...]


def with_statistics(
  model: nn.Module,
  variables: Mapping[str, Any],
  batches: Iterable[np.ndarray],
  *,
  modules: Collection[Module],
) -> dict[str, Any]:
  """Return `variables` with the statistics of `batches` in some norms.

  Predictions stay the same, and a training step computes nearly the same.

  Args:
    model: The network of the variables.
    variables: {"params", "batch_stats"}.
    batches: Raw images [b, h, w, 3], as training sees them.
    modules: Paths of the norms to change.
  """
  flat = variables_lib.flat_arrays(variables)
  moments = _moments(model, variables, batches, modules)
  eps = {conv.path: norm.eps for conv, norm in norms.normed(model)}
  for module, (mean, var) in moments.items():
    paths = norms.paths(module)
    old = {name: flat[path] for name, path in paths.items()}
    factor = old["scale"] / np.sqrt(old["var"] + eps[module])
    # The output has the factor in its kernel, and so have its moments.
    mean = mean.reshape(old["mean"].shape) / factor
    var = var.reshape(old["var"].shape) / factor**2
    new = {
      "scale": factor * np.sqrt(var + eps[module]),
      "offset": old["offset"] + (mean - old["mean"]) * factor,
      "mean": mean,
      "var": var,
    }
    for name, path in paths.items():
      flat[path] = new[name].astype(np.float32)
  return flax.traverse_util.unflatten_dict(flat)


def _moments(
  model: nn.Module,
  variables: Mapping[str, Any],
  batches: Iterable[np.ndarray],
  modules: Collection[Module],
) -> dict[Module, tuple[np.ndarray, np.ndarray]]:
  """Return mean and unbiased variance of each convolution's output.

  The moments of a scanned module lie one after the other, in its order.
  """
  # (mean, var) of every call in one batch, by module.
  calls_of: Any = collections.defaultdict(list)

  def add(path: Module, mean: Any, var: Any) -> None:
    calls_of[path].append((np.asarray(mean, np.float64), np.asarray(var)))

  def record(call, args, kwargs, context):
    result = call(*args, **kwargs)
    module = context.module
    if context.method_name == "_convolve" and module.path in modules:
      y, _ = result
      y32 = jnp.asarray(y, jnp.float32)
      count = y.size // y.shape[-1]
      var = y32.var((0, 1, 2)) * count / max(count - 1, 1)
      # Only a callback brings values out of a scan.
      jax.debug.callback(
        partial(add, module.path), y32.mean((0, 1, 2)), var, ordered=True
      )
    return result

  run = _intercepted(model, variables, record)
  totals: Any = collections.defaultdict(list)
  for images in batches:
    calls_of.clear()
    run(images)
    jax.effects_barrier()
    for path, calls in calls_of.items():
      columns = zip(*calls, strict=True)
      totals[path].append([np.stack(values) for values in columns])
  result = {}
  for path, parts in totals.items():
    means, variances = (np.stack(values) for values in zip(*parts, strict=True))
    # Batches are of one size: the total variance is the mean of theirs plus the
    # variance between them.
    result[path] = means.mean(0), variances.mean(0) + means.var(0)
  return result


def _intercepted(
  model: nn.Module, variables: Mapping[str, Any], record: Callable[..., Any]
) -> Any:
  """Return the jitted network, of images, with its modules' calls recorded.

  Products are float32 on every platform: statistics are for good.
  """

  @jax.jit
  def run(images):
    with (
      nn.intercept_methods(record),
      jax.default_matmul_precision("highest"),
    ):
      return model.apply(variables, images, train=False, method="coarse")

  return run
