"""What a training reads, examined before JAX is loaded."""

import importlib.util
from typing import NamedTuple

import ml_collections

from deeplax import errors
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.training import limits
from deeplax.workdir import layout


class Inputs(NamedTuple):
  """The examples to train on, and those to evaluate on."""

  train: files.Source
  eval: files.Source


def found(config: ml_collections.ConfigDict) -> Inputs:
  """Return the data of a configuration whose values are possible.

  Raises:
    InputError: A value is impossible; data, TensorBoard or the checkpoints of
      `init.checkpoint` are missing.
  """
  limits.refuse_values(config)
  if config.log.tensorboard:
    _refuse_no_tensorboard()
  start = config.init.checkpoint
  if start is not None and not layout.checkpoint_steps(start):
    raise errors.InputError(
      f"init.checkpoint {start} has no checkpoint. {layout.nearest_runs(start)}"
    )
  with errors.input_errors():
    data = config.data
    train = data_build.source(data, data.train_split)
    return Inputs(train, data_build.source(data, data.eval_split))


def _refuse_no_tensorboard() -> None:
  # By the specification alone: TensorFlow takes seconds to import.
  for name in ("clu", "tensorboard", "tensorflow"):
    if importlib.util.find_spec(name) is None:
      raise errors.InputError(
        f"log.tensorboard needs the package {name}: install the extra, "
        'pip install -e ".[tf]", or leave --config.log.tensorboard=False; '
        "metrics.jsonl and pictures/ are written anyway"
      )
