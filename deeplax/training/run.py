"""A training run: prepare it, compile and check its step, then train.

Sources, labels, model and memory are checked before the workdir is written;
only compiled programs are kept there earlier.
"""

from collections.abc import Callable, Mapping
import contextlib
from functools import partial
from typing import Any

from clu import platform
from etils import epath
import flax.linen as nn
import jax
import ml_collections

from deeplax import commands
from deeplax import errors
from deeplax import machine
from deeplax import parallel
from deeplax.data import bands
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.data import loader
from deeplax.data.checks import check
from deeplax.models import variables as variables_lib
from deeplax.settings import own
from deeplax.training import class_balance
from deeplax.training import diagnosis
from deeplax.training import disk_space
from deeplax.training import initial
from deeplax.training import inputs as inputs_lib
from deeplax.training import limits
from deeplax.training import loop
from deeplax.training import memory
from deeplax.training import optim
from deeplax.training import overview
from deeplax.training import own_loss
from deeplax.training import parts as parts_lib
from deeplax.training import signals
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from deeplax.training import validation
from deeplax.training import written
from deeplax.workdir import checkpoint
from deeplax.workdir import environment
from deeplax.workdir import layout
from deeplax.workdir import lock
from deeplax.workdir import sealed
from deeplax.workdir import settings
from deeplax.workdir import shared
from deeplax.workdir import training_data


def run(
  config: ml_collections.ConfigDict,
  inputs: inputs_lib.Inputs,
  *,
  workdir: str,
  process: Mapping[str, Any] | None = None,
  model: nn.Module | None = None,
  loss: own_loss.Loss | None = None,
) -> None:
  """Train `config` in `workdir`, or resume there.

  Args:
    config: Its values are possible.
    inputs: Its data.
    workdir: The run's folder.
    process: What is known of this process, one of several, for
      `parallel.join_hosts`; None: it is the only one.
    model: The network, as `models.build.from_config` returns it; None: the
      configured one. The workdir then says that it was given (model.given).
    loss: (logits, labels, ignore_label=) -> the loss of each pixel; None: the
      configured one. The workdir then says that it was given (train.loss).

  Raises:
    InputError: The run cannot work; nothing has been written then.
  """
  objects = parts_lib.Objects(model, loss)
  if process is not None:
    parallel.join_hosts(**process)
  config = parts_lib.with_objects(config, objects)
  progress = _say
  if jax.process_index() > 0:
    progress = _silent
  if warning := machine.accelerator_warning():
    progress(f"deeplax: {warning}")
  with parallel.ended_together(), contextlib.ExitStack() as stack:
    # One may have come with an error: `parallel.end_all`.
    parallel.agreed(lambda: None)
    watch = stack.enter_context(signals.watched(progress))
    parallel.of_first(lambda: stack.enter_context(lock.held(workdir)))
    shared.refuse_apart(workdir)
    _run(config, inputs, workdir, watch, progress, objects)


def _run(
  config: ml_collections.ConfigDict,
  inputs: inputs_lib.Inputs,
  workdir: str,
  watch: signals.Watch,
  progress: Callable[..., None],
  objects: parts_lib.Objects,
) -> None:
  """Train `config` in `workdir`, which is locked, or resume there."""
  folder = epath.Path(workdir)
  environment.compilation_cache(folder)
  parts = prepare(config, inputs, folder, progress, objects)
  resume = parallel.of_first(partial(sealed.sound_step, folder))
  total = config.train.total_steps
  if resume is not None:
    shapes = variables_lib.shapes(parts.model)
    parallel.of_first(
      partial(checkpoint.refuse_other_shapes, folder, resume, shapes)
    )
  open_outputs = partial(
    written.opened,
    config,
    folder,
    resume=resume,
    measure=parts.measure,
    watch=watch,
    progress=progress,
  )
  spec, first_process = parts.train_source.spec, jax.process_index() == 0
  # The run is complete; only its evaluation may be missing.
  if resume is not None and resume >= total:
    if first_process:
      settings.write_lost(folder, config, spec)
    if parallel.of_first(partial(sealed.miou, folder, resume)) is None:
      variables = checkpoint.read(folder, resume)
      with open_outputs() as outputs:
        watch.training = True
        outputs.scores.add(variables, resume)
        outputs.scores.refuse_missing(resume)
    told = _next_commands(workdir, config)
    progress(f"finished: {workdir} is at step {resume}. {told}")
    return
  step, state = compile_and_check(
    config,
    parts,
    workdir=workdir,
    resumed=resume is not None,
    progress=progress,
  )
  if first_process:
    settings.write_run_files(folder, config, spec, state.params, progress)
    training_data.write(folder, parts.train_source, resumed=resume is not None)
  saved = partial(sealed.sound_step, folder)
  with memory.exhaustion(config, parts.mesh, saved), open_outputs() as outputs:
    platform.work_unit().set_task_status(f"training {workdir}")
    steps = train(
      config, parts, step, state, outputs, resume=resume, watch=watch,
      progress=progress,
    )  # fmt: skip
  if steps < total:
    progress(f"stopped at step {steps}; the same command goes on from there")
  else:
    progress(f"finished. {_next_commands(workdir, config)}")


