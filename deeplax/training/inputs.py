"""What a training reads, examined before JAX is loaded."""

import importlib.util
from typing import NamedTuple

import ml_collections

from deeplax import errors
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.pretrained import files as weight_files
from deeplax.settings import own
from deeplax.training import limits
from deeplax.training import start_commands
from deeplax.workdir import layout


class Inputs(NamedTuple):
  """The examples to train on, and those to evaluate on."""

  train: files.Source
  eval: files.Source


def found(config: ml_collections.ConfigDict, workdir: str) -> Inputs:
  """Return the data of a configuration whose values are possible.

  Args:
    config: Of the run.
    workdir: Where a run that goes on has its checkpoints: it reads no others.

  Raises:
    InputError: A value is impossible; data, TensorBoard or the checkpoints of
      `init.checkpoint` are missing.
  """
  _refuse_values(config)
  if config.log.tensorboard:
    _refuse_no_tensorboard()
  start = config.init.checkpoint
  goes_on = layout.checkpoint_steps(workdir)
  if start is not None and not (goes_on or layout.checkpoint_steps(start)):
    if weights := weight_files.found_at(start):
      raise errors.InputError(
        f"init.checkpoint {start} holds another program's weights, and a run "
        "starts from a workdir. Make one of them:\n"
        + start_commands.for_file(weights)
      )
    raise errors.InputError(
      f"init.checkpoint {start} has no checkpoint. {layout.nearest_runs(start)}"
    )
  with errors.input_errors():
    data = config.data
    train = data_build.source(data, data.train_split)
    return Inputs(train, data_build.source(data, data.eval_split))


def examples(config: ml_collections.ConfigDict) -> files.Source:
  """Return the examples to train on alone, for `overfit_check`.

  Raises:
    InputError: A value is impossible, or the data is missing.
  """
  _refuse_values(config)
  with errors.input_errors():
    return data_build.source(config.data, config.data.train_split)


def _refuse_values(config: ml_collections.ConfigDict) -> None:
  limits.refuse_values(config)
  own.with_whole_paths(config)
  own.examine(config)


def _refuse_no_tensorboard() -> None:
  # By the specification alone: TensorFlow takes seconds to import.
  for name in ("clu", "tensorboard", "tensorflow"):
    if importlib.util.find_spec(name) is None:
      raise errors.InputError(
        f"log.tensorboard needs the package {name}: install the extra, "
        'pip install -e ".[tf]", or leave --config.log.tensorboard=False; '
        "metrics.jsonl and pictures/ are written anyway"
      )
