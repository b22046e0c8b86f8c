"""Measure the norms' running statistics of a run anew, on training batches."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import itertools
import time
from typing import Any

from etils import epath
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from deeplax import clocks
from deeplax import commands
from deeplax import errors
from deeplax.data import files
from deeplax.inference import asked
from deeplax.inference import open_run
from deeplax.models import variables as variables_lib
from deeplax.training import optim
from deeplax.training import parts as parts_lib
from deeplax.training import state as state_lib
from deeplax.workdir import checkpoint
from deeplax.workdir import lock
from deeplax.workdir import saves
from deeplax.workdir import settings

SHOWN = 5  # norms that moved farthest, in the printed table


def measured(
  model: nn.Module, variables: dict[str, Any], batches: Iterable[np.ndarray]
) -> dict[str, Any]:
  """Return the running statistics of a network over batches of equal size.

  The mean is the mean of the batches' means; the variance that of all pixels,
  the mean of the batches' variances plus the variance of their means. Batches
  are normalized by their own statistics, as in training.

  Args:
    model: With norms in mode "train" and of decay 0, which hold the statistics
      of the last batch alone.
    variables: {"params", "batch_stats"}.
    batches: Raw images [b, h, w, c].

  Returns:
    The new "batch_stats".
  """

  @jax.jit
  def of_batch(images):
    return model.apply(
      variables,
      images,
      train=True,
      method="coarse",
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(0)},
    )[1]["batch_stats"]

  # Of each array: the sum over batches; of each mean also that of its square.
  count, sums, squares = 0, {}, {}
  for images in batches:
    count += 1
    flat: Any = flax.traverse_util.flatten_dict(of_batch(images))
    for path, leaf in flat.items():
      value = np.asarray(leaf, np.float64)
      sums[path] = sums.get(path, 0.0) + value
      if path[-1] == "mean":
        squares[path] = squares.get(path, 0.0) + value**2
  if not count:
    raise ValueError("no batch to measure the statistics on")
  # Variance of all pixels: within the batches, plus between them.
  means = {path: value / count for path, value in sums.items()}
  for path, square in squares.items():
    between = square / count - means[path] ** 2
    means[(*path[:-1], "var")] += np.maximum(between, 0)
  return flax.traverse_util.unflatten_dict(
    {p: v.astype(np.float32) for p, v in means.items()}
  )


def counted(
  batches: Iterator[Mapping[str, np.ndarray]],
  count: int,
  progress: Callable[[str], None],
  *,
  now: Callable[[], float] = time.perf_counter,
) -> Iterator[np.ndarray]:
  """Yield the images of `count` batches, with progress lines in between.

  The clock starts after the first batch, whose time is that of compiling.
  """
  report = None
  for example in itertools.islice(batches, count):
    images = example["image"]
    first = clocks.ticking("compiling the first batch", progress)
    with contextlib.nullcontext() if report else first:
      yield images
    if report is None:
      total = (count - 1) * len(images)
      report = clocks.Progress(total, progress, name="measured", now=now)
    else:
      report.step(len(images))


def moved(
  old: dict[str, Any], new: dict[str, Any]
) -> list[tuple[str, float, float]]:
  """Return (norm, shift of the mean, factor of the deviation), farthest first.

  The shift is in old standard deviations; both are averages over channels.
  """
  before = flax.traverse_util.flatten_dict(old)
  after = flax.traverse_util.flatten_dict(new)
  rows = []
  for path, mean in before.items():
    if path[-1] != "mean":
      continue
    spread = (*path[:-1], "var")
    was = np.sqrt(np.asarray(before[spread]) + 1e-12)
    shift = np.abs(np.asarray(after[path]) - np.asarray(mean)) / was
    factor = np.sqrt(np.asarray(after[spread]) + 1e-12) / was
    rows.append(
      ("/".join(path[:-1]), float(shift.mean()), float(factor.mean()))
    )
  return sorted(rows, key=lambda row: -(row[1] + abs(np.log(row[2]))))


def run(
  args: argparse.Namespace,
  opened: open_run.Run,
  source: files.Source,
  step: int,
  progress: Callable[..., None],
) -> None:
  """Write a copy of the run in `args.workdir`, its statistics measured anew.

  Args:
    args: The flags of `deeplax.recalibrate`.
    opened: The run; its configuration is changed.
    source: Its training data.
    step: Of a sound checkpoint.
    progress: Receives lines.

  Raises:
    InputError: A file cannot be read or written.
  """
  out = epath.Path(asked.recalibrated(args))
  config = opened.config  # `save` reads it unchanged
  frozen = config.model.batch_norm.mode != "train"
  keep_one_batch(config.model.batch_norm)
  if args.batch_size:
    config.train.batch_size = args.batch_size
  variables = checkpoint.read(args.workdir, step)
  model = opened.network(config.model.output_stride)
  _refuse_other_norms(model)
  with errors.input_errors():
    batches = parts_lib.batches(config, source)
  if frozen:
    progress(
      "the run's norms were frozen: these are what training would have seen"
    )
  # Locked before the measurement: a folder that cannot be written fails early.
  with lock.held(out, "--out"):
    stats = measured(model, variables, counted(batches, args.batches, progress))
    rows = moved(variables["batch_stats"], stats)
    progress(
      f"{len(rows)} norms over {args.batches} batches; those that moved most:"
    )
    for name, shift, factor in rows[:SHOWN]:
      progress(
        f"  {name}: mean by {shift:.2f} deviations, deviation x {factor:.2f}"
      )
    save(
      args.workdir,
      out,
      {**variables, "batch_stats": stats},
      step,
      data_root=args.data_root,
    )
  progress(f"Next: {commands.typed('evaluate')} --workdir={out}")


def _refuse_other_norms(model: nn.Module) -> None:
  """Refuse norms whose decay cannot be set, in parts of a user's own."""
  for collection, *path in variables_lib.of_other_layers(model):
    if collection == "batch_stats":
      raise errors.InputError(
        f"{'/'.join(path)} is of a norm of your own, and deeplax measures its "
        "own norms alone: those of convolutions made with style or norm"
      )


def keep_one_batch(norm: ml_collections.ConfigDict) -> None:
  """Set `config.model.batch_norm` so that norms hold their last batch alone."""
  norm.mode = "train"
  norm.decay = 0.0


def save(
  workdir: str,
  out: epath.Path,
  variables: dict[str, Any],
  step: int,
  *,
  data_root: str | None = None,
) -> None:
  """Write `out` as a copy of the run at `step` with other variables.

  Training can resume there at that step, but with a fresh optimizer and from
  the start of the data.
  """
  config = settings.load_config(workdir)
  config.data.root = data_root or config.data.root
  spec = settings.read_spec(workdir)
  _, tx = optim.optimizer(config)
  state = state_lib.create(
    variables, tx, seed=config.seed, average=config.optim.ema_decay > 0
  )
  count = jnp.int32(step)
  state = dataclasses.replace(
    state,
    step=count,
    # The schedule continues at that step; momentum starts from zero.
    opt_state=optax.tree_utils.tree_set(
      state.opt_state,
      lambda path, _: path[-1].tuple_name == "ScaleByScheduleState",
      count=count,
    ),
  )
  settings.write_run_files(out, config, spec, state.params, lambda *_: None)
  saves.save_start(out, state, step=step)