def prepare(
  config: ml_collections.ConfigDict,
  inputs: inputs_lib.Inputs,
  folder: epath.Path,
  progress: Callable[..., None],
  objects: parts_lib.Objects = parts_lib.NO_OBJECTS,
) -> parts_lib.Parts:
  """Return the parts of a run, after checking its labels.

  Args:
    config: Gets the bands' mean and std.
    inputs: Its data.
    folder: The workdir.
    progress: Receives lines.
    objects: In place of what is configured.

  Raises:
    InputError: Something cannot work, or the workdir holds another run.
  """
  source, eval_source = inputs
  memory.refuse_undivided(config, jax.device_count())
  with errors.input_errors():
    for split in (source, eval_source):
      shared.refuse_other_images(split)
    parallel.of_first(
      partial(settings.refuse_other_run, config, folder, source, progress)
    )
    if config.data.check_images:
      sample = partial(
        check.check, images=config.data.check_images, progress=progress
      )
      progress(parallel.of_first(lambda: str(sample(source))))
      parallel.of_first(lambda: str(sample(eval_source)))
    fill_channels(config, source, folder, progress)
    source, loss = class_balance.examples_and_loss(
      config, source, folder, progress
    )
    classes = source.spec.num_classes
    if objects.loss is not None:
      loss = loss._replace(own=own_loss.checked(objects.loss, classes))
    if objects.model is not None:
      model = parts_lib.given(config, objects.model, classes)
      loss = loss._replace(per_scale=bool(model.input_scales))
    else:
      model = parts_lib.network(
        config,
        classes,
        axis_name=parallel.AXIS,
        auxiliary=config.train.auxiliary_weight > 0,
      )
    lr, tx = optim.optimizer(config)
    measure = validation.evaluator(
      config, eval_source, folder, progress, objects.model
    )
    batches = parts_lib.batches(config, source, model.mean)
  return parts_lib.Parts(
    train_source=source,
    eval_source=eval_source,
    model=model,
    loss=loss._replace(align_corners=model.align_corners),
    lr=jax.jit(lr),  # one program, not one for each operation
    tx=tx,
    batches=batches,
    measure=measure,
    mesh=parallel.mesh(),
  )


def compile_and_check(
  config: ml_collections.ConfigDict,
  parts: parts_lib.Parts,
  *,
  workdir: str,
  resumed: bool,
  progress: Callable[..., None],
) -> tuple[step_lib.Step, state_lib.State]:
  """Return the compiled step and the state before step 0, not replicated.

  Args:
    workdir: As the user wrote it, for the overview.
    resumed: Whether a checkpoint will replace the state.
    progress: Receives the overview and warnings.

  Raises:
    InputError: `init.checkpoint` holds another network, the batch does not
      divide over the devices, the step does not fit into their memory, or the
      checkpoints on the disk.
  """
  progress(f"init: {settings.init_text(config, workdir)}")
  variables = initial.variables(config, parts.model, resumed=resumed)
  state = state_lib.create(
    variables, parts.tx, seed=config.seed, average=config.optim.ema_decay > 0
  )
  state_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
  refusals = memory.refusals(config, parts.mesh, state_bytes=state_bytes)
  compiled = refusals(memory.compile_step)
  step, needed = parallel.agreed(
    lambda: compiled(config, parts, state, progress)
  )
  rows = overview.overview(
    config, parts, workdir=workdir, params=state.params, needed=needed
  )
  progress("\n".join(f"  {key:<18}{value}" for key, value in rows.items()))
  memory.refuse_too_large(config, needed, parts.mesh, state_bytes=state_bytes)
  parallel.of_first(
    partial(disk_space.refuse_full, config, workdir, state_bytes=state_bytes)
  )
  total = config.train.total_steps
  for warning in (
    limits.slow_start_warning(config.optim, total_steps=total),
    limits.norm_warning(
      parts.model, total_steps=total, start=initial.statistics_of(config)
    ),
  ):
    if warning:
      progress(f"deeplax: {warning}")
  return step, state


