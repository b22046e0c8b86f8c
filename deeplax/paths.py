"""Paths as users write them: a leading ~ is the home directory.

A shell replaces it only at the start of a word, and so not in --out=~/masks.
"""

import importlib.util
import os
import pathlib

from deeplax import errors


def expanded(text: str) -> str:
  """Return a path with its leading ~ or ~name replaced.

  Other paths, gs://bucket/run for example, are returned unchanged.

  Raises:
    InputError: There is neither such a home directory nor a file of that name,
      or no gcsfs for a bucket.
  """
  if text.startswith("gs://"):
    _use_gcsfs(text)
  path = os.path.expanduser(text)
  if path.startswith("~") and not os.path.lexists(text):
    raise errors.InputError(
      f"{text}: there is no home directory {text.split('/')[0]} on this "
      "computer; write the whole path"
    )
  return path


def _use_gcsfs(text: str) -> None:
  """Have epath open buckets by gcsfs.

  TensorFlow, which it would prefer, needs another package for them.

  Raises:
    InputError: gcsfs is not installed.
  """
  if importlib.util.find_spec("gcsfs") is None:
    raise errors.InputError(
      f"{text} needs the package gcsfs: install the extra, "
      'pip install -e ".[gcs]", or name a folder'
    )
  os.environ.setdefault("EPATH_USE_TF", "false")


def local(text: str) -> pathlib.Path:
  """Return a path on this computer; see `expanded`."""
  return pathlib.Path(expanded(text))


def absolute(text: str) -> str:
  """Return a path that is valid from any folder; see `expanded`."""
  path = expanded(text)
  return path if "://" in path else os.path.abspath(path)
