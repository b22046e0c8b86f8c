"""From a configuration to a running loop: all that happens before step 0.

Nothing is written before the run is known to fit: sources, labels, model,
compiled step and memory are checked first, then the workdir is made.
"""

from collections.abc import Callable, Iterator
import contextlib
import importlib.metadata
import json
import signal
import subprocess
import sys
import time
from typing import Any

from clu import parameter_overview
from clu import platform
from etils import epath
import jax
import jax.numpy as jnp
import ml_collections
import psutil

from deeplax import checkpoint
from deeplax import doctor
from deeplax import errors
from deeplax import evaluate
from deeplax import inference
from deeplax import logs
from deeplax import optim
from deeplax import parallel
from deeplax import state as state_lib
from deeplax import train
from deeplax.data import build as data_build
from deeplax.data import check
from deeplax.models import build as model_build
from deeplax.models import cost

# Keys that do not change what a run computes: resuming may change them.
FREE_KEYS = (
  "data.root",
  "data.threads",
  "data.check_images",
  "train.memory_fraction",
  "checkpoint.keep",
  "log.every",
)
RANDOM_INIT = "random (the papers start from ImageNet; expect far less)"


def run(
  config: ml_collections.ConfigDict, *, workdir: str, multihost: bool = False
) -> None:
  """Train `config` in `workdir`, or resume there.

  Raises:
    InputError: Before anything is written, for whatever cannot work.
  """
  if multihost:
    jax.distributed.initialize()
  say = print if jax.process_index() == 0 else (lambda *_: None)
  if warning := doctor.accelerator_warning():
    say(f"deeplax: {warning}")
  folder = epath.Path(workdir)
  inference.compilation_cache(folder)
  refuse_other_run(config, folder)

  with input_errors():
    train_source = data_build.source(config.data, config.data.train_split)
    eval_source = data_build.source(config.data, config.data.eval_split)
    spec = train_source.spec
    if config.data.check_images:
      say(check.check(train_source, images=config.data.check_images))
    model = model_build.from_config(
      config.model, num_classes=spec.num_classes, axis_name=parallel.AXIS
    )
    lr = optim.learning_rate(
      schedule=config.optim.schedule,
      base_lr=config.optim.base_lr,
      total_steps=config.train.total_steps,
      power=config.optim.power,
      end_lr=config.optim.end_lr,
      slow_start_steps=config.optim.slow_start_steps,
      slow_start_lr=config.optim.slow_start_lr,
    )
  tx = optim.build(
    lr,
    momentum=config.optim.momentum,
    weight_decay=config.optim.weight_decay,
    head_multiplier=config.optim.head_multiplier,
    bias_multiplier=config.optim.bias_multiplier,
  )

  resume = checkpoint.sound_step(folder)
  if resume is not None and resume >= config.train.total_steps:
    say(f"finished: {workdir} is at step {resume}. {_next_commands(workdir)}")
    return
  mesh = parallel.mesh()
  say(f"init: {init_text(config)}")
  variables = initial_variables(config, model, spec)
  state = state_lib.create(variables, tx, seed=config.seed)
  step_fn, needed = compile_step(config, model, tx, state, mesh, say)
  table = overview(
    config,
    workdir=workdir,
    sources=(train_source, eval_source),
    model=model,
    params=state.params,
    mesh=mesh,
    needed=needed,
  )
  say("\n".join(f"  {key:<18}{value}" for key, value in table.items()))
  refuse_too_large(config, needed, mesh)

  if jax.process_index() == 0:
    write_run_files(folder, config, spec, state.params, say)
  checkpoints = checkpoint.Checkpoints(folder, keep=config.checkpoint.keep)
  iterator = data_build.train_loader(
    config,
    train_source,
    pad_value=model_build.mean_pixel(config.model),
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  state = parallel.replicate(state, mesh=mesh)
  if resume is not None:
    state = checkpoints.restore(resume, state, iterator, mesh=mesh)
    say(f"resuming from step {resume} of {config.train.total_steps}")
  log = logs.MetricLog(
    folder / "metrics.jsonl",
    resume_step=resume or 0,
    write=jax.process_index() == 0,
  )
  platform.work_unit().set_task_status(f"training {workdir}")
  with stop_signals() as stopped:
    state = train.loop(
      step_fn=step_fn,
      state=state,
      iterator=iterator,
      mesh=mesh,
      schedule=train.Schedule(
        total=config.train.total_steps,
        log_every=config.log.every,
        eval_every=config.eval.every,
        checkpoint_every=config.checkpoint.every,
      ),
      batch_size=config.train.batch_size,
      lr=lr,
      evaluate=evaluator(config, eval_source, folder, say),
      checkpoints=checkpoints,
      log=log,
      stopped=stopped,
      status=say,
    )
  checkpoints.close()
  if int(state.step) < config.train.total_steps:
    say(
      f"stopped at step {int(state.step)}; the same command goes on from there"
    )
  else:
    say(f"finished. {_next_commands(workdir)}")


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
  """Turn a ValueError about a value of the configuration into a message."""
  try:
    yield
  except ValueError as error:
    raise errors.InputError(str(error)) from error


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
  """Yield a function that says whether SIGTERM or Ctrl-C has arrived."""
  arrived = []
  previous = {
    number: signal.signal(number, lambda *_: arrived.append(True))
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield lambda: bool(arrived)
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def init_text(config: ml_collections.ConfigDict) -> str:
  """Say where the parameters come from; stands in the results too."""
  return config.init.workdir or RANDOM_INIT


def initial_variables(
  config: ml_collections.ConfigDict, model: Any, spec: Any
) -> dict[str, Any]:
  """Return the variables before step 0: drawn, or of `init.workdir`.

  The class logits are drawn anew when their number differs; any other
  difference is an error that names the parameters.
  """
  drawn = model_build.initial_variables(model, seed=config.seed)
  if config.init.workdir is None:
    return drawn
  given, step = checkpoint.restore_variables(config.init.workdir)
  flat = jax.tree_util.tree_leaves_with_path(drawn)
  have = dict(jax.tree_util.tree_leaves_with_path(given))
  wrong = [
    path
    for path, leaf in flat
    if path not in have or have[path].shape != leaf.shape
  ]
  names = [jax.tree_util.keystr(p, simple=True, separator="/") for p in wrong]
  unused = len(have) - len(flat) + len([p for p in wrong if p not in have])
  if any(not name.startswith("params/logits/") for name in names) or unused > 0:
    raise errors.InputError(
      f"init.workdir {config.init.workdir} holds another network: "
      f"{', '.join(names[:8]) or f'{unused} parameters too many'}. "
      "Use the same config.model as that run"
    )
  print(
    f"init: {len(flat) - len(wrong)} arrays from {config.init.workdir} step "
    f"{step}, new: {', '.join(names) or 'none'} ({spec.num_classes} classes)"
  )
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: leaf if path in wrong else have[path], drawn
  )


def compile_step(
  config: ml_collections.ConfigDict,
  model: Any,
  tx: Any,
  state: state_lib.State,
  mesh: jax.sharding.Mesh,
  say: Callable[..., None],
) -> tuple[Any, int]:
  """Return (compiled step, bytes that one device needs for it)."""
  batch, devices = config.train.batch_size, mesh.size
  if batch % devices:
    raise errors.InputError(
      f"train.batch_size {batch} does not divide over {devices} devices; "
      f"use {batch // devices * devices or devices}"
    )
  mapped = parallel.pmap(
    train.make_train_step(
      model, tx, upsample_logits=config.train.upsample_logits
    ),
    mesh=mesh,
  )
  height, width = config.data.crop_size
  rows = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec(parallel.AXIS)
  )
  abstract_batch = {
    "image": jax.ShapeDtypeStruct(
      (batch, height, width, 3), jnp.uint8, sharding=rows
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


def memory_available(mesh: jax.sharding.Mesh) -> int:
  """Bytes one device can still give; fake CPU devices share the host's."""
  device = mesh.local_devices[0]
  if device.platform == "cpu":
    return psutil.virtual_memory().available // len(mesh.local_devices)
  stats = device.memory_stats() or {}
  return stats.get("bytes_limit", sys.maxsize) - stats.get("bytes_in_use", 0)


def refuse_too_large(
  config: ml_collections.ConfigDict, needed: int, mesh: jax.sharding.Mesh
) -> None:
  """Exit before step 0 when the step does not fit, saying what would.

  Raises:
    InputError: With a batch and a crop that fit, by proportion.
  """
  limit = int(memory_available(mesh) * config.train.memory_fraction)
  if needed <= limit:
    return
  share = limit / needed
  batch = int(config.train.batch_size * share) // mesh.size * mesh.size
  side = [
    max(int((d - 1) * share**0.5) // 16 * 16 + 1, 33)
    for d in config.data.crop_size
  ]
  fixes = [f"--config.data.crop_size='({side[0]}, {side[1]})'"]
  if batch >= mesh.size:
    fixes.insert(0, f"--config.train.batch_size={batch}")
  if not config.model.remat and config.model.backbone.startswith("xception"):
    fixes.append("--config.model.remat=True")
  raise errors.InputError(
    f"one step needs {gigabytes(needed)} and {gigabytes(limit)} of a device's "
    f"memory is free for it. Use {' or '.join(fixes)}"
  )


def gigabytes(count: int) -> str:
  """Return bytes as GB."""
  return f"{count / 1e9:.1f} GB"


def overview(
  config: ml_collections.ConfigDict,
  *,
  workdir: str,
  sources: tuple[Any, Any],
  model: Any,
  params: Any,
  mesh: jax.sharding.Mesh,
  needed: int,
) -> dict[str, str]:
  """Return the table shown before step 0."""
  data, norm = config.data, config.model.batch_norm
  names = sorted({d.device_kind for d in mesh.devices.flat})
  per_device = config.train.batch_size // mesh.size
  groups = {"all": mesh.size, "device": 1}
  group = groups.get(norm.group) or int(norm.group)
  height, width = data.crop_size
  seen = config.train.total_steps * config.train.batch_size
  epochs = seen / len(sources[0])
  return {
    "data": f"{data.name}: {data.train_split} {len(sources[0])} images, "
    f"{data.eval_split} {len(sources[1])}, "
    f"{sources[0].spec.num_classes} classes",
    "devices": f"{mesh.size} x {', '.join(names)}",
    "batch": f"{config.train.batch_size} ({per_device} per device), "
    f"crop {height}x{width}",
    "norm": f"{norm.mode}, over {per_device * group} images",
    "parameters": f"{parameter_overview.count_parameters(params):,}",
    "Multiply-Adds": f"{cost.multiply_adds(model, (height, width)) / 1e9:.2f} "
    "billion per crop, forward",
    "memory": f"{gigabytes(needed)} needed per device, "
    f"{gigabytes(memory_available(mesh))} available",
    "steps": f"{config.train.total_steps:,} ({epochs:.0f} epochs)",
    "init": init_text(config),
    "workdir": workdir,
  }


def refuse_other_run(
  config: ml_collections.ConfigDict, folder: epath.Path
) -> None:
  """The same config resumes; another one is refused.

  Raises:
    InputError: Naming each key with its old and new value.
  """
  if not (folder / "config.json").exists():
    return
  old = checkpoint.flatten(checkpoint.load_config(folder))
  new = checkpoint.flatten(config)
  different = [
    f"{key}: {old[key]} there, {new[key]} now"
    for key in new
    if key not in FREE_KEYS and old[key] != new[key]
  ]
  if different:
    raise errors.InputError(
      f"{folder} holds another run ({'; '.join(different)}). "
      "Give this one its own --workdir"
    )


def write_run_files(
  folder: epath.Path,
  config: ml_collections.ConfigDict,
  spec: Any,
  params: Any,
  say: Callable[..., None],
) -> None:
  """Write config.json, spec.json, env.json and parameters.txt."""
  logs.write_json(folder / "config.json", json.loads(config.to_json()))
  logs.write_json(folder / "spec.json", spec.to_json())
  logs.write_json(folder / "env.json", environment())
  text = parameter_overview.get_parameter_overview(params)
  (folder / "parameters.txt").write_text(text + "\n")
  say(f"parameters by name: {folder / 'parameters.txt'}")


def environment() -> dict[str, Any]:
  """Exact versions, devices, commit and command of this run."""
  packages = (
    "jax jaxlib flax optax orbax-checkpoint tensorflow-datasets "
    "ml-collections clu grain numpy pillow opencv-python-headless"
  ).split()
  root = epath.Path(__file__).parent.parent
  commit = subprocess.run(
    ["git", "-C", str(root), "describe", "--always", "--dirty"],
    capture_output=True,
    text=True,
    check=False,
  ).stdout.strip()
  return {
    "command": sys.argv,
    "commit": commit or None,
    "python": sys.version.split()[0],
    "packages": {p: importlib.metadata.version(p) for p in packages},
    "devices": [str(d) for d in jax.devices()],
  }


def evaluator(
  config: ml_collections.ConfigDict,
  source: Any,
  folder: epath.Path,
  say: Callable[..., None],
) -> Callable[[state_lib.State, int], float]:
  """Return (state, step) -> mIoU on the validation split, written to eval/."""
  stride = config.eval.output_stride or config.model.output_stride
  model = model_build.from_config(
    config.model, num_classes=source.spec.num_classes, output_stride=stride
  )
  predictor = inference.Predictor(
    model,
    {},
    pad_value=model_build.mean_pixel(config.model),
    scales=config.eval.scales,
    flip=config.eval.flip,
    pad_to=config.eval.pad_to,
  )

  def measure(state: state_lib.State, step: int) -> float:
    predictor.variables = parallel.local(state.variables)
    result = evaluate.evaluate(
      predictor,
      source,
      max_images=config.eval.max_images,
      progress=say,
      threads=config.data.threads,
      step=step,
      output_stride=stride,
      scales=list(config.eval.scales),
      flip=config.eval.flip,
      init=init_text(config),
    )
    if jax.process_index() == 0:
      evaluate.write(folder, config.data.eval_split, result)
    say(f"step {step}: mIoU {result['miou']:.4f} on {result['images']} images")
    return result["miou"]

  return measure


def _next_commands(workdir: str) -> str:
  return (
    f"Next: python -m deeplax.evaluate --workdir={workdir}, or python -m "
    f"deeplax.predict --workdir={workdir} --out=DIR IMAGE..."
  )
