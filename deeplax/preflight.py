"""What a run must pass before step 0: does it fit, is it this workdir's.

The step is compiled here, because only its compiled form knows the memory it
needs.
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import math
import pathlib
import subprocess
import sys
import time
from typing import Any

from clu import parameter_overview
from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import psutil

from deeplax import checkpoint
from deeplax import commands
from deeplax import doctor
from deeplax import errors
from deeplax import logs
from deeplax import losses
from deeplax import parallel
from deeplax import state as state_lib
from deeplax import train
from deeplax.models import cost

# Keys that do not change what a run computes: resuming may change them.
FREE_KEYS = (
  "data.root",
  "data.threads",
  "data.check_images",
  "train.memory_fraction",
  "checkpoint.keep",
  "eval.pictures",
  "log.every",
  "log.tensorboard",
)


# Keys that a run's first start fills in where they are None.
FILLED_KEYS = ("data.channel_mean", "data.channel_std")

# Share of the running statistics that must be the run's own at its end.
SETTLED = 0.95


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
  """Turn a ValueError about a value of the configuration into a message."""
  try:
    yield
  except ValueError as error:
    raise errors.InputError(str(error)) from error


def compile_step(
  config: ml_collections.ConfigDict,
  model: Any,
  tx: Any,
  loss: losses.Settings,
  state: state_lib.State,
  mesh: jax.sharding.Mesh,
  say: Callable[..., None],
  *,
  dtype: Any = jnp.uint8,
) -> tuple[Any, int]:
  """Return (compiled step, bytes that one device needs for it).

  Args:
    config: Of the run.
    model: As `models.build.from_config` returns it.
    tx: The optimizer.
    loss: What is minimised.
    state: At its start.
    mesh: The devices.
    say: Receives progress lines.
    dtype: Of the images.
  """
  batch, parts = config.train.batch_size, mesh.size * config.train.accumulate
  if batch % parts:
    fits = batch // parts * parts or parts
    raise errors.InputError(
      f"train.batch_size {batch} does not divide over {mesh.size} devices"
      f"{_times(config.train.accumulate)}; use {fits}"
    )
  mapped = parallel.pmap(
    train.make_train_step(
      model,
      tx,
      loss=loss,
      accumulate=config.train.accumulate,
      ema_decay=config.optim.ema_decay,
    ),
    mesh=mesh,
  )
  height, width = config.data.crop_size
  rows = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec(parallel.AXIS)
  )
  abstract_batch = {
    "image": jax.ShapeDtypeStruct(
      (batch, height, width, len(model.mean)), dtype, sharding=rows
    ),
    "label": jax.ShapeDtypeStruct(
      (batch, height, width), jnp.uint8, sharding=rows
    ),
  }
  whole = parallel.replicated(mesh)
  abstract_state = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state
  )
  say("compiling the training step ...")
  start = time.perf_counter()
  with input_errors():
    # A norm that would see one value per channel is found here, by tracing.
    lowered = mapped.lower(abstract_state, abstract_batch)
  compiled = lowered.compile()
  seconds = time.perf_counter() - start
  say(f"compiled the training step in {logs.duration(seconds)}")
  use = compiled.memory_analysis()
  needed = (
    use.temp_size_in_bytes
    + use.argument_size_in_bytes
    + use.output_size_in_bytes
    - use.alias_size_in_bytes
  )
  return compiled, needed


def _times(accumulate: int) -> str:
  return f" times train.accumulate {accumulate}" if accumulate > 1 else ""


def _parts(accumulate: int) -> str:
  return f" in {accumulate} parts" if accumulate > 1 else ""


def memory_available(mesh: jax.sharding.Mesh) -> int:
  """Bytes one device can still give; fake CPU devices share the host's."""
  device = mesh.local_devices[0]
  if device.platform == "cpu":
    return psutil.virtual_memory().available // len(mesh.local_devices)
  stats = device.memory_stats() or {}
  return stats.get("bytes_limit", sys.maxsize) - stats.get("bytes_in_use", 0)


def refuse_too_large(
  config: ml_collections.ConfigDict,
  needed: int,
  mesh: jax.sharding.Mesh,
  *,
  state_bytes: int,
) -> None:
  """Exit before step 0 when the step does not fit, saying what would.

  Args:
    config: Of the run.
    needed: Bytes one device needs for a step.
    mesh: The devices.
    state_bytes: The part of `needed` that no smaller batch or crop reduces.

  Raises:
    InputError: With a batch and a crop that fit, by proportion.
  """
  limit = int(memory_available(mesh) * config.train.memory_fraction)
  if needed <= limit:
    return
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
  if (splits or config.model.batch_norm.mode == "frozen") and (
    parts := _parts_that_fit(config, mesh.size, share)
  ):
    fixes.append(f"--config.train.accumulate={parts}")
  if min(side) >= 33:
    fixes.append(f"--config.data.crop_size='({side[0]}, {side[1]})'")
  if not config.model.remat and config.model.backbone.startswith("xception"):
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
  """Return into how many parts a batch must go to need `share` of it."""
  per_device = config.train.batch_size // devices
  wanted = config.train.accumulate / share if share else per_device + 1
  divisors = (n for n in range(1, per_device + 1) if per_device % n == 0)
  return next((n for n in divisors if n >= wanted), None)


