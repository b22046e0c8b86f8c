"""Lists of names in text files, one a line."""

import collections
from collections.abc import Callable, Container, Iterable
import pathlib

from deeplax import errors
from deeplax import text_files

_FIX = "it must name one image per line"
_LONGEST = 1000  # characters; some systems take no longer path


def read(
  path: pathlib.Path,
  known: Container[str],
  others: Callable[[str], Iterable[str]],
) -> list[str]:
  """Return the names that a list holds, in its order.

  A line is a name as it is, blanks and dots included. Only a line that is no
  such name is read in another way.

  Args:
    path: The list.
    known: All names that exist, as `walk.key` spells them.
    others: Returns the names that a line may stand for otherwise.

  Raises:
    InputError: The file is unreadable or empty, or has a name twice.
  """
  names = []
  for line in text_files.read_lines(path, fix=_FIX):
    if len(line) > _LONGEST:
      raise errors.InputError(
        f"{path} has a line of {len(line)} characters: {_FIX}"
      )
    name = text_files.composed(line)
    ways = (name, name.strip(), *others(name.strip()))
    names.append(next((way for way in ways if way in known), name.strip()))
  twice = [n for n, count in collections.Counter(names).items() if count > 1]
  if twice:
    rest = f", and {len(twice) - 1} others too" if len(twice) > 1 else ""
    raise errors.InputError(
      f"{path} names {twice[0]!r} more than once{rest}, which would count it "
      "as often: keep one line of each name"
    )
  return names
