"""The pictures that files, folders and globs of a command line name."""

import argparse
import collections
from collections.abc import Callable, Iterable, Sequence
import fnmatch
import glob
import pathlib
import tempfile
from typing import NamedTuple

from deeplax import errors
from deeplax.data import bands
from deeplax.data import walk
from deeplax.reports import picture_lists

MASK, OVERLAY, LONG_OVERLAY = "mask.png", "overlay.jpg", "overlay.png"
# The page of all predictions, and the folder of small copies beside it; they
# have names no longer than those of the outputs.
PAGE, SMALL = "index.html", "index_files"
SMALL_PICTURE, SMALL_OVERLAY = "small.jpg", "mixed.jpg"
PAGE_MARK = '<meta name="generator" content="deeplax.predict">'


class Picture(NamedTuple):
  """A file to label, and the name of its outputs below --out."""

  path: pathlib.Path
  stem: pathlib.Path

  @property
  def name(self) -> str:
    """Its name, with the sub-folder that its outputs are in."""
    return walk.key(self.stem.parent / self.path.name)

  def output(self, out: pathlib.Path, ending: str) -> pathlib.Path:
    return out / self.stem.parent / f"{self.stem.name}_{ending}"

  def small(self, out: pathlib.Path, ending: str) -> pathlib.Path:
    """Return where a small copy for the page lies."""
    return self.output(out / SMALL, ending)


def of_command(
  args: argparse.Namespace, channels: Sequence[int] | None
) -> list[Picture]:
  """Return the pictures that the flags of `deeplax.predict` name.

  Args:
    args: The flags; the folder `args.out` is made.
    channels: Bands that the run reads; None: RGB.

  Raises:
    InputError: An input is wrong, or the folder cannot be written.
  """
  out = pathlib.Path(args.out)
  suffixes = (
    walk.PICTURES if channels is None else walk.PICTURES + bands.SUFFIXES
  )
  pictures = find(args.inputs, out, suffixes, listed=args.list)
  try:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
      pass
  except OSError as error:  # said before the work, not after
    raise errors.InputError(
      f"--out={out} cannot be written ({error.strerror}): name another folder"
    ) from error
  _refuse_other_page(out / PAGE)
  return pictures


def _refuse_other_page(path: pathlib.Path) -> None:
  """Refuse to replace a page that another program has written."""
  if not path.is_file():
    return
  with errors.disk_errors(f"{path} cannot be read", "use another --out"):
    text = path.read_bytes()
  if PAGE_MARK.encode() not in text:
    raise errors.InputError(
      f"{path} is no page of predictions and would be overwritten. Use another "
      "--out"
    )


def find(
  inputs: Iterable[str],
  out: pathlib.Path,
  suffixes: tuple[str, ...] = walk.PICTURES,
  progress: Callable[[str], None] = print,
  *,
  listed: str | None = None,
) -> list[Picture]:
  """Return the pictures that files, folders, globs and lists name.

  Args:
    inputs: Folders are searched with their sub-folders, which outputs keep; "-"
      is a list on standard input.
    out: Folder of the outputs, which is not searched.
    suffixes: Of the pictures in folders and globs.
    progress: Receives a line about the other files of a folder, and one about
      names that differ only in their suffix, which then becomes part of the
      output's name.
    listed: A list of files, one a line.

  Raises:
    InputError: An input does not exist, two outputs would be the same file, or
      an output would overwrite an input.
  """
  pictures = {}
  lists = [text for text in inputs if text == picture_lists.STDIN][:1]
  for text in (*lists, *((listed,) if listed else ())):
    pairs, left_out = picture_lists.files(text, picture_lists.lines(text), out)
    if left_out:
      progress(f"left out of the list, since they lie in {out}: {left_out}")
    pictures |= {(p.resolve(), stem): Picture(p, stem) for p, stem in pairs}
  for text in inputs:
    if text == picture_lists.STDIN:
      continue
    try:
      matching, others = _find_one(text, out, suffixes)
    except OSError as error:  # such as a name too long
      raise errors.InputError(
        f"{text!r} cannot be read: {error.strerror}"
      ) from error
    left_out = walk.by_suffix(others)
    if not matching:
      raise errors.InputError(
        f"no picture matches {text!r}: looked for files that end in "
        f"{' '.join(suffixes)}"
        + (f", and found {left_out}" if left_out else "")
      )
    if left_out:
      progress(f"left out of {text}: {left_out}")
    # A file that is named twice is one input.
    pictures |= {(p.path.resolve(), p.stem): p for p in matching}
  apart = _apart(list(pictures.values()), progress)
  _refuse_clashes(apart, out)
  return apart


