"""The files in folders, as all of deeplax searches them.

Links are followed. Hidden files are left out: names that start with a dot
(.ipynb_checkpoints, ._a.jpg), and what file browsers and archivers leave.
"""

import collections
from collections.abc import Iterable
import os
import pathlib

from deeplax import errors
from deeplax import text_files

# Kinds of pictures that `decoding` reads.
PICTURES = (
  *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
  *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_LEFT_BEHIND = {
  "__MACOSX",  # archives made on a Mac
  *("@eaDir", "#recycle", "@Recycle"),  # network storage
  *("$RECYCLE.BIN", "System Volume Information", "Thumbs.db", "desktop.ini"),
  "lost+found",
}


def hidden(name: str) -> bool:
  """Return whether a file or folder of this name is left out."""
  return name.startswith(".") or name in _LEFT_BEHIND


def files(root: pathlib.Path) -> list[pathlib.Path]:
  """Return all files below a folder, sorted, and links that lead nowhere.

  A link to a folder that it lies in is not followed: that would never end.

  Args:
    root: The folder, which may be a link or hidden.

  Raises:
    InputError: A folder cannot be listed.
  """
  paths = []
  # Folders to search, each with the real path of every folder on the way, of
  # which links may have made several.
  waiting = [(root, [pathlib.Path(os.path.realpath(root))])]
  while waiting:
    folder, real = waiting.pop()
    for entry in _entries(folder):
      path = folder / entry.name
      if entry.is_dir(follow_symlinks=False):
        waiting.append((path, [*real[:-1], real[-1] / entry.name]))
      elif entry.is_symlink() and path.is_dir():
        target = pathlib.Path(os.path.realpath(path))
        if not any(place.is_relative_to(target) for place in real):
          waiting.append((path, [*real, target]))
      elif _is_file(entry, path):
        paths.append(path)
  return sorted(paths)


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
  fix = "make it readable, or take it out of the folder that is searched"
  with errors.disk_errors(f"{folder} cannot be listed", fix):
    with os.scandir(folder) as entries:
      return [entry for entry in entries if not hidden(entry.name)]


def _is_file(entry: os.DirEntry[str], path: pathlib.Path) -> bool:
  """Return whether an entry is a file or a broken link, no pipe or device."""
  if entry.is_symlink():
    return path.is_file() or not path.exists()
  return entry.is_file(follow_symlinks=False)


def folders(root: pathlib.Path) -> list[str]:
  """Return the names of a folder's folders, sorted; none without the folder."""
  if not root.is_dir():
    return []
  return sorted(e.name for e in _entries(root) if (root / e.name).is_dir())


def matching(root: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  """Return the files of a pattern in a folder of a known layout, sorted.

  Args:
    root: The folder.
    pattern: A pattern such as "*/*.png", one folder down.
  """
  return sorted(
    path
    for path in root.glob(pattern)
    if not any(hidden(part) for part in path.relative_to(root).parts)
  )


def key(path: pathlib.PurePath) -> str:
  """Return the name by which a file is matched with others, in Unicode.

  Bytes that are not UTF-8, as old archives have them in names, become escapes.
  """
  name = os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
  return text_files.composed(name)


def by_suffix(paths: Iterable[pathlib.Path]) -> str:
  """Return the number of files of each kind: "3 .heic, 1 .txt"."""
  counts = collections.Counter(
    path.suffix.lower() or "without a suffix" for path in paths
  )
  return ", ".join(f"{n} {suffix}" for suffix, n in counts.most_common())
