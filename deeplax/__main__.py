"""List the commands, or run one: deeplax NAME, python -m deeplax NAME"""

import ast
import difflib
import importlib
import pathlib
import sys

from deeplax import commands as commands_lib
from deeplax import errors
from deeplax.settings import find

FOLDER = pathlib.Path(__file__).parent
# Commands inside rooms, and the file that says what each is for.
IN_ROOMS = {
  "crf.search": "crf/search.py",
  "data.build": "data/prepare/command.py",
  "data.shapes": "data/shapes.py",
}
ABLATION = "ablation"


def commands() -> dict[str, str]:
  """Return {module: first line of its file}; nothing is imported."""
  files = {path.stem: path for path in FOLDER.glob("[!_]*.py")}
  return _with_main(
    files | {name: FOLDER / path for name, path in IN_ROOMS.items()}
  )


def of_ablations() -> dict[str, str]:
  """Return {module: first line of its file} of the experiments' commands."""
  files = find.shipped("experiments").glob("[!_]*.py")
  return _with_main({path.stem: path for path in files})


def _with_main(files: dict[str, pathlib.Path]) -> dict[str, str]:
  """Return the first lines of the files that have a function `main`."""
  found = {}
  for name, path in sorted(files.items()):
    text = path.read_text()
    # Other files hold what commands share, and are many: not parsed.
    if "\ndef main(" in text:
      first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
      found[name] = first.partition(": python -m")[0].rstrip(":.")
  return found


def _program() -> str:
  return "deeplax" if commands_lib.by_name() else "python -m deeplax"


def _list() -> None:
  """Print the commands with a line each."""
  print(f"usage: {_program()} NAME [--help], where NAME is")
  lines = {commands_lib.name(key): text for key, text in commands().items()}
  for name, text in sorted(lines.items()):
    print(f"  {name:<24}{text}")
  for name, text in of_ablations().items():
    print(f"  {f'{ABLATION} {name}':<24}{text}")


def _chosen(name: str, among: list[str], what: str) -> str:
  """Return a name that is among some.

  Raises:
    InputError: It is not; the message has the one that is nearest.
  """
  if name in among:
    return name
  near = difflib.get_close_matches(name, among, n=1)
  hint = f"did you mean {near[0]}? " if near else ""
  raise errors.InputError(f"no {what} {name!r}: {hint}{_program()} lists all")


@errors.command
def main(argv: list[str] | None = None) -> None:
  """Run the command that the first word names, with the other words."""
  words = sys.argv[1:] if argv is None else argv
  if not words or words[0] in ("--help", "-h"):
    _list()
    return
  first, *rest = words
  modules = {commands_lib.name(module): module for module in commands()}
  name = _chosen(commands_lib.name(first), [*modules, ABLATION], "command")
  if name != ABLATION:
    module = modules[name]
    door = importlib.import_module(f"deeplax.{module}")
    # absl takes the program's name as well.
    door.main([sys.argv[0], *rest] if module == "main" else rest)
  elif not rest or rest[0] in ("--help", "-h"):
    _list()
  else:
    stem = rest[0].replace("-", "_")
    stem = _chosen(stem, [*of_ablations()], f"command {ABLATION}")
    # By its file: `experiments` is a package in a checkout alone.
    find.load(find.shipped("experiments") / f"{stem}.py").main(rest[1:])


if __name__ == "__main__":
  main()