def train(
  config: ml_collections.ConfigDict,
  parts: parts_lib.Parts,
  step: step_lib.Step,
  state: state_lib.State,
  outputs: written.Written,
  *,
  resume: int | None,
  watch: signals.Watch,
  progress: Callable[..., None],
) -> int:
  """Train, write the results to `outputs` and return the last step.

  Args:
    step: Compiled.
    state: The state before step 0, not replicated; its memory is given up.
    outputs: What the run writes to.
    resume: Step of the checkpoint to resume from; None: a new run.
    watch: Tells whether a signal asked for a stop.

  Raises:
    InputError: Training cannot go on, or the last evaluation failed.
  """
  total, source = config.train.total_steps, parts.train_source
  if resume is None:
    state = parallel.replicate(state, mesh=parts.mesh)
  else:
    drawn, sharding = state, parallel.replicated(parts.mesh)
    state = outputs.checkpoints.restore(
      resume, drawn, parts.batches, sharding=sharding
    )
    # Only its shapes were needed, and the callers still hold it.
    jax.tree.map(lambda array: array.delete(), drawn)
    progress(f"resuming from step {resume} of {total}")

  def save(number: int, state: state_lib.State) -> None:
    diagnosis.refuse_lost(state, step=number)
    outputs.log.flush()
    outputs.checkpoints.save(number, state, parts.batches.get_state())

  watch.training = True
  state = loop.loop(
    step,
    state,
    parts,
    loop.Schedule(
      total=total,
      log_every=config.log.every,
      eval_every=config.eval.every,
      checkpoint_every=config.checkpoint.every,
    ),
    loop.Outputs(
      outputs.log.write,
      save,
      outputs.scores.add,
      progress,
      outputs.profile,
    ),
    refuse=partial(
      diagnosis.refuse_steps,
      source=source,
      drawn=partial(
        loader.drawn,
        source,
        seed=config.seed,
        batch_size=config.train.batch_size,
      ),
    ),
    stopped=lambda _: watch.stopped(),
  )
  outputs.scores.refuse_missing(total)
  return int(state.step)


def fill_channels(
  config: ml_collections.ConfigDict,
  source: files.Source,
  folder: epath.Path,
  progress: Callable[..., None],
) -> None:
  """Set the bands' mean and std: those in the workdir, or measured now."""
  data = config.data

  def fill() -> tuple[bool, Any, Any]:
    stored = None
    if (folder / layout.CONFIG).exists():
      stored = settings.load_config(folder).data
    measured = data_build.fill_channels(data, source, stored, progress=progress)
    return measured, data.channel_mean, data.channel_std

  measured, mean, std = parallel.of_first(fill)
  if data.channels is not None:
    data.channel_mean, data.channel_std = tuple(mean), tuple(std)
  if measured:
    progress(
      f"bands {data.channels}: mean {data.channel_mean}, std "
      f"{data.channel_std}, measured on at most {bands.SAMPLE} of "
      f"{len(source)} images"
    )


def _say(line: object) -> None:
  """Print a line at once: through a pipe it is read while it happens."""
  print(commands.as_typed(str(line)), flush=True)


def _silent(*_: Any) -> None:
  """Print nothing, in all processes of a pod but the first."""


def _next_commands(workdir: str, config: ml_collections.ConfigDict) -> str:
  code = " --own_code" if own.named(config) else ""
  return (
    f"Next: python -m deeplax.evaluate --workdir={workdir}{code}, or python -m "
    f"deeplax.predict --workdir={workdir} --out=DIR{code} IMAGE..."
  )
