"""The one way a command ends on wrong input: a message and exit status 2."""

from collections.abc import Callable, Iterator
import contextlib
import errno
from functools import wraps
import os
import sys


class InputError(Exception):
  """Wrong input. The message names the value, the file and the fix."""


def command(main: Callable[..., int | None]) -> Callable[..., None]:
  """Wrap a command's main: InputError prints one message and exits with 2."""

  @wraps(main)
  def wrapped(*args, **kwargs):
    try:
      sys.exit(main(*args, **kwargs) or 0)
    except InputError as error:
      print(f"deeplax: {error}", file=sys.stderr)
      sys.exit(2)
    except BrokenPipeError:
      # The reader of the output, `head` for example, has seen enough.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)
    except OSError as error:
      if error.errno != errno.ENAMETOOLONG:
        raise
      print(
        f"deeplax: {error.filename}: no file can have a name as long as this. "
        "Give the right one",
        file=sys.stderr,
      )
      sys.exit(2)

  return wrapped


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
  """Turn a ValueError about a value of the configuration into a message."""
  try:
    yield
  except ValueError as error:
    raise InputError(str(error)) from error
