"""Hold a command at a function, or let the disk be full there.

DEEPLAX_HELD="module:function CALL FILE" holds that call until FILE exists, and
DEEPLAX_FULL="module:function CALL RANK" fails in one of several processes.
"""

from collections.abc import Callable
import errno
import functools
import importlib
import itertools
import os
import pathlib
import sys
import time

VARIABLE = "DEEPLAX_HELD"
FULL = "DEEPLAX_FULL"
LIMIT = 120  # seconds; a test that failed lets nothing go on


def at(function: str, call: int, file: pathlib.Path) -> dict[str, str]:
  """Return the environment of a command that is held there."""
  return {VARIABLE: f"{function} {call} {file}"}


def full(function: str, call: int, rank: int) -> dict[str, str]:
  """Return the environment in which that call finds no space on the disk."""
  return {FULL: f"{function} {call} {rank}"}


def by_environment() -> None:
  """Hold this process, or let it fail, where its environment says."""
  if VARIABLE in os.environ:
    function, call, file = os.environ[VARIABLE].split(maxsplit=2)
    _before(function, int(call), functools.partial(_wait, pathlib.Path(file)))
  if FULL in os.environ:
    function, call, rank = os.environ[FULL].split()
    if f"--process_id={rank}" in sys.argv:
      _before(function, int(call), _fail)


def _before(function: str, call: int, act: Callable[[str], None]) -> None:
  module, _, name = function.partition(":")
  *owners, name = name.split(".")
  owner = functools.reduce(getattr, owners, importlib.import_module(module))
  original, calls = getattr(owner, name), itertools.count(1)

  @functools.wraps(original)
  def watched(*args, **kwargs):
    if next(calls) == call:
      act(name)
    return original(*args, **kwargs)

  setattr(owner, name, watched)


def _wait(file: pathlib.Path, name: str) -> None:
  print(f"held in {name}", flush=True)
  end = time.monotonic() + LIMIT
  while not file.exists() and time.monotonic() < end:
    time.sleep(0.02)


def _fail(_: str) -> None:
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
