"""Average predictions over scales and flips, for several table rows at once.

Every row of a table is the mean of the softmax outputs of some views of an
image; a view is (mirrored or not, scale). Views are summed in one order for all
rows: plain before mirrored ones, small before large ones. So a view is computed
once for all rows, rows that begin with the same views share a sum, and a row's
numbers are bit by bit the same whichever other rows are computed with it.
"""

from collections.abc import Callable, Sequence
import time
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt
import numpy as np

from deeplax.inference import mode as mode_lib


def classes(scores: Float[Array, "*b h w k"]) -> UInt[Array, "*b h w"]:
  """Return the best class of each pixel: uint8, or uint16 past 256 classes."""
  dtype = jnp.uint8 if scores.shape[-1] <= 256 else jnp.uint16
  return jnp.argmax(scores, axis=-1).astype(dtype)


def best(scores: Float[np.ndarray, "h w k"]) -> UInt[np.ndarray, "h w"]:
  """Return `classes` by NumPy, which needs no program for each size."""
  dtype = np.uint8 if scores.shape[-1] <= 256 else np.uint16
  return scores.argmax(axis=-1).astype(dtype)


def _add_softmax(
  total: Float[Array, "*b h w k"], logits: Float[Array, "*b h w k"]
) -> Float[Array, "*b h w k"]:
  return total + jax.nn.softmax(logits)


def _classes_of_mean(
  total: Float[Array, "*b h w k"], views: Float[Array, ""]
) -> UInt[Array, "*b h w"]:
  return classes(total / views)


# These programs are compiled apart from the network: the compiler's rounding
# depends on the next step, so that a row's numbers would depend on the other
# rows. A softmax and the sum that it goes into are always in one program.
_first = jax.jit(jax.nn.softmax)
_add = jax.jit(_add_softmax)
_divide = jax.jit(jnp.divide)
_best = jax.jit(classes)
_best_of_mean = jax.jit(_classes_of_mean)


def predict(
  modes: Sequence[mode_lib.Mode],
  logits: Callable[[mode_lib.View], jax.Array],
  *,
  labels: bool,
  seconds: dict[mode_lib.Mode, float] | None = None,
) -> list[jax.Array]:
  """Return the prediction of each mode, labels or probabilities.

  A single view's labels are taken from its logits, as in the reference: the
  softmax does not change the order, and takes a sixth of MobileNetV2's time on
  a CPU.

  Args:
    modes: All different.
    logits: Computes a view. It is called once for each view, at most one view
      ahead of the device, so that memory does not grow with their number.
    labels: Return classes [b, h, w], else probabilities [b, h, w, k].
    seconds: Receives the seconds that each mode would take alone; to measure
      them, every step waits for the device. None: they are not measured.
  """
  sums: dict[tuple[mode_lib.View, ...], jax.Array] = {}
  done: dict[mode_lib.Mode, jax.Array] = {}
  before: Any = None
  start = time.perf_counter()

  def lap(modes: Sequence[mode_lib.Mode], array: Any) -> None:
    """Wait for `array`, and add the time since the last lap to `modes`."""
    nonlocal start
    if seconds is None:
      return
    jax.block_until_ready(array)
    now = time.perf_counter()
    for mode in modes:
      seconds[mode] = seconds.get(mode, 0.0) + now - start
    start = now

  for view in sorted({view for mode in modes for view in mode.views}):
    scores = logits(view)
    taking = [mode for mode in modes if view in mode.views]
    lap(taking, scores)
    # The labels of a single view need no softmax, and so no sum.
    summing = [m for m in taking if not (labels and len(m.views) == 1)]
    for views in {mode.until(view) for mode in summing}:
      sums[views] = (
        _add(sums[views[:-1]], scores) if len(views) > 1 else _first(scores)
      )
      lap([m for m in summing if m.until(view) == views], sums[views])
    for mode in taking:
      if mode.views[-1] == view:
        total = sums[mode.views] if mode in summing else scores
        done[mode] = _finished(total, mode, labels)
        lap([mode], done[mode])
    # Wait for the view before: the device is never more than one behind.
    if before is not None:
      jax.block_until_ready(before)
    before = [scores, *sums.values()]
    needed = {m.until(view) for m in modes if m.views[-1] > view}
    sums = {views: total for views, total in sums.items() if views in needed}
  return [done[mode] for mode in modes]


def _finished(total: jax.Array, mode: mode_lib.Mode, labels: bool) -> jax.Array:
  """Return a mode's prediction from its sum, at one view from its logits."""
  if len(mode.views) == 1:
    return _best(total) if labels else total
  views = jnp.float32(len(mode.views))
  return _best_of_mean(total, views) if labels else _divide(total, views)
