"""Compile the training step and refuse one that a device cannot hold.

How much memory a step needs is known only once it is compiled.
"""

from collections.abc import Callable, Iterator
import contextlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from deeplax import clocks
from deeplax import errors
from deeplax import parallel
from deeplax.ops import backend
from deeplax.training import parts as parts_lib
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib

# Of XLA for GPUs: no atomic additions, and the first algorithm instead of the
# one timed to be fastest. It makes a slow loop of a scatter: see in_order.
DETERMINISTIC = {"xla_gpu_deterministic_ops": True}
# Of XLA for CPUs: half the time to compile, slower steps.
QUICK = {"xla_backend_optimization_level": 0}

HALF = 0.5  # of the memory, where nothing says how much would fit
REMAT = "--config.model.remat=True"
SMALLER = "No smaller batch or crop would fit: take a smaller model.backbone"
# XLA counts in powers of 1,024, with and without an i.
_SIZE = r"([\d.]+ ?[BKMGT])"
# What a step needs and a TPU has, in the words of two compilers.
_NEEDED = re.compile(
  rf"(?:\(|Used ){_SIZE}\w*\)? (?:exceeds available HBM \(|of ){_SIZE}"
)
_ASKED = re.compile(
  rf"(?:allocat\w+|reserve|request for) {_SIZE}", re.IGNORECASE
)


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
    RuntimeError: The compiler finds that the step does not fit: `refusals`.
  """
  mesh, accumulate = parts.mesh, config.train.accumulate
  batch = config.train.batch_size
  refuse_undivided(config, mesh.size)
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
  options, tracing = None, contextlib.nullcontext()
  platform = mesh.devices.flat[0].platform
  if config.train.deterministic and platform == "gpu":
    options, tracing = DETERMINISTIC, backend.in_order()
  if config.train.quick_compile and platform == "cpu":
    options = QUICK
  progress("compiling the training step ...")
  clock: dict[str, float] = {}
  ticking = clocks.ticking("compiling the training step", progress)
  with clocks.timed(clock, "compile"), ticking:
    with errors.input_errors(), tracing:
      # A norm that would see one value per channel is found here, by tracing.
      lowered = mapped.lower(abstract_state, abstract_batch)
    compiled = lowered.compile(options)
  seconds = clocks.duration(clock["compile"])
  progress(f"compiled the training step in {seconds}")
  return compiled, parallel.memory_needed(compiled)


def refuse_undivided(config: ml_collections.ConfigDict, devices: int) -> None:
  """Refuse a batch that does not divide over so many devices.

  Raises:
    InputError: With the nearest that do.
  """
  batch, parts = config.train.batch_size, config.train.accumulate
  unit = devices * parts
  if batch % unit == 0:
    return
  times = f" times train.accumulate {parts}" if parts > 1 else ""
  below = batch // unit * unit
  nearest = f"{below} or {below + unit}" if below else f"{unit}"
  # All processes have the same numbers.
  raise parallel.Told(
    f"train.batch_size {batch} does not divide over {devices} devices{times}; "
    f"use {nearest}"
  )


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
  # All processes go on or none does.
  needed = max(parallel.gathered(needed))
  free = min(parallel.gathered(parallel.memory_free(mesh)))
  limit = int(free * config.train.memory_fraction)
  if needed > limit:
    raise parallel.Told(_too_large(config, mesh, needed, limit, state_bytes))


@contextlib.contextmanager
def refusals(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  *,
  state_bytes: int,
) -> Iterator[None]:
  """Turn a compiler's refusal of the step into `refuse_too_large`'s message.

  Compilers of TPUs name what a step needs; those of GPUs may find no memory to
  try algorithms, and name only that.

  Raises:
    InputError: The step does not fit.
  """
  try:
    yield
  except RuntimeError as error:
    if not errors.out_of_memory(error):
      raise
    if found := _NEEDED.search(str(error)):
      needed, free = map(_bytes, found.groups())
      limit = int(free * config.train.memory_fraction)
      text = _too_large(config, mesh, needed, limit, state_bytes)
    else:
      fixes = " or ".join(_fixes(config, mesh.size, HALF))
      text = (
        f"a device has no memory to compile the training step"
        f"{_asked(error)}. End other programs on it, or use about half the "
        f"memory: {fixes or SMALLER}"
      )
    raise errors.InputError(text) from error


@contextlib.contextmanager
def exhaustion(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  saved: Callable[[], int | None],
) -> Iterator[None]:
  """Turn a device's lack of memory in training into a message.

  Args:
    saved: Returns the step that the run would go on from; None: the start.

  Raises:
    InputError: With the amount that was asked for and what needs less.
  """
  try:
    yield
  except RuntimeError as error:
    if not errors.out_of_memory(error):
      raise
    step, fixes = saved(), _fixes(config, mesh.size, HALF)
    start = "begins anew" if step is None else f"goes on from step {step}"
    here = f", or with {REMAT}" if REMAT in fixes else ""
    others = " or ".join(fix for fix in fixes if fix != REMAT)
    raise errors.InputError(
      f"training ran out of a device's memory{_asked(error)}. The same command "
      f"{start} once other programs have left the device{here}. Another run, "
      "in its own --workdir, takes about half the memory by "
      f"{others or 'a smaller model.backbone'}"
    ) from error


def _too_large(
  config: ml_collections.ConfigDict,
  mesh: jax.sharding.Mesh,
  needed: int,
  limit: int,
  state_bytes: int,
) -> str:
  # Beside the state, memory grows with the pixels of a batch.
  share = max(limit - state_bytes, 0) / max(needed - state_bytes, 1)
  fixes = " or ".join(_fixes(config, mesh.size, share))
  return (
    f"one step needs {gigabytes(needed)} and {gigabytes(limit)} of a device's "
    f"memory is free for it. {f'Use {fixes}' if fixes else SMALLER}"
  )


def _fixes(
  config: ml_collections.ConfigDict, devices: int, share: float
) -> list[str]:
  """Return flags that each leave about `share` of the memory but the state's.

  Units that are computed twice leave less, by how much is not estimated.
  """
  unit = devices * config.train.accumulate
  batch = int(config.train.batch_size * share) // unit * unit
  side = [
    int((d - 1) * share**0.5) // 16 * 16 + 1 for d in config.data.crop_size
  ]
  fixes = []
  if batch >= unit:
    fixes.append(f"--config.train.batch_size={batch}")
  splits = config.train.accumulate_trained_norm
  if (splits or config.model.batch_norm.mode != "train") and (
    parts := _parts_that_fit(config, devices, share)
  ):
    fixes.append(f"--config.train.accumulate={parts}")
  if min(side) >= 33:
    fixes.append(f"--config.data.crop_size='({side[0]}, {side[1]})'")
  units = not config.model.backbone.startswith("vgg")
  if share and units and not config.model.remat:
    fixes.append(REMAT)
  return fixes


def _parts_that_fit(
  config: ml_collections.ConfigDict, devices: int, share: float
) -> int | None:
  """Return the number of parts of a batch that each need `share` of it."""
  per_device = config.train.batch_size // devices
  wanted = config.train.accumulate / share if share else per_device + 1
  divisors = (n for n in range(1, per_device + 1) if per_device % n == 0)
  return next((n for n in divisors if n >= wanted), None)


def _asked(error: RuntimeError) -> str:
  """Return ", which asked for 8.6 GB more"; nothing if the error names none."""
  found = _ASKED.search(str(error))
  return (
    f", which asked for {gigabytes(_bytes(found[1]))} more" if found else ""
  )


def _bytes(text: str) -> int:
  """Return the size that XLA writes as "24.74G", "8.01GiB" or "500 bytes"."""
  number, unit = text[:-1], text[-1]
  return int(float(number) * 1024 ** "BKMGT".index(unit.upper()))


def gigabytes(count: int) -> str:
  """Return a number of bytes as text, "1.2 GB"."""
  return f"{count / 1e9:.1f} GB"
