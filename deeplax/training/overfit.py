"""Train on a few images until they are memorized, or say why that failed."""

import argparse
from collections.abc import Callable
from functools import partial
import itertools
import math
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeplax import errors
from deeplax import parallel
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.data import transforms
from deeplax.data import views
from deeplax.data.checks import check
from deeplax.metrics import confusion
from deeplax.metrics import printed
from deeplax.training import class_balance
from deeplax.training import initial
from deeplax.training import limits
from deeplax.training import loop
from deeplax.training import losses
from deeplax.training import memory
from deeplax.training import optim as optim_lib
from deeplax.training import overfit_diagnosis
from deeplax.training import parts as parts_lib
from deeplax.training import state as state_lib
from deeplax.workdir import settings

PASSED = 0.95  # mIoU
# Largest decay: it forgets the random start in 50 steps, a run has thousands.
NORM_DECAY = 0.9
SHOWN = 8  # classes listed before the first step
PAUSE = 20.0  # seconds without a line, after which a step prints one

Batch = dict[str, np.ndarray]


def crops(
  config: ml_collections.ConfigDict, source: files.Source, images: int
) -> tuple[Batch, list[str]]:
  """Return the centers of images spread over a source, and their names."""
  chosen = views.Subset(source, images)
  mean = parts_lib.mean_pixel(config)
  height, width = config.data.crop_size
  batch: dict[str, list[np.ndarray]] = {"image": [], "label": []}
  names = []
  for index in range(len(chosen)):
    example = chosen[index]
    image, label = transforms.pad(
      example["image"], example["label"], size=(height, width), pad_value=mean
    )
    top, left = (label.shape[0] - height) // 2, (label.shape[1] - width) // 2
    image, label = transforms.crop(image, label, (top, left, height, width))
    batch["image"].append(image)
    batch["label"].append(label)
    names.append(example["name"])
  return {key: np.stack(value) for key, value in batch.items()}, names


def contents(counts: np.ndarray, names: tuple[str, ...]) -> str:
  """Return the classes that occur with their shares, the largest first.

  Args:
    counts: Pixels of each class.
  """
  total = max(int(counts.sum()), 1)
  order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
  most = [f"{names[i]} {counts[i] / total:.1%}" for i in order[:SHOWN]]
  more = ", ..." if len(order) > SHOWN else ""
  return f"{len(order)} of {len(names)} classes: {', '.join(most)}{more}"


