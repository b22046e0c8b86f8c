"""Parts of a user's own: "my_decoder.py:MyDecoder(channels=64)" in a key.

Such a value names a class or function in a Python file, with keyword arguments
that are literals. What is wrong with one is told before JAX is loaded, as far
as the text of the file shows it.

A file is run only if the user has named it in this process: on the command
line, in a configuration or an experiment, or, where a workdir names it, by
--own_code. A workdir may come from a stranger, and may name any file of this
machine.
"""

import ast
from collections.abc import Mapping
import functools
import hashlib
import os
import pathlib
import re
import sys
import types
from typing import Any, NamedTuple, TypeGuard

from deeplax import errors
from deeplax import paths
from deeplax.settings import find

# Keys that may name a part of a user's own.
KEYS = ("model.backbone", "model.head", "model.decoder.kind", "train.loss")
# How messages write such a value.
FORM = "FILE.py:NAME"
# The value of `train.loss` in a run whose loss was handed over in Python.
OBJECT = "object"
FROM_PYTHON = (
  "this run's network was given as a Python object, which only Python code can "
  "make again: use deeplax.load(workdir, model=...) from Python, or "
  "deeplax.train(config, workdir, model=...) to go on training"
)
# Files that the user has named in this process.
_trusted: set[str] = set()
_REFERENCE = re.compile(r"(.+?\.py):([A-Za-z_]\w*)(\(.*\))?", re.DOTALL)


class Reference(NamedTuple):
  """A class or function in a file, and its keyword arguments.

  Attributes:
    key: Of the configuration.
    path: Of the file.
    name: Of the class or function.
    arguments: As they were written, with parentheses; "": none.
    keywords: Their values.
  """

  key: str
  path: str
  name: str
  arguments: str
  keywords: Mapping[str, Any]

  def __str__(self) -> str:
    return f"{self.key} {self.path}:{self.name}{self.arguments}"


def is_own(value: Any) -> TypeGuard[str]:
  """Return whether a value names something in a Python file."""
  return isinstance(value, str) and ".py:" in value


def parsed(key: str, value: str) -> Reference:
  """Return what a value names.

  Raises:
    InputError: It is not written as FILE.py:NAME or FILE.py:NAME(width=64).
  """
  match = _REFERENCE.fullmatch(value.strip())
  if match is None:
    raise _wrong_form(key, value)
  path, name, arguments = match[1], match[2], match[3] or ""
  try:
    (statement,) = ast.parse(f"{name}{arguments}").body
    call: Any = getattr(statement, "value", None)
    words = getattr(call, "keywords", ())
    keywords = {
      word.arg: _frozen(ast.literal_eval(word.value)) for word in words
    }
    if len(keywords) < len(words):
      raise _wrong_form(key, value)
  except (SyntaxError, TypeError, ValueError) as error:
    raise _wrong_form(key, value) from error
  called = isinstance(call, ast.Call) and not call.args
  named = isinstance(call.func if called else call, ast.Name)
  if None in keywords or not named:
    raise _wrong_form(key, value)
  return Reference(key, path, name, arguments, keywords)


def _wrong_form(key: str, value: str) -> errors.InputError:
  return errors.InputError(
    f"{key} {value!r}: write FILE.py:NAME, or with keyword arguments that are "
    "numbers, texts or tuples FILE.py:NAME(width=64)"
  )


def _frozen(value: Any) -> Any:
  """Return lists as tuples: a module's fields are hashed."""
  if isinstance(value, list | tuple):
    return tuple(_frozen(item) for item in value)
  hash(value)  # a dictionary raises TypeError
  return value


def absolute(key: str, value: str, folder: str | os.PathLike = "") -> str:
  """Return a value whose file is named by its whole path, and trust the file.

  Args:
    key: Of the configuration.
    value: Names a file, and comes from the user.
    folder: Where a relative path starts; "": the current folder.

  Raises:
    InputError: As `parsed`.
  """
  found = parsed(key, value)
  path = os.path.abspath(os.path.join(folder, paths.expanded(found.path)))
  _trusted.add(path)
  return f"{path}:{found.name}{found.arguments}"


def trust(config: Any) -> None:
  """Trust the files that a workdir's configuration names: the user says so."""
  _trusted.update(reference.path for reference in references(config))


def refuse_untrusted(config: Any, *, part: str = "") -> None:
  """Refuse files that the user has not named in this process.

  Args:
    config: A configuration.
    part: Beginning of the keys that matter, "model."; "": all.

  Raises:
    InputError: Saying what to do.
  """
  for reference in references(config, part=part):
    _refuse_untrusted(reference)


def _refuse_untrusted(reference: Reference) -> None:
  if reference.path not in _trusted:
    raise errors.InputError(
      f"{reference}: the workdir names a program, and it is not run unless you "
      "say so. If the run is yours, or if you have read that file and trust "
      "it with these arguments, add --own_code (in Python "
      "deeplax.load(workdir, own_code=True), or name it in deeplax.config)"
    )


