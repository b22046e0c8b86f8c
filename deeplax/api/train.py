"""`deeplax.train`: a training run, as the command trains it."""

import os

import flax.linen as nn
from ml_collections import ConfigDict

from deeplax import errors
from deeplax import paths
from deeplax.api import config as config_lib
from deeplax.api import run as run_lib
from deeplax.training import inputs
from deeplax.training import own_loss
from deeplax.training import run as training


def train(
  config: str | ConfigDict,
  workdir: str | os.PathLike[str],
  *,
  model: nn.Module | None = None,
  loss: own_loss.Loss | None = None,
) -> run_lib.Run:
  """Train in a workdir, or resume there, and return the trained run.

      run = deeplax.train("quickstart", "runs/first")

  It is `deeplax train --config=NAME --workdir=DIR`: the same call again
  resumes, what cannot work is refused before anything is written, and progress
  is printed to standard output. In the main thread the first Ctrl-C, or
  interrupt of a notebook, saves and returns the run at that step; a second one
  ends the process. Once it returns, signal handlers are as before.

  Args:
    config: A name, as "v3plus_xception:debug", or what `deeplax.config`
      returns. It is not changed.
    workdir: The run's folder.
    model: A network of yours, as `deeplax.model` returns it, in place of the
      configured one; `deeplax.load` needs it, too.
    loss: (logits [b, h, w, k], labels [b, h, w], ignore_label=) -> the loss of
      each pixel, [b, h, w]; None: the configured one.

  Raises:
    InputError: The configuration, the data or the workdir is wrong, or the
      training cannot go on.
  """
  folder = paths.expanded(os.fspath(workdir))
  config = config_lib.given(config)
  with errors.long_work():
    training.run(
      config,
      inputs.found(config, folder),
      workdir=folder,
      model=model,
      loss=loss,
    )
  return run_lib.load(folder, model=model)
