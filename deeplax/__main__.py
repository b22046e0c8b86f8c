"""List the commands: python -m deeplax"""

import ast
import pathlib
import sys

from deeplax import errors

FOLDER = pathlib.Path(__file__).parent
# Commands inside rooms, and the file that says what each is for.
IN_ROOMS = {
  "crf.search": "crf/search.py",
  "data.build": "data/prepare/command.py",
  "data.shapes": "data/shapes.py",
}


def commands() -> dict[str, str]:
  """Return {name: first line of its file}; nothing is imported."""
  files = {path.stem: path for path in FOLDER.glob("[!_]*.py")}
  files |= {name: FOLDER / path for name, path in IN_ROOMS.items()}
  found = {}
  for name, path in sorted(files.items()):
    tree = ast.parse(path.read_text())
    # The other files of this folder are what commands share.
    if any(getattr(node, "name", None) == "main" for node in tree.body):
      first = (ast.get_docstring(tree) or "").partition("\n")[0]
      found[name] = first.partition(": python -m")[0].rstrip(":.")
  return found


@errors.command
def main(argv: list[str] | None = None) -> None:
  words = sys.argv[1:] if argv is None else argv
  if words and words[0] not in ("--help", "-h"):
    raise errors.InputError(
      f"{words[0]!r} is no flag of python -m deeplax, which lists the commands;"
      " each of them is python -m deeplax.NAME"
    )
  print("usage: python -m deeplax.NAME [--help], where NAME is")
  for name, text in commands().items():
    print(f"  {name:<16}{text}")


if __name__ == "__main__":
  main()
