"""The names of the commands: of their modules, and as a user types them."""

import os
import re
import sys

# Of the modules whose command has another name.
_NAMES = {"main": "train", "data.build": "build-data", "data.shapes": "shapes"}
_MODULE = re.compile(r"python -m deeplax\.(\w+(?:\.\w+)?)")
_ABLATION = re.compile(r"python -m (?:deeplax\.)?experiments\.(\w+)")


def name(module: str) -> str:
  """Return the command of a module: check_data is `deeplax check-data`.

  The name of a command, with dashes or underscores, returns itself.
  """
  return _NAMES.get(module) or re.sub("[._]", "-", module)


def by_name() -> bool:
  """Return whether this process is the console command `deeplax`."""
  program = os.path.basename(next(iter(sys.argv), ""))
  return program.removesuffix(".exe") == "deeplax"


def as_typed(text: str) -> str:
  """Return a text whose commands have the form that the user typed.

  Messages have `python -m deeplax.check_data`, which works everywhere.
  """
  if not by_name():
    return text
  text = _ABLATION.sub(r"deeplax ablation \1", text)
  return _MODULE.sub(lambda found: f"deeplax {name(found[1])}", text)


def typed(module: str) -> str:
  """Return how to call a command, in the form that the user typed this one."""
  return as_typed(f"python -m deeplax.{module}")
