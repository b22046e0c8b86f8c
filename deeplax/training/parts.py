"""The parts of a training run, made before anything is compiled or written."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import optax

from deeplax import errors
from deeplax import parallel
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.models import build as model_build
from deeplax.models import deeplab
from deeplax.settings import own
from deeplax.training import losses
from deeplax.training import own_loss


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


class Objects(NamedTuple):
  """What a run was given as objects, in place of what is configured."""

  model: nn.Module | None = None
  loss: own_loss.Loss | None = None


NO_OBJECTS = Objects()


def with_objects(
  config: ml_collections.ConfigDict, objects: Objects
) -> ml_collections.ConfigDict:
  """Return the configuration, which says what was given as objects.

  Raises:
    InputError: It says so of something that was not given now.
  """
  config = config.copy_and_resolve_references()
  if objects.model is not None:
    config.model.given = True
  if objects.loss is not None:
    config.train.loss = own.OBJECT
  elif config.train.loss == own.OBJECT:
    raise errors.InputError(
      f"train.loss {own.OBJECT}: that loss was given as a Python object, which "
      "only Python code can give again: deeplax.train(config, workdir, "
      "loss=...)"
    )
  return config


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


def given(
  config: ml_collections.ConfigDict, model: Any, num_classes: int
) -> deeplab.DeepLab:
  """Return a network that was given as an object, as a run trains it.

  Its norms share their statistics over the devices, and parts that do not train
  have fixed ones.

  Raises:
    InputError: It is not a network for this configuration's data and loss.
  """
  if not isinstance(model, deeplab.DeepLab):
    raise errors.InputError(
      f"model={type(model).__name__}(...): give a network of deeplax, which "
      "takes modules of your own: deeplax.model(..., decoder=MyDecoder())"
    )
  channels = data_build.channels(config.data)
  bands = len(channels[0] if channels else "RGB")
  stride = getattr(model.backbone, "output_stride", config.model.output_stride)
  auxiliary = config.train.auxiliary_weight > 0
  for what, have, need in (
    ("classes", model.num_classes, num_classes),
    ("channels of the images", len(model.mean), bands),
    ("auxiliary head", model.auxiliary is not None, auxiliary),
    (
      "output stride of evaluations",
      stride,
      config.eval.output_stride or stride,
    ),
  ):
    if have != need:
      raise errors.InputError(
        f"model=: its {what}: {have}, and the configuration's: {need}. Make it "
        "for this configuration, or change that"
      )
  model = deeplab.over(model, parallel.AXIS)
  trained = tuple(config.optim.trained)
  return model_build.fix_others(model, trained) if trained else model


def mean_pixel(config: ml_collections.ConfigDict) -> tuple[float, ...]:
  """Return the value of pixels outside an image."""
  channels = data_build.channels(config.data)
  return model_build.mean_pixel(config.model, channels)


def batches(
  config: ml_collections.ConfigDict,
  source: files.Source,
  pad_value: tuple[float, ...] | None = None,
) -> Any:
  """Return an iterator of this process's part of the training batches.

  Args:
    pad_value: Value of pixels outside an image; None: `mean_pixel`.
  """
  return data_build.train_loader(
    config,
    source,
    pad_value=mean_pixel(config) if pad_value is None else pad_value,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
