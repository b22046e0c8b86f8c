"""Hold a command at a function, until a test lets it go on or kills it.

DEEPLAX_HELD="module:function CALL FILE" holds that call until FILE exists.
"""

import functools
import importlib
import itertools
import os
import pathlib
import time

VARIABLE = "DEEPLAX_HELD"
LIMIT = 120  # seconds; a test that failed lets nothing go on


def at(function: str, call: int, file: pathlib.Path) -> dict[str, str]:
  """Return the environment of a command that is held there."""
  return {VARIABLE: f"{function} {call} {file}"}


def by_environment() -> None:
  """Hold this process where its environment says."""
  if VARIABLE not in os.environ:
    return
  function, call, file = os.environ[VARIABLE].split(maxsplit=2)
  module, _, name = function.partition(":")
  *owners, name = name.split(".")
  owner = functools.reduce(getattr, owners, importlib.import_module(module))
  original, calls = getattr(owner, name), itertools.count(1)

  @functools.wraps(original)
  def held(*args, **kwargs):
    if next(calls) == int(call):
      print(f"held in {name}", flush=True)
      end = time.monotonic() + LIMIT
      while not pathlib.Path(file).exists() and time.monotonic() < end:
        time.sleep(0.02)
    return original(*args, **kwargs)

  setattr(owner, name, held)