def gigabytes(count: int) -> str:
  """Return bytes as GB."""
  return f"{count / 1e9:.1f} GB"


def overview(
  config: ml_collections.ConfigDict,
  *,
  workdir: str,
  sources: tuple[Any, Any],
  model: Any,
  loss: losses.Settings,
  params: Any,
  mesh: jax.sharding.Mesh,
  needed: int,
) -> dict[str, str]:
  """Return the table shown before step 0."""
  data, norm = config.data, config.model.batch_norm
  names = sorted({d.device_kind for d in mesh.devices.flat})
  per_device = config.train.batch_size // mesh.size
  seen_at_once = per_device // config.train.accumulate
  groups = {"all": mesh.size, "device": 1}
  group = groups.get(norm.group) or int(norm.group)
  height, width = data.crop_size
  seen = config.train.total_steps * config.train.batch_size
  epochs = seen / len(sources[0])
  listed = "entries, some twice" if data.duplicate_classes else "images"
  return {
    "data": f"{data.name}: {data.train_split} {len(sources[0])} {listed}, "
    f"{data.eval_split} {len(sources[1])}, "
    f"{sources[0].spec.num_classes} classes",
    "devices": f"{mesh.size} x {', '.join(names)}",
    "batch": f"{config.train.batch_size} ({per_device} per device"
    f"{_parts(config.train.accumulate)}), crop {height}x{width}",
    "norm": f"{norm.mode}, over {seen_at_once * group} images",
    "parameters": f"{parameter_overview.count_parameters(params):,}",
    "Multiply-Adds": f"{cost.multiply_adds(model, (height, width)) / 1e9:.2f} "
    "billion per crop, forward",
    "memory": f"{gigabytes(needed)} needed per device, "
    f"{gigabytes(memory_available(mesh))} available",
    "steps": f"{config.train.total_steps:,} ({epochs:.0f} epochs)",
    "loss": loss.describe(),
    "optimizer": _optimizer_text(config.optim),
    "init": commands.init_text(config, workdir),
    "workdir": workdir,
  }


def _optimizer_text(settings: ml_collections.ConfigDict) -> str:
  parts = [
    f"{settings.name} {settings.momentum:g}",
    f"{settings.schedule} from {settings.base_lr:g}",
    f"weight decay {settings.weight_decay:g}",
  ]
  if settings.clip_norm:
    parts.append(f"clipped at {settings.clip_norm:g}")
  if settings.ema_decay:
    parts.append(f"averaged with {settings.ema_decay:g}")
  return ", ".join(parts)


def refuse_other_run(
  config: ml_collections.ConfigDict, folder: epath.Path, spec: Any
) -> None:
  """The same config on the same classes resumes; another one is refused.

  Raises:
    InputError: Naming each key with its old and new value.
  """
  if folder.exists() and not folder.is_dir():
    raise errors.InputError(f"--workdir={folder} is a file; name a folder")
  if not (folder / "config.json").exists():
    return
  old = checkpoint.flatten(checkpoint.load_config(folder))
  new = checkpoint.flatten(config)
  different = [
    f"{key}: {old[key]} there, {new[key]} now"
    for key in new
    if key not in FREE_KEYS
    and old[key] != new[key]
    and not (key in FILLED_KEYS and new[key] is None)
  ]
  if different:
    raise errors.InputError(
      f"{folder} holds another run ({'; '.join(different)}). "
      "Give this one its own --workdir"
    )
  checkpoint.refuse_other_classes(folder, spec)


