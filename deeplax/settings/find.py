"""Find configurations: deeplax's own by name, a user's by path.

The files of configs/ and experiments/ are loaded by path and never imported as
packages, so that folders of these names in the current one are not confused
with them.
"""

import functools
import importlib.util
import pathlib
import traceback
import types

from deeplax import errors

PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def shipped(folder: str) -> pathlib.Path:
  """Return the folder configs/ or experiments/ that came with deeplax.

  An installed package has it inside, a checkout beside the package.
  """
  inside = PACKAGE / folder
  return inside if inside.is_dir() else PACKAGE.parent / folder


@functools.cache
def names() -> tuple[str, ...]:
  """Return the names of the configurations that come with deeplax."""
  files = shipped("configs").glob("*.py")
  stems = (p.stem for p in files if "\ndef get_config(" in p.read_text())
  return tuple(sorted(stems))


def own(name: str) -> pathlib.Path:
  """Return the file of a configuration that comes with deeplax.

  Raises:
    InputError: There is none of that name.
  """
  if name not in names():
    raise errors.InputError(
      f"no configuration {name!r} in deeplax; have {', '.join(names())}"
    )
  return shipped("configs") / f"{name}.py"


def config(text: str) -> pathlib.Path:
  """Return the file of a configuration given by path or name.

  Args:
    text: A file, or one of deeplax's configurations: v3plus_xception,
      v3plus_xception.py or configs/v3plus_xception.py.

  Raises:
    InputError: It is neither.
  """
  path = pathlib.Path(text)
  if path.is_file():
    return path
  name = text.removeprefix("configs/").removesuffix(".py")
  if name not in names():
    beside = sorted(str(file) for file in path.parent.glob("[!_]*.py"))
    own_files = f". In {path.parent}: {', '.join(beside)}" if beside else ""
    raise errors.InputError(
      f"no configuration {text!r}: there is no such file, and none of that "
      "name comes with deeplax. Give the path of your own, or one of "
      f"{', '.join(names())}{own_files}"
    )
  return own(name)


def load(path: pathlib.Path) -> types.ModuleType:
  """Run a Python file; return it as a module that nothing else can import."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or spec.loader is None:
    raise errors.InputError(f"{path} is no Python file")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def where(error: Exception, path: pathlib.Path) -> str:
  """Return an error's text and the last line of a file that it came through."""
  lines = [
    frame.lineno
    for frame in traceback.extract_tb(error.__traceback__)
    if pathlib.Path(frame.filename).resolve() == path.resolve()
  ]
  text = str(error)
  if isinstance(error, SyntaxError):
    lines, text = [error.lineno], error.msg
  line = f"line {lines[-1]}: " if lines else ""
  return f"{line}{type(error).__name__}: {text}"
