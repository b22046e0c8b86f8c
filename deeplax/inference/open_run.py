"""Open a workdir for predicting: configuration, classes, data and network.

JAX is not loaded before a network is asked for: what is wrong with a workdir,
its checkpoints or its data is said at once.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from deeplax import errors
from deeplax.data import bands
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.data import spec as spec_lib
from deeplax.inference import settings as inference_settings
from deeplax.settings import own
from deeplax.workdir import environment
from deeplax.workdir import own_code
from deeplax.workdir import settings

if TYPE_CHECKING:  # they bring JAX
  import flax.linen as nn

  from deeplax.inference import predictor as predictor_lib


class Run(NamedTuple):
  """A trained run, opened for predicting.

  Attributes:
    config: The run's configuration.
    spec: Its classes.
    channels: Mean and std of each band that it reads; None: RGB.
    workdir: Where its compiled programs are cached; None: in no place of its
      own.
    model: The network, if it was given as an object; None: the configured one.
  """

  config: ConfigDict
  spec: spec_lib.Spec
  channels: bands.Channels | None
  workdir: epath.PathLike | None = None
  model: "nn.Module | None" = None

  def network(
    self, output_stride: int | None = None, **keywords: Any
  ) -> "nn.Module":
    """Return the network at an output stride; None: the evaluations' stride.

    Further `keywords` are those of `models.build.from_config`. A network that
    was given as an object has one output stride, its own.

    Raises:
      InputError: The network does not support that stride.
    """
    from deeplax.models import build as model_build

    if self.workdir is not None:
      environment.compilation_cache(self.workdir)
    if self.model is not None:
      return self._given(output_stride)
    with errors.input_errors():
      return model_build.from_config(
        self.config.model,
        num_classes=self.spec.num_classes,
        output_stride=inference_settings.output_stride(
          self.config, output_stride
        ),
        channels=self.channels,
        **keywords,
      )

  def _given(self, output_stride: int | None) -> "nn.Module":
    from deeplax.models import deeplab

    model: Any = self.model
    own_stride = getattr(
      model.backbone, "output_stride", self.config.model.output_stride
    )
    if output_stride not in (None, own_stride):
      raise errors.InputError(
        f"output stride {output_stride}: the network was given as an object of "
        f"output stride {own_stride}. Give one of {output_stride}"
      )
    # Without what is for training alone.
    return deeplab.over(model, None).clone(auxiliary=None)

  def predictor(
    self, model: "nn.Module", variables: Any, **keywords: Any
  ) -> "predictor_lib.Predictor":
    """Return a predictor of `model`; for `keywords` see `Predictor`."""
    from deeplax.inference import predictor as predictor_lib
    from deeplax.models import build as model_build
    from deeplax.models import variables as variables_lib

    if self.model is None:
      pad_value = model_build.mean_pixel(self.config.model, self.channels)
    else:
      if variables:  # a validation sets them later
        variables_lib.refuse_other(model, variables)
      pad_value = getattr(model, "mean")  # noqa: B009
    return predictor_lib.Predictor(
      model,
      variables,
      pad_value=pad_value,
      **keywords,
    )


def open_run(
  workdir: epath.PathLike,
  config: ConfigDict,
  model: "nn.Module | None" = None,
) -> Run:
  """Return the run in a workdir; compiled programs are cached there.

  Args:
    workdir: The run's folder.
    config: As `settings.load_config` reads it.
    model: The network that it was trained with, if that was an object.

  Raises:
    InputError: The workdir has no classes, the config's bands are wrong, or the
      network is in a file that has changed, or in no file.
  """
  _refuse_other_code(workdir, config, model)
  with errors.input_errors():
    channels = data_build.channels(config.data)
    return Run(config, settings.read_spec(workdir), channels, workdir, model)


def _refuse_other_code(
  workdir: epath.PathLike, config: ConfigDict, model: "nn.Module | None" = None
) -> None:
  """Refuse a run whose network cannot be built as it was trained."""
  if model is None and config.model.given:
    raise errors.InputError(f"{workdir}: {own.FROM_PYTHON}")
  if model is None:
    own.refuse_untrusted(config, part="model.")
    own_code.refuse_other(workdir, config, part="model.")
    own.examine(config, part="model.")


def open_with_data(
  workdir: epath.PathLike,
  config: ConfigDict,
  split: str,
  data_root: str | None,
) -> tuple[Run, files.Source]:
  """Return the run in a workdir, and a split of its data; see `open_run`.

  Args:
    workdir: The run's folder.
    config: As `settings.load_config` reads it; data.root is set in it.
    split: The name of the split.
    data_root: The value of --data_root; None: the folder of the training.

  Raises:
    InputError: The data is missing or wrong, or its classes are not the run's.
  """
  _refuse_other_code(workdir, config)
  with errors.input_errors():
    config.data.root = data_root or config.data.root
    source = data_build.source(config.data, split, "--data_root")
    settings.refuse_other_classes(workdir, source.spec)
    channels = data_build.channels(config.data)
  return Run(config, source.spec, channels, workdir), source
