"""From a configuration to a running loop: all that happens before step 0.

Only compiled programs are written before the run is known to fit: sources,
labels, model and memory are checked first, then the workdir is made.
"""

from collections.abc import Callable, Iterator
import contextlib
from functools import partial
import os
import signal
from typing import Any

from clu import platform
from etils import epath
import jax
from jax.experimental import multihost_utils
import ml_collections

from deeplax import errors
from deeplax import machine
from deeplax.data import bands
from deeplax.data import build as data_build
from deeplax.data import views
from deeplax.data.checks import check
from deeplax.data.checks import class_counts
from deeplax.models import build as model_build
from deeplax.training import initial
from deeplax.training import limits
from deeplax.training import log as log_lib
from deeplax.training import loop
from deeplax.training import losses
from deeplax.training import memory
from deeplax.training import optim
from deeplax.training import overview
from deeplax.training import parallel
from deeplax.training import state as state_lib
from deeplax.training import validation
from deeplax.workdir import checkpoint
from deeplax.workdir import environment
from deeplax.workdir import settings as settings_lib


def run(
  config: ml_collections.ConfigDict, *, workdir: str, multihost: bool = False
) -> None:
  """Train `config` in `workdir`, or resume there.

  Raises:
    InputError: Before anything is written, for whatever cannot work.
  """
  if multihost:
    join_hosts()
  # Flushed: progress through a pipe is read while it happens.
  say = partial(print, flush=True)
  if jax.process_index() > 0:
    say = _silent
  if warning := machine.accelerator_warning():
    say(f"deeplax: {warning}")
  folder = epath.Path(workdir)
  environment.compilation_cache(folder)
  limits.refuse_values(config)

  with errors.input_errors():
    train_source = data_build.source(config.data, config.data.train_split)
    eval_source = data_build.source(config.data, config.data.eval_split)
    spec = train_source.spec
    settings_lib.refuse_other_run(config, folder, spec)
    if config.data.check_images:
      say(check.check(train_source, images=config.data.check_images))
      check.check(eval_source, images=config.data.check_images)
    fill_channels(config, train_source, folder, say)
    channels = data_build.channels(config.data)
    train_source, loss = train_on(config, train_source, folder, say)
    model = model_build.from_config(
      config.model,
      num_classes=spec.num_classes,
      axis_name=parallel.AXIS,
      auxiliary=config.train.auxiliary_weight > 0,
      channels=channels,
    )
    loss = loss._replace(align_corners=model.align_corners)
    lr, tx = optim.optimizer(config)
    measure = validation.evaluator(config, eval_source, folder, say)
    if config.log.tensorboard:
      log_lib.metric_writers()  # told before anything is compiled
    iterator = data_build.train_loader(
      config,
      train_source,
      pad_value=model_build.mean_pixel(config.model, channels),
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  resume = checkpoint.sound_step(folder)
  if resume is not None and resume >= config.train.total_steps:
    say(f"finished: {workdir} is at step {resume}. {_next_commands(workdir)}")
    return
  mesh = parallel.mesh()
  say(f"init: {settings_lib.init_text(config, folder)}")
  variables = initial.variables(config, model, resumed=resume is not None)
  state = state_lib.create(
    variables, tx, seed=config.seed, average=config.optim.ema_decay > 0
  )
  step_fn, needed = memory.compile_step(
    config,
    model,
    tx,
    loss,
    state,
    mesh,
    say,
    dtype=train_source[0]["image"].dtype,
  )
  table = overview.overview(
    config,
    workdir=workdir,
    sources=(train_source, eval_source),
    model=model,
    loss=loss,
    params=state.params,
    mesh=mesh,
    needed=needed,
  )
  say("\n".join(f"  {key:<18}{value}" for key, value in table.items()))
  state_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
  memory.refuse_too_large(config, needed, mesh, state_bytes=state_bytes)
  if warning := limits.norm_warning(
    model,
    total_steps=config.train.total_steps,
    start=initial.statistics_of(config),
  ):
    say(f"deeplax: {warning}")

  if jax.process_index() == 0:
    settings_lib.write_run_files(folder, config, spec, state.params, say)
  checkpoints = checkpoint.Checkpoints(folder, keep=config.checkpoint.keep)
  checkpoints.discard_after(resume or 0)
  state = parallel.replicate(state, mesh=mesh)
  if resume is not None:
    state = checkpoints.restore(resume, state, iterator, mesh=mesh)
    say(f"resuming from step {resume} of {config.train.total_steps}")
  log = log_lib.MetricLog(
    folder / "metrics.jsonl",
    resume_step=resume or 0,
    write=jax.process_index() == 0,
    tensorboard=config.log.tensorboard,
  )
  platform.work_unit().set_task_status(f"training {workdir}")
  with stop_signals() as stopped:
    state = loop.loop(
      step_fn=step_fn,
      state=state,
      iterator=iterator,
      mesh=mesh,
      schedule=loop.Schedule(
        total=config.train.total_steps,
        log_every=config.log.every,
        eval_every=config.eval.every,
        checkpoint_every=config.checkpoint.every,
      ),
      batch_size=config.train.batch_size,
      lr=lr,
      evaluate=partial(measure, log=log),
      checkpoints=checkpoints,
      log=log,
      stopped=stopped,
      status=say,
    )
  checkpoints.close()
  log.close()
  if int(state.step) < config.train.total_steps:
    say(
      f"stopped at step {int(state.step)}; the same command goes on from there"
    )
  else:
    say(f"finished. {_next_commands(workdir)}")


def fill_channels(
  config: ml_collections.ConfigDict,
  source: Any,
  folder: epath.Path,
  say: Callable[..., None],
) -> None:
  """Set the bands' mean and std: the workdir's, or measured at its start."""
  kept = None
  if (folder / "config.json").exists():
    kept = settings_lib.load_config(folder).data
  if data_build.fill_channels(config.data, source, kept, progress=say):
    data = config.data
    say(
      f"bands {data.channels}: mean {data.channel_mean}, std "
      f"{data.channel_std}, measured on at most {bands.SAMPLE} of "
      f"{len(source)} images"
    )


def train_on(
  config: ml_collections.ConfigDict,
  source: Any,
  folder: epath.Path | None,
  say: Callable[..., None],
) -> tuple[Any, losses.Settings]:
  """Return the examples as they are trained on, and the loss.

  Both may need the masks counted: all of them, once for the workdir `folder`,
  or each time for None.
  """
  rule = config.train.class_weights
  by_count = rule in class_counts.RULES
  weights = None
  if not by_count and rule != "none":
    weights = class_counts.numbers(rule, source.spec.num_classes)
  if by_count or config.data.duplicate_classes:
    counted = class_counts.count(
      source,
      threads=config.data.threads,
      progress=say,
      cache=folder / "histogram.json" if folder else None,
      write=jax.process_index() == 0,
    )
    if jax.process_count() > 1:
      multihost_utils.assert_equal(
        counted.present,
        "the hosts have counted different masks: give all the same data",
      )
    if by_count:
      weights = class_counts.weights(counted, rule, progress=say)
    if config.data.duplicate_classes:
      indices = class_counts.duplicated(counted, config.data.duplicate_classes)
      source = views.Listed(source, indices)
  settings = losses.Settings(
    upsample_logits=config.train.upsample_logits,
    class_weights=weights,
    hard_pixels=config.train.hard_pixels,
    hard_pixel_steps=config.train.hard_pixel_steps,
    auxiliary_weight=config.train.auxiliary_weight,
    per_scale=len(config.model.input_scales) > 0,
  )
  return source, settings


def join_hosts() -> None:
  """Make the processes of all hosts one.

  JAX finds them by itself on Cloud TPU, Slurm and the like. Elsewhere each
  host says who it is: JAX_COORDINATOR_ADDRESS (host:port of the first),
  JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0).

  Raises:
    InputError: Neither of the two.
  """
  given = {}
  for key in ("num_processes", "process_id"):
    if value := os.environ.get(f"JAX_{key.upper()}"):
      given[key] = int(value)
  try:
    jax.distributed.initialize(**given)
  except ValueError as error:
    raise errors.InputError(
      f"--multihost: {error} Set JAX_COORDINATOR_ADDRESS=host:port, "
      "JAX_NUM_PROCESSES and JAX_PROCESS_ID on every host"
    ) from error


def _silent(*_: Any) -> None:
  """What the other processes of a pod say."""


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
  """Yield a function that says whether SIGTERM or Ctrl-C has arrived.

  With several processes the signals keep their meaning: hosts that stop after
  different steps would wait for each other for ever.
  """
  if jax.process_count() > 1:
    yield lambda: False
    return
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


def _next_commands(workdir: str) -> str:
  return (
    f"Next: python -m deeplax.evaluate --workdir={workdir}, or python -m "
    f"deeplax.predict --workdir={workdir} --out=DIR IMAGE..."
  )
