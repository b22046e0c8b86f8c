"""The parts of a training run, before anything is compiled or written."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import optax

from deeplax.data import files
from deeplax.training import losses


class Parts(NamedTuple):
  """The parts of a training run.

  Attributes:
    train_source: The examples as they are trained on.
    eval_source: The examples of the validation.
    model: The network, its norms under the mesh's axis.
    loss: What is minimized.
    lr: The learning rate by step.
    tx: The optimizer.
    batches: An iterator of this process's part of the training batches.
    measure: Scores the network; of a run `validation.evaluator`.
    mesh: The devices.
  """

  train_source: files.Source
  eval_source: files.Source
  model: nn.Module
  loss: losses.Settings
  lr: optax.Schedule
  tx: optax.GradientTransformation
  batches: Any
  measure: Callable[..., Any]
  mesh: jax.sharding.Mesh
