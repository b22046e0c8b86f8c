"""The names of the commands: of their modules, and as a user types them."""

import os
import re
import sys

# Of the modules whose command has another name.
_NAMES = {"main": "train", "data.build": "build-data", "data.shapes": "shapes"}


def name(module: str) -> str:
  """Return the command of a module: check_data is `deeplax check-data`.

  The name of a command, with dashes or underscores, returns itself.
  """
  return _NAMES.get(module) or re.sub("[._]", "-", module)


def by_name() -> bool:
  """Return whether this process is the console command `deeplax`."""
  program = os.path.basename(next(iter(sys.argv), ""))
  return program.removesuffix(".exe") == "deeplax"


def typed(module: str) -> str:
  """Return how to call a command, in the form that the user typed this one."""
  if by_name():
    return f"deeplax {name(module)}"
  return f"python -m deeplax.{module}"