def refuse_values(config: ml_collections.ConfigDict) -> None:
  """Refuse what no later part would name.

  Raises:
    InputError: Naming the key, its value and what it may be.
  """
  limits = {
    "seed": (config.seed, 0),
    "train.total_steps": (config.train.total_steps, 1),
    "train.batch_size": (config.train.batch_size, 1),
    # One is replaced before its successor is sealed.
    "checkpoint.keep": (config.checkpoint.keep, 2),
    "log.every": (config.log.every, 1),
    "train.accumulate": (config.train.accumulate, 1),
    "train.hard_pixel_steps": (config.train.hard_pixel_steps, 0),
    "optim.slow_start_steps": (config.optim.slow_start_steps, 0),
    "eval.pictures": (config.eval.pictures, 0),
  }
  for key, (value, least) in limits.items():
    if not least <= value < 2**31:
      raise errors.InputError(f"{key} {value}: give {least} or more")
  if not 0 < config.train.hard_pixels <= 1:
    raise errors.InputError(
      f"train.hard_pixels {config.train.hard_pixels}: give a share of the "
      "pixels, above 0 to 1 (all)"
    )
  if not 0 <= config.optim.ema_decay < 1:
    raise errors.InputError(
      f"optim.ema_decay {config.optim.ema_decay}: give 0 (none) to below 1, "
      "like 0.9998"
    )
  if config.train.auxiliary_weight < 0:
    raise errors.InputError(
      f"train.auxiliary_weight {config.train.auxiliary_weight}: give 0 (no "
      "auxiliary head) or more, like 0.4"
    )
  _refuse_optimizer(config.optim)
  _refuse_small_norm_batches(config)
  sizes = {"data.crop_size": config.data.crop_size}
  if config.eval.pad_to is not None:
    sizes["eval.pad_to"] = config.eval.pad_to
  for key, value in sizes.items():
    if len(value) != 2 or min(value) < 1:
      raise errors.InputError(
        f"{key} {value} is no (height, width), like (513, 513)"
      )
  if not config.eval.scales or min(config.eval.scales) <= 0:
    raise errors.InputError(
      f"eval.scales {config.eval.scales}: give positive numbers, like (1.0,)"
    )


def _refuse_optimizer(settings: ml_collections.ConfigDict) -> None:
  for key in ("momentum", "second_moment"):
    if not 0 <= settings[key] < 1:
      raise errors.InputError(
        f"optim.{key} {settings[key]}: give 0 to below 1, like 0.9"
      )
  for key in ("base_lr", "weight_decay", "power", "end_lr", "slow_start_lr"):
    if not 0 <= settings[key] < math.inf:
      raise errors.InputError(f"optim.{key} {settings[key]}: give 0 or more")


def _refuse_small_norm_batches(config: ml_collections.ConfigDict) -> None:
  parts = config.train.accumulate
  trains = config.model.batch_norm.mode == "train"
  if parts > 1 and trains and not config.train.accumulate_trained_norm:
    raise errors.InputError(
      f"train.accumulate {parts}: norms that train would see "
      f"{config.train.batch_size // parts} images at a time instead of "
      f"{config.train.batch_size}, which is another network. Freeze them, "
      "--config.model.batch_norm.mode=frozen, or ask for it, "
      "--config.train.accumulate_trained_norm=True"
    )


def norm_warning(model: Any, *, total_steps: int, start: str) -> str | None:
  """Say so if the run ends before its running statistics have settled.

  Args:
    model: Whose backbone and head have norm settings; the slower one counts.
    total_steps: Of the run.
    start: What the statistics are before step 0.
  """
  norm = max(model.backbone.norm, model.head.norm, key=lambda n: n.decay)
  adapted = 1 - norm.decay**total_steps
  if norm.mode != "train" or adapted >= SETTLED:
    return None
  # The decay at which the start has SETTLED away halfway through the run.
  fit = (1 - SETTLED) ** (2 / total_steps)
  digits = max(2, 1 - math.floor(math.log10(1 - fit)))
  return (
    f"the norms' running statistics will be {adapted:.0%} adapted after "
    f"{total_steps:,} steps at decay {norm.decay}: evaluation will still see "
    f"part of the {start}. Set --config.model.batch_norm.decay="
    f"{math.floor(fit * 10**digits) / 10**digits}, train longer, or run "
    "python -m deeplax.recalibrate afterwards"
  )


def write_run_files(
  folder: epath.Path,
  config: ml_collections.ConfigDict,
  spec: Any,
  params: Any,
  say: Callable[..., None],
) -> None:
  """Write config.json, spec.json, env.json and parameters.txt.

  Raises:
    InputError: The folder cannot be written.
  """
  text = parameter_overview.get_parameter_overview(params)
  try:
    logs.write_json(folder / "config.json", json.loads(config.to_json()))
    logs.write_json(folder / "spec.json", spec.to_json())
    logs.write_json(folder / "env.json", environment())
    (folder / "parameters.txt").write_text(text + "\n")
  except OSError as error:
    raise errors.InputError(f"--workdir={folder}: {error}") from error
  say(f"parameters by name: {folder / 'parameters.txt'}")


def environment() -> dict[str, Any]:
  """Exact versions, devices, commit and command of this run."""
  root = pathlib.Path(__file__).parent.parent
  try:
    commit = subprocess.run(
      ["git", "-C", str(root), "describe", "--always", "--dirty"],
      capture_output=True,
      text=True,
      check=False,
    ).stdout.strip()
  except OSError:  # no git here
    commit = ""
  return {
    "command": sys.argv,
    "commit": commit or None,
    "python": sys.version.split()[0],
    "packages": doctor.versions(),
    "devices": [str(d) for d in jax.devices()],
  }
