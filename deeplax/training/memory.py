"""Compile the training step and refuse one that a device cannot hold.

How much memory a step needs is known only once it is compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from deeplax import clocks
from deeplax import errors
from deeplax import parallel
from deeplax.training import parts as parts_lib
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib

# Of XLA for GPUs: no atomic additions, the first algorithm instead of the one
# measured to be fastest, and what is left of scatters sorted, not in a loop.
DETERMINISTIC = {
  "xla_gpu_deterministic_ops": True,
  "xla_gpu_enable_scatter_determinism_expander": True,
}


def compile_step(
  config: ml_collections.ConfigDict,
  parts: parts_lib.Parts,
  state: state_lib.State,
  progress: Callable[..., None],
) -> tuple[Any, int]:
  """Return (compiled step, bytes that one device needs for it).

  Args:
    state: The state before step 0.

  Raises:
    InputError: The batch does not divide over the devices, or a norm would see
      one value per channel.
    RuntimeError: The compiler finds that the step does not fit.
  """
  mesh, accumulate = parts.mesh, config.train.accumulate
  batch, unit = config.train.batch_size, mesh.size * accumulate
  if batch % unit:
    times = f" times train.accumulate {accumulate}" if accumulate > 1 else ""
    raise errors.InputError(
      f"train.batch_size {batch} does not divide over {mesh.size} devices"
      f"{times}; use {batch // unit * unit or unit}"
    )
  mapped = parallel.pmap(
    step_lib.make_train_step(
      parts.model,
      parts.tx,
      loss=parts.loss,
      accumulate=accumulate,
      ema_decay=config.optim.ema_decay,
    ),
    mesh=mesh,
  )
  # Shapes, types and shardings are enough to compile.
  size = (batch, *config.data.crop_size)
  dtype = parts.train_source[0]["image"].dtype
  rows = parallel.split(mesh)
  abstract_batch = {
    "image": jax.ShapeDtypeStruct(
      (*size, len(parts.model.mean)), dtype, sharding=rows
    ),
    "label": jax.ShapeDtypeStruct(size, jnp.uint8, sharding=rows),
  }
  everywhere = parallel.replicated(mesh)
  abstract_state = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), state
  )
  options = None
  if config.train.deterministic and mesh.devices.flat[0].platform == "gpu":
    options = DETERMINISTIC
  progress("compiling the training step ...")
  clock: dict[str, float] = {}
  with clocks.timed(clock, "compile"):
    with errors.input_errors():
      # A norm that would see one value per channel is found here, by tracing.
      lowered = mapped.lower(abstract_state, abstract_batch)
    compiled = lowered.compile(options)
  seconds = clocks.duration(clock["compile"])
  progress(f"compiled the training step in {seconds}")
  return compiled, parallel.memory_needed(compiled)


def refuse_too_large(
  config: ml_collections.ConfigDict,
  needed: int,
  mesh: jax.sharding.Mesh,
  *,
  state_bytes: int,
) -> None:
  """Refuse a step that does not fit, before step 0, and say what would.

  Args:
    needed: Bytes that one device needs for a step.
    state_bytes: The part of `needed` that no smaller batch or crop reduces.

  Raises:
    InputError: Naming a batch and a crop that fit, estimated by proportion.
  """
  limit = int(parallel.memory_free(mesh) * config.train.memory_fraction)
  if needed <= limit:
    return
  # Beside the state, memory grows with the pixels of a batch.
  share = max(limit - state_bytes, 0) / (needed - state_bytes)
  unit = mesh.size * config.train.accumulate
  batch = int(config.train.batch_size * share) // unit * unit
  side = [
    int((d - 1) * share**0.5) // 16 * 16 + 1 for d in config.data.crop_size
  ]
  fixes = []
  if batch >= unit:
    fixes.append(f"--config.train.batch_size={batch}")
  splits = config.train.accumulate_trained_norm
  if (splits or config.model.batch_norm.mode != "train") and (
    parts := _parts_that_fit(config, mesh.size, share)
  ):
    fixes.append(f"--config.train.accumulate={parts}")
  if min(side) >= 33:
    fixes.append(f"--config.data.crop_size='({side[0]}, {side[1]})'")
  if not (config.model.remat or config.model.backbone.startswith("vgg")):
    fixes.append("--config.model.remat=True")
  advice = f"Use {' or '.join(fixes)}"
  if not fixes:
    advice = "No smaller batch or crop would fit: take a smaller model.backbone"
  raise errors.InputError(
    f"one step needs {gigabytes(needed)} and {gigabytes(limit)} of a device's "
    f"memory is free for it. {advice}"
  )


def _parts_that_fit(
  config: ml_collections.ConfigDict, devices: int, share: float
) -> int | None:
  """Return the number of parts of a batch that each need `share` of it."""
  per_device = config.train.batch_size // devices
  wanted = config.train.accumulate / share if share else per_device + 1
  divisors = (n for n in range(1, per_device + 1) if per_device % n == 0)
  return next((n for n in divisors if n >= wanted), None)


def gigabytes(count: int) -> str:
  """Return a number of bytes as text, "1.2 GB"."""
  return f"{count / 1e9:.1f} GB"