def short(
  config: ml_collections.ConfigDict, *, steps: int, images: int
) -> ml_collections.ConfigDict:
  """Return the configuration for a run of a few steps on one batch.

  The learning rate stays constant after its slow start, the norms' decay
  settles within the steps, and no parameters are averaged.
  """
  config = config.copy_and_resolve_references()
  config.train.total_steps = steps
  config.train.batch_size = images
  config.train.accumulate = 1
  optim = config.optim
  optim.end_lr = optim.base_lr
  optim.slow_start_steps = min(optim.slow_start_steps, steps // 10)
  optim.decay_steps = 0
  optim.step_every = max(optim.step_every, steps)
  optim.ema_decay = 0.0
  if config.model.batch_norm.mode == "train":
    # Halfway through, 1 - SETTLED of the random start is left.
    fit = (1 - limits.SETTLED) ** (2 / steps)
    config.model.batch_norm.decay = min(fit, NORM_DECAY)
  return config


def scorer(
  model: nn.Module, batch: Batch, names: tuple[str, ...]
) -> Callable[..., dict[str, Any]]:
  """Return (variables, trains=) -> scores on the batch.

  Args:
    model: Without dropout, so that `trains` chooses the norm statistics alone:
      the batch's own or the running ones.
    batch: Images and labels.
  """

  @partial(jax.jit, static_argnames="trains")
  def labels(variables, image, *, trains):
    logits, _ = model.apply(
      variables, image, train=trains, mutable=["batch_stats"]
    )
    return jnp.argmax(logits, -1)

  def scores(variables, *, trains):
    predicted = np.asarray(labels(variables, batch["image"], trains=trains))
    matrix = confusion.count(batch["label"], predicted, len(names))
    return confusion.scores(matrix, names)

  return scores


def make_parts(
  config: ml_collections.ConfigDict,
  source: files.Source,
  loss: losses.Settings,
  batch: Batch,
) -> parts_lib.Parts:
  """Return the parts of a run on one batch and one device."""
  still = config.copy_and_resolve_references()
  still.model.dropout = 0.0
  names = source.spec.class_names
  model = parts_lib.network(
    config,
    len(names),
    axis_name=parallel.AXIS,
    auxiliary=config.train.auxiliary_weight > 0,
  )
  lr, tx = optim_lib.optimizer(config)
  return parts_lib.Parts(
    train_source=source,
    eval_source=source,
    model=model,
    loss=loss,
    lr=lr,
    tx=tx,
    batches=itertools.repeat(batch),
    measure=scorer(parts_lib.network(still, len(names)), batch, names),
    mesh=parallel.mesh(jax.local_devices()[:1]),
  )


def learn(
  config: ml_collections.ConfigDict,
  parts: parts_lib.Parts,
  trial: overfit_diagnosis.Trial,
  *,
  every: int,
  progress: Callable[..., None],
) -> None:
  """Train on the batch until it is memorized; `trial` gets losses and scores.

  Raises:
    InputError: The step does not fit into memory.
  """
  variables = initial.variables(config, parts.model, resumed=False)
  state = state_lib.create(variables, parts.tx, seed=config.seed)
  step, needed = memory.compile_step(config, parts, state, progress)
  free = parallel.memory_free(parts.mesh) * config.train.memory_fraction
  if needed > free:
    raise errors.InputError(
      f"--images={config.train.batch_size}: one step needs "
      f"{memory.gigabytes(needed)} and {memory.gigabytes(int(free))} of "
      "the device's memory is free for it. Take fewer --images or a smaller "
      "--config.data.crop_size"
    )
  # What the loop calls: losses and scores go to `trial`, few lines to the user.
  printed_at = time.perf_counter()

  def note(values: list[dict[str, float]], first: int) -> None:
    del first
    trial.losses += [value["loss"] for value in values]

  def evaluate(variables: dict[str, Any], number: int) -> None:
    local = parallel.local(variables)
    trial.evaluated = parts.measure(local, trains=False)
    progress(f"step {number}: mIoU {printed.score(trial.miou)}")

  def now_and_then(line: str) -> None:
    nonlocal printed_at
    now = time.perf_counter()
    looks = loop.due(len(trial.losses), every, config.train.total_steps)
    if looks or now - printed_at > PAUSE:
      printed_at = now
      progress(line)

  def lost() -> bool:
    return not math.isfinite(trial.losses[-1])

  state = loop.loop(
    step,
    parallel.replicate(state, mesh=parts.mesh),
    parts,
    loop.Schedule(
      total=config.train.total_steps,
      log_every=1,
      eval_every=every,
      checkpoint_every=0,
    ),
    loop.Outputs(_nothing, _nothing, evaluate, now_and_then),
    refuse=note,
    stopped=lambda _: lost() or trial.miou > PASSED,
  )
  if not lost():
    variables = parallel.local(state.variables)
    trial.trained = parts.measure(variables, trains=True)


def _nothing(step: int, values: Any) -> None:
  """Stand for the log and the checkpoints, which are not written."""


def run(
  config: ml_collections.ConfigDict,
  args: argparse.Namespace,
  source: files.Source,
  progress: Callable[..., None],
) -> int:
  """Run the check and return its exit status: 0 if it passed, else 1."""
  with errors.input_errors():
    check.check(source, images=args.images, progress=progress)
    data_build.fill_channels(config.data, source)
    _, loss = class_balance.examples_and_loss(config, source, None, progress)
    batch, pictures = crops(config, source, args.images)
    changed = short(config, steps=args.steps, images=len(pictures))
    names, label = source.spec.class_names, batch["label"]
    counts = np.bincount(label.reshape(-1), minlength=256)[: len(names)]
    trial = overfit_diagnosis.Trial(
      base_lr=config.optim.base_lr,
      clip_norm=config.optim.clip_norm,
      init=config.init.checkpoint,
      frozen=config.model.batch_norm.mode != "train",
      labeled=float(counts.sum() / label.size),
      classes=int(np.count_nonzero(counts)),
      contradictions=overfit_diagnosis.contradictions(batch, pictures),
    )
    height, width = changed.data.crop_size
    decay = changed.model.batch_norm.decay
    progress(
      f"{len(pictures)} images of {source.spec.name}, the middle "
      f"{height}x{width} of each; {trial.labeled:.1%} labeled, "
      f"{contents(counts, names)}\n"
      f"at most {args.steps} steps at lr {config.optim.base_lr:g}"
      + ("" if trial.frozen else f", norm decay {decay:.3g} for so few")
      + f"; init: {settings.init_text(config)}"
    )
    if trial.classes > 1:
      parts = make_parts(changed, source, loss, batch)
      learn(changed, parts, trial, every=args.every, progress=progress)
  score = f"mIoU {printed.score(trial.miou)} after {len(trial.losses)} steps"
  if trial.miou > PASSED:
    own = printed.score(trial.trained["miou"])
    progress(f"passed: {score} ({own} with the batch's own norm statistics)")
    for text in overfit_diagnosis.of_data(trial):
      progress(f"deeplax: {text}")
    warning = limits.norm_warning(
      parts_lib.network(config, len(names)),
      total_steps=config.train.total_steps,
      start=initial.statistics_of(config),
    )
    if warning:
      progress(f"deeplax: in the real run {warning}")
    return 0
  progress(f"not learned: {score}")
  for number, text in enumerate(overfit_diagnosis.diagnose(trial), start=1):
    progress(f"  {number}. {text}")
  return 1
