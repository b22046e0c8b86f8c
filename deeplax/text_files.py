"""Text files that people or programs wrote: JSON, and lists of lines.

Each function ends on whatever cannot be read in one InputError that names the
file and, in the caller's words, the fix.
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
# Half of a character beyond 16 bit: JSON can spell it, no encoding has it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# What taking JSON of another shape apart raises.
_WRONG_CONTENTS = (
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
    path: The file.
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
  """Return what a JSON file holds.

  Args:
    path: The file.
    fix: What to do if it cannot be read, the end of the message.
    kind: What it must hold at its top: dict, list, or object for anything.

  Raises:
    InputError: As `read_text`; it is empty or no JSON, has a key twice or half
      a character, or holds another kind.
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
  """Return an object; of a key that is there twice, one would be lost."""
  result = dict(pairs)
  if len(result) < len(pairs):
    counts = collections.Counter(key for key, _ in pairs)
    twice = counts.most_common(1)[0][0]
    raise ValueError(f"the key {ascii(twice[:40])} is there twice")
  return result


@contextlib.contextmanager
def contents(path: epath.PathLike, *, fix: str) -> Iterator[None]:
  """Turn what goes wrong in taking JSON apart into a message.

  For files that deeplax itself writes, where it takes little to be sure that a
  key is missing or of another kind. A file that people write deserves to hear
  which value is wrong.

  Args:
    path: Of the JSON file that is taken apart inside.
    fix: What to do, the end of the message.

  Raises:
    InputError: Something is missing, or of another kind.
  """
  try:
    yield
  except _WRONG_CONTENTS as error:
    raise errors.InputError(
      f"{path} is not as deeplax writes it ({type(error).__name__}: "
      f"{str(error)[:200]}): {fix}"
    ) from error


def read_lines(path: epath.PathLike, *, fix: str) -> list[str]:
  """Return the lines of a list as they are, without the blank ones.

  Raises:
    InputError: As `read_text`, or there is none.
  """
  text = read_text(path, fix=fix).replace("\r\n", "\n").replace("\r", "\n")
  lines = [line for line in text.split("\n") if line.strip()]
  if not lines:
    raise errors.InputError(f"{path} is empty: {fix}")
  return lines


def composed(text: str) -> str:
  """Return a name as it is compared with others (Unicode's NFC).

  "é" may be stored as one letter or, as on a Mac, as an e and an accent.
  """
  return unicodedata.normalize("NFC", text)


def short(value: Any) -> str:
  """Return a value as a message shows it: a part of what is long or deep."""
  return reprlib.repr(value)
