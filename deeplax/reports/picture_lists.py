"""Pictures that a list names, or standard input: one file a line."""

from collections.abc import Iterable
import os
import pathlib
import sys

from deeplax import errors
from deeplax import text_files

STDIN = "-"
_FIX = "each line must name one picture"


def lines(text: str) -> list[str]:
  """Return the lines of a list.

  Args:
    text: Its name; "-" is standard input, whose bytes may be any file's name.

  Raises:
    InputError: It cannot be read.
  """
  if text == STDIN:
    data = os.fsdecode(sys.stdin.buffer.read())
  else:
    data = text_files.read_text(text, fix=_FIX)
  return data.replace("\r\n", "\n").split("\n")


def files(
  text: str, named: Iterable[str], out: pathlib.Path
) -> tuple[list[tuple[pathlib.Path, pathlib.Path]], int]:
  """Return (file, name of its outputs) of each line, and how many are left out.

  The name is the path below the deepest folder that has all of the files,
  without the suffix. What lies in the folder of the outputs is left out: the
  list may be a search that has found earlier ones.

  Args:
    text: The name of the list.
    named: Its lines; blank ones do not count.
    out: Folder of the outputs.

  Raises:
    InputError: The list is empty, or a line names no file.
  """
  place = "standard input" if text == STDIN else text
  found, missing, blank = [], [], True
  for number, line in enumerate(named, 1):
    if not line.strip():
      continue
    blank = False
    ways = (line, line.strip())
    path = next((way for way in ways if os.path.isfile(way)), None)
    if path is None:
      missing.append((number, line.strip()))
    else:
      found.append(pathlib.Path(path))
  if blank:
    raise errors.InputError(f"{place} is empty: {_FIX}")
  if missing:
    number, name = missing[0]
    more = f" ({len(missing)} lines name none)" if len(missing) > 1 else ""
    what = "is a folder" if os.path.isdir(name) else "is no file"
    raise errors.InputError(
      f"{place}, line {number}: {text_files.short(name)} {what}{more}; {_FIX}, "
      f"as seen from {os.getcwd()}"
    )
  outputs = out.resolve()
  own = [p for p in found if outputs not in p.resolve().parents]
  if not own:
    raise errors.InputError(
      f"all files of {place} are in --out={out}, among its outputs: name "
      "another --out"
    )
  absolute = [pathlib.Path(os.path.abspath(path)) for path in own]
  root = os.path.commonpath([path.parent for path in absolute])
  stems = [path.relative_to(root).with_suffix("") for path in absolute]
  return [*zip(own, stems, strict=True)], len(found) - len(own)