def short(value: str) -> str:
  """Return a value without the folder of its file, as tables show it."""
  path, _, rest = value.partition(".py:")
  return f"{os.path.basename(path)}.py:{rest}"


def with_whole_paths(config: Any) -> None:
  """Set the keys of `config` that name a file to its whole path.

  Raises:
    InputError: As `parsed`.
  """
  config.update_from_flattened_dict(
    {key: absolute(key, value) for key, value in named(config).items()}
  )


def references(config: Any, *, part: str = "") -> list[Reference]:
  """Return all that a configuration names in files of the user's.

  Args:
    config: A configuration.
    part: Beginning of the keys that matter, "model."; "": all.

  Raises:
    InputError: As `parsed`.
  """
  found = named(config).items()
  return [parsed(key, value) for key, value in found if key.startswith(part)]


def named(config: Any) -> dict[str, str]:
  """Return the values that name a file, by key."""
  found = {}
  for key in KEYS:
    *folders, last = key.split(".")
    place = functools.reduce(lambda part, name: part[name], folders, config)
    if is_own(place[last]):
      found[key] = place[last]
  return found


def examine(config: Any, *, part: str = "") -> None:
  """Refuse files whose text shows that they cannot be used.

  Args:
    config: A configuration.
    part: Beginning of the keys that matter, "model."; "": all.

  Raises:
    InputError: A file is missing, is no Python, or lacks the name.
  """
  for reference in references(config, part=part):
    text = _read(reference)
    try:
      tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
      raise _failed(reference, error) from error
    names, complete = _top_names(tree)
    if complete and reference.name not in names:
      raise _no_name(reference, text)


def _top_names(tree: ast.Module) -> tuple[list[str], bool]:
  """Return the names of a file's top level, and whether these are all."""
  names = []
  for node in tree.body:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
      names.append(node.name)
    elif isinstance(node, ast.Import | ast.ImportFrom):
      names += [alias.asname or alias.name for alias in node.names]
    elif not isinstance(node, ast.Expr):
      # An assignment, an `if`, a loop: whatever it may define.
      names += [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
      if not isinstance(node, ast.Assign | ast.AnnAssign):
        return names, False
  return names, "*" not in names


def _no_name(reference: Reference, text: bytes) -> errors.InputError:
  names = [
    node.name
    for node in ast.parse(text).body
    if isinstance(node, ast.ClassDef | ast.FunctionDef)
  ]
  return errors.InputError(
    f"{reference}: {reference.path} has no {reference.name}; it has "
    f"{', '.join(names) or 'no class and no function'}"
  )


def _read(reference: Reference) -> bytes:
  try:
    return pathlib.Path(reference.path).read_bytes()
  except OSError as error:
    raise errors.InputError(
      f"{reference}: {reference.path} cannot be read "
      f"({error.strerror or error}). Give the path of your file, whole or from "
      "the current folder"
    ) from error


def _failed(reference: Reference, error: Exception) -> errors.InputError:
  path = pathlib.Path(reference.path)
  return errors.InputError(f"{reference}: {find.where(error, path)}")


# The text of each file as it was last run in this process.
_run: dict[str, bytes] = {}


def text(reference: Reference) -> bytes:
  """Return the file's contents as they were run, or else as they are.

  Raises:
    InputError: The file cannot be read.
  """
  return _run.get(reference.path) or _read(reference)


def sha256(contents: bytes) -> str:
  """Return the SHA-256 of a file's contents in hexadecimal digits."""
  return hashlib.sha256(contents).hexdigest()


def load(reference: Reference) -> Any:
  """Run the file and return the class or function that is named.

  A file that has not changed is run once in a process, so that its classes
  stay the same ones.

  Raises:
    InputError: The file is not trusted, fails, with its line, or lacks the
      name.
  """
  _refuse_untrusted(reference)
  contents = _read(reference)
  try:
    module = _module(reference.path, contents)
  except Exception as error:  # whatever a user's own file raises
    raise _failed(reference, error) from error
  _run[reference.path] = contents
  if not hasattr(module, reference.name):
    raise _no_name(reference, contents)
  return getattr(module, reference.name)


@functools.cache
def _module(path: str, contents: bytes) -> types.ModuleType:
  code = compile(contents, path, "exec")
  stem = pathlib.Path(path).stem
  module = types.ModuleType(f"own_{stem}_{sha256(contents)[:8]}")
  module.__file__ = path
  # Dataclasses look their module up, and so do Flax modules, which are some.
  sys.modules[module.__name__] = module
  try:
    exec(code, module.__dict__)
  except BaseException:
    del sys.modules[module.__name__]
    raise
  return module
