"""The parts of a training run, made before anything is compiled or written."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import optax

from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.models import build as model_build
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


def network(
  config: ml_collections.ConfigDict, num_classes: int, **keywords: Any
) -> nn.Module:
  """Return the network of a run; `keywords` as `models.build.from_config`."""
  return model_build.from_config(
    config.model,
    num_classes=num_classes,
    channels=data_build.channels(config.data),
    trained=config.optim.trained,
    **keywords,
  )


def mean_pixel(config: ml_collections.ConfigDict) -> tuple[float, ...]:
  """Return the value of pixels outside an image."""
  channels = data_build.channels(config.data)
  return model_build.mean_pixel(config.model, channels)


def batches(config: ml_collections.ConfigDict, source: files.Source) -> Any:
  """Return an iterator of this process's part of the training batches."""
  return data_build.train_loader(
    config,
    source,
    pad_value=mean_pixel(config),
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
