"""What deeplax.convert is given, examined before JAX is loaded."""

import argparse
from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

import ml_collections

from deeplax import errors
from deeplax import text_files
from deeplax.data import build as data_build
from deeplax.data import folder as folder_lib
from deeplax.data import spec as spec_lib
from deeplax.inference import open_run
from deeplax.pretrained import files
from deeplax.settings import own
from deeplax.settings import published
from deeplax.workdir import sealed
from deeplax.workdir import settings

_UNLABELED_FIRST = ("tf_deeplab", "ade20k")


class Given(NamedTuple):
  """What a network is to be made of.

  Attributes:
    spec: Its classes.
    step: Of the workdir to read; None: the weights are another program's.
    read: Returns the other program's arrays by name.
    source_classes: The value of --source_classes, as names; None: not given.
  """

  spec: spec_lib.Spec
  step: int | None
  read: Callable[[], Mapping[str, Any]]
  source_classes: Sequence[str] | None


class Exported(NamedTuple):
  """A run to write out, the step of its checkpoint, what writes the file."""

  run: open_run.Run
  step: int
  write: files.Write


def found(
  config: ml_collections.ConfigDict | None, args: argparse.Namespace
) -> Given | Exported:
  """Return `exported` with --to, else `given`, which needs `config`."""
  if args.to:
    return exported(args)
  assert config is not None
  return given(config, args)


def given(config: ml_collections.ConfigDict, args: argparse.Namespace) -> Given:
  """Return what the flags of `deeplax.convert` name.

  Raises:
    InputError: The workdir holds a run, or the classes or the checkpoint cannot
      be read.
  """
  if (step := sealed.sound_step(args.workdir)) is not None:
    raise errors.InputError(
      f"--workdir={args.workdir} holds a run at step {step}; give another one"
    )
  spec = _spec(config, args.classes)
  if config.data.channels is not None:
    raise errors.InputError(
      f"data.channels {config.data.channels}: published weights are RGB. "
      "Convert without it, then train with the bands and "
      "--config.init.checkpoint"
    )
  names = source_classes(args.source_classes, args.source)
  if args.source == published.OWN:
    return Given(spec, sealed.wanted_step(args.checkpoint), dict, names)
  return Given(spec, None, files.reader(args.checkpoint), names)


def exported(args: argparse.Namespace) -> Exported:
  """Return what the flags of `deeplax.convert --to` name.

  Raises:
    InputError: The workdir has no weights, or the file is of no known kind.
  """
  config = settings.load_config(args.workdir)
  if args.own_code:
    own.trust(config)
  run = open_run.open_run(args.workdir, config)
  write = files.writer(args.out)
  return Exported(run, sealed.wanted_step(args.workdir, args.step), write)


def _spec(
  config: ml_collections.ConfigDict, classes: str | None
) -> spec_lib.Spec:
  """Return the classes: those of --classes, or of the config's data."""
  if classes is None:
    return data_build.spec(config.data)
  if config.data.name != data_build.FOLDER:
    raise errors.InputError(
      f"--classes is for own data; config.data.name {config.data.name!r} has "
      "its own classes"
    )
  path = pathlib.Path(classes)
  return folder_lib.spec(path.parent if path.is_file() else path)


def source_classes(text: str | None, source: str) -> Sequence[str] | None:
  """Return the names that --source_classes stands for, by place.

  Args:
    text: A data set's name, a file with a JSON list, or None (result: None).
    source: The program that the logits come from.

  Raises:
    InputError: `text` is neither.
  """
  if text is None:
    return None
  if text in spec_lib.SPECS:
    names = spec_lib.SPECS[text].class_names
    # research/deeplab datasets/data_generator.py: 151 classes, of which the
    # first stands for unlabeled pixels.
    return ("", *names) if (source, text) == _UNLABELED_FIRST else names
  names = text_files.read_json(
    text,
    kind=object,
    fix=f"--source_classes={text} has to be one of {sorted(spec_lib.SPECS)} or "
    'a JSON file of a list, ["road", "car"]',
  )
  if isinstance(names, dict):
    names = names.get("names")
  texts = isinstance(names, list) and all(isinstance(n, str) for n in names)
  if not names or not texts:
    raise errors.InputError(
      f'--source_classes={text} has to hold a list, ["road", "car"]'
    )
  return names
