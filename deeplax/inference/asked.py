"""What a command line asks of a run, examined before JAX is loaded."""

import argparse
from typing import Any, NamedTuple

from etils import epath

from deeplax import errors
from deeplax.data import files
from deeplax.data import views
from deeplax.inference import mode as mode_lib
from deeplax.inference import open_run
from deeplax.inference import settings
from deeplax.inference import sizing as sizing_lib
from deeplax.settings import own
from deeplax.workdir import layout
from deeplax.workdir import own_code
from deeplax.workdir import sealed
from deeplax.workdir import settings as run_settings


class Asked(NamedTuple):
  """A run, and how it is to predict.

  Attributes:
    run: Opened.
    step: Of the checkpoint, which is sound.
    strides: Output strides; only evaluations have several.
    modes: Scales and flips; only evaluations have several.
    sizing: How images are padded or cut.
    crf: Parameters of the dense CRF; None: no CRF.
    batch: Images at once on each device; 0: as many as fit.
  """

  run: open_run.Run
  step: int
  strides: tuple[int, ...]
  modes: tuple[mode_lib.Mode, ...]
  sizing: sizing_lib.Sizing
  crf: dict[str, Any] | None
  batch: int


def pictures(args: argparse.Namespace, model: Any = None) -> Asked:
  """Return what the flags of `deeplax.predict` ask of a run.

  Args:
    args: The flags.
    model: See `open_run`.

  Raises:
    InputError: A flag or the workdir is wrong.
  """
  config = _config(args)
  run = open_run.open_run(args.workdir, config, model)
  stride = settings.output_stride(config, args.output_stride)
  return _asked(run, args, (stride,), (settings.mode(config, args),))


def evaluation(args: argparse.Namespace) -> tuple[Asked, files.Source]:
  """Return what the flags of `deeplax.evaluate` ask, and the split's data.

  Raises:
    InputError: A flag, the workdir or the data is wrong.
  """
  config = _config(args)
  strides, modes = settings.strides_and_modes(config, args)
  run, source = open_run.open_with_data(
    args.workdir, config, args.split or config.data.eval_split, args.data_root
  )
  return _asked(run, args, strides, modes), source


def crf_search(args: argparse.Namespace) -> tuple[Asked, files.Source]:
  """Return what the flags of `deeplax.crf.search` ask, and the images.

  Raises:
    InputError: A flag, the workdir or the data is wrong.
  """
  config = _config(args)
  if config.data.channels is not None:
    raise errors.InputError(
      "the CRF compares colors, and this run reads the bands "
      f"data.channels={tuple(config.data.channels)}"
    )
  stride = settings.output_stride(config, args.output_stride)
  split = args.split or config.data.eval_split
  run, source = open_run.open_with_data(
    args.workdir, config, split, args.data_root
  )
  subset = views.Subset(source, args.images)
  if not len(subset):
    raise errors.InputError(f"no image in {run.spec.name} {split}")
  return _asked(run, args, (stride,), (settings.mode(config, args),)), subset


def recalibrated(args: argparse.Namespace) -> str:
  """Return the workdir that `deeplax.recalibrate` writes."""
  return args.out or f"{args.workdir.rstrip('/')}_recalibrated"


def statistics(
  args: argparse.Namespace,
) -> tuple[open_run.Run, files.Source, int]:
  """Return what `deeplax.recalibrate` measures on: run, data, step.

  Raises:
    InputError: A flag, the workdir or the data is wrong.
  """
  out = epath.Path(recalibrated(args))
  if (out / layout.CONFIG).exists():
    raise errors.InputError(
      f"--out={out} holds a run already; name another folder, or remove it"
    )
  config = _config(args)
  # The new workdir keeps copies of all of them.
  own_code.refuse_other(args.workdir, config)
  run, source = open_run.open_with_data(
    args.workdir, config, config.data.train_split, args.data_root
  )
  return run, source, sealed.wanted_step(args.workdir, args.step)


def _config(args: argparse.Namespace) -> Any:
  """Return the run's configuration; --own_code trusts the files it names."""
  config = run_settings.load_config(args.workdir)
  if args.own_code:
    own.trust(config)
  return config


def _asked(
  run: open_run.Run,
  args: argparse.Namespace,
  strides: tuple[int, ...],
  modes: tuple[mode_lib.Mode, ...],
) -> Asked:
  return Asked(
    run,
    strides=strides,
    modes=modes,
    sizing=settings.sizing(run.config, args),
    crf=settings.crf_parameters(run.config, args),
    batch=settings.batch(run.config, args),
    # Last, since it reads the whole checkpoint.
    step=sealed.wanted_step(args.workdir, args.step),
  )
