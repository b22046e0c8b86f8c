"""Read text files that people or programs wrote: JSON, and lists of lines.

If a file cannot be read, whatever the cause, each function raises an InputError
that names the file and, in the caller's words, the fix.
"""

import codecs
import collections
from collections.abc import Iterator
import contextlib
import json
import re
import reprlib
from typing import Any
import unicodedata

from etils import epath

from deeplax import errors

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# A lone surrogate, half a character: JSON can spell it, no encoding holds it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Errors of code that expects JSON of another shape.
WRONG_CONTENTS = (
  *(LookupError, TypeError, ValueError),
  *(AttributeError, OverflowError),
)
_KINDS = {
  dict: "an object, {...}",
  list: "a list, [...]",
  str: "a text",
  bool: "true or false",
  type(None): "null",
}


def read_text(path: epath.PathLike, *, fix: str) -> str:
  """Return a UTF-8 file, without the mark that some editors start it with.

  Args:
    fix: What to do if it cannot be read, the end of the message.

  Raises:
    InputError: It is missing, unreadable or in another encoding.
  """
  path = epath.Path(path)
  try:
    if not path.is_file():  # a pipe or a device may never end
      what = f"{path} is not a file" if path.exists() else f"no {path}"
      raise errors.InputError(f"{what}: {fix}")
    data = path.read_bytes()
  except OSError as error:
    raise errors.InputError(
      f"{path} cannot be read ({error.strerror or error}): {fix}"
    ) from error
  if data.startswith(_UTF16) or b"\0" in data:
    raise errors.InputError(
      f"{path} is not UTF-8 but UTF-16, or no text at all. Save it as UTF-8: "
      "iconv -f UTF-16 -t UTF-8 FILE > NEW does it"
    )
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    place = data.count(b"\n", 0, error.start) + 1
    raise errors.InputError(
      f"{path} is not UTF-8: line {place} has the byte "
      f"0x{data[error.start]:02x}. Save it as UTF-8; if it comes from Windows, "
      "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW may do it"
    ) from error


def read_json(path: epath.PathLike, *, fix: str, kind: type = dict) -> Any:
  """Return the contents of a JSON file.

  Args:
    fix: What to do if it cannot be read, the end of the message.
    kind: The type of its contents: dict, list, or object for any.

  Raises:
    InputError: As `read_text`; or the file is empty or not JSON, has a key
      twice or half a character, or its contents are of another type.
  """
  text = read_text(path, fix=fix)
  if not text.strip():
    raise errors.InputError(f"{path} is empty: {fix}")
  try:
    value = json.loads(text, object_pairs_hook=_unique)
    if _SURROGATE.search(text):
      json.dumps(value, ensure_ascii=False).encode()
  except RecursionError as error:
    raise errors.InputError(f"{path} is nested too deeply: {fix}") from error
  except UnicodeEncodeError as error:
    raise errors.InputError(
      f"{path} spells half a character, "
      f"\\u{ord(error.object[error.start]):04x}: {fix}"
    ) from error
  except json.JSONDecodeError as error:
    raise errors.InputError(
      f"{path} is not JSON (line {error.lineno}, column {error.colno}: "
      f"{error.msg}): {fix}"
    ) from error
  except ValueError as error:  # a key twice, a number of thousands of digits
    raise errors.InputError(f"{path}: {error}: {fix}") from error
  if not isinstance(value, kind):
    actual = _KINDS.get(type(value), "a number")
    raise errors.InputError(f"{path} holds {actual}, not {_KINDS[kind]}: {fix}")
  return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Return an object; refuse a key that occurs twice, as one would be lost."""
  result = dict(pairs)
  if len(result) < len(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    twice = counts.most_common(1)[0][0]
    raise ValueError(f"the key {ascii(twice[:40])} occurs twice")
  return result


@contextlib.contextmanager
def contents(path: epath.PathLike, *, fix: str) -> Iterator[None]:
  """Turn errors of a block that reads a JSON file's contents into a message.

  For files that deeplax itself writes. The message for a file that people write
  should name the value that is wrong.

  Args:
    path: The JSON file whose contents the block reads.
    fix: What to do, the end of the message.

  Raises:
    InputError: A key is missing, or a value of another type.
  """
  try:
    yield
  except WRONG_CONTENTS as error:
    raise errors.InputError(
      f"{path} is not as deeplax writes it ({type(error).__name__}: "
      f"{str(error)[:200]}): {fix}"
    ) from error


def read_lines(path: epath.PathLike, *, fix: str) -> list[str]:
  """Return the lines of a file, unchanged, without the blank ones.

  Raises:
    InputError: As `read_text`; or there is no line.
  """
  text = read_text(path, fix=fix).replace("\r\n", "\n").replace("\r", "\n")
  lines = [line for line in text.split("\n") if line.strip()]
  if not lines:
    raise errors.InputError(f"{path} is empty: {fix}")
  return lines


def composed(text: str) -> str:
  """Return a name in the form in which names are compared (Unicode's NFC).

  "é" may be stored as one letter or, as on a Mac, as an e and an accent.
  """
  return unicodedata.normalize("NFC", text)


def short(value: Any) -> str:
  """Return a value as text for a message, abbreviated if it is long or deep."""
  return reprlib.repr(value)