def _find_one(
  text: str, out: pathlib.Path, suffixes: tuple[str, ...]
) -> tuple[list[Picture], list[pathlib.Path]]:
  """Return the pictures that an input names, and the other files there."""
  path = pathlib.Path(text)
  if path.is_file():
    return [Picture(path, pathlib.Path(path.stem))], []
  if path.is_dir():
    if path.resolve() == out.resolve():
      raise errors.InputError(
        f"--out={out} is the folder of the pictures; the next run would label "
        f"its own masks. Use for example --out={out / 'predictions'}"
      )
    root, paths = path, walk.files(path)
  elif glob.has_magic(text):
    root, paths = _matching(path)
  else:
    raise errors.InputError(f"no file or folder {text!r}")
  outputs = out.resolve()
  paths = [p for p in paths if outputs not in p.resolve().parents]
  pictures, others = [], []
  for p in paths:
    if p.suffix.lower() in suffixes:
      pictures.append(Picture(p, p.relative_to(root).with_suffix("")))
    else:
      others.append(p)
  return pictures, others


def _matching(
  path: pathlib.Path,
) -> tuple[pathlib.Path, list[pathlib.Path]]:
  """Return the last folder of a glob before a wildcard, and the files matched.

  "set[1]" is not a wildcard if a folder has that name.
  """
  root, *parts = pathlib.Path(path.anchor), *path.relative_to(path.anchor).parts
  while len(parts) > 1 and (
    not glob.has_magic(parts[0]) or (root / parts[0]).is_dir()
  ):
    root /= parts.pop(0)
  if "**" in parts:  # glob would follow circles of links
    if not root.is_dir():
      return root, []
    paths = walk.files(root)
    return root, [p for p in paths if _fits(p.relative_to(root).parts, parts)]
  pattern = pathlib.Path(glob.escape(str(root)), *parts)
  paths = [pathlib.Path(p) for p in glob.glob(str(pattern))]
  return root, sorted(p for p in paths if p.is_file())


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
  """Return whether a path matches a glob, both in parts; ** is any folders."""
  if not names or not pattern:
    return not names and {*pattern} <= {"**"}
  if pattern[0] == "**":
    return _fits(names, pattern[1:]) or _fits(names[1:], pattern)
  return fnmatch.fnmatch(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _apart(
  pictures: list[Picture], progress: Callable[[str], None]
) -> list[Picture]:
  """Return the pictures; a.jpg beside a.png keeps its suffix in its stem."""
  reported = False
  while True:
    names = collections.defaultdict(set)
    for picture in pictures:
      names[picture.stem].add(picture.path.name)
    same = {stem for stem, those in names.items() if len(those) > 1}
    if not same:
      return pictures
    if not reported:
      reported = True
      one, two, *_ = sorted(names[min(same)])
      progress(
        f"{one} and {two} differ in their suffix only, so their outputs keep "
        f"it: {one}_{MASK}. {len(same)} names like this"
      )
    pictures = [
      p._replace(stem=p.stem.with_name(p.path.name)) if p.stem in same else p
      for p in pictures
    ]


def _refuse_clashes(pictures: list[Picture], out: pathlib.Path) -> None:
  inputs = {p.path.resolve() for p in pictures}
  owner = {}
  for picture in pictures:
    mask = picture.output(out, MASK)
    if mask in owner:
      raise errors.InputError(
        f"{owner[mask]} and {picture.path} would both be written to {mask}. "
        "Predict them into different --out folders, or name the folder above "
        "them: sub-folders are kept"
      )
    owner[mask] = picture.path
    for ending in (MASK, OVERLAY, LONG_OVERLAY):
      if picture.output(out, ending).resolve() in inputs:
        raise errors.InputError(
          f"{picture.output(out, ending)} is an input and would be "
          "overwritten. Use another --out"
        )
