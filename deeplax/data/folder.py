"""Own data: a folder of images, a folder of masks, and classes.json.

  images/<split>/a.jpg      any picture; sub-folders are fine
  labels/<split>/a.png      one number or color per pixel
  classes.json              what they mean: `classes_json`

With bands (`bands`), images may be .npy and .npz as well.
"""

from collections.abc import Sequence
import pathlib
from typing import NamedTuple

from deeplax import errors
from deeplax.data import bands
from deeplax.data import classes_json
from deeplax.data import files
from deeplax.data import spec as spec_lib
from deeplax.data import walk

CLASSES = "classes.json"
# Kinds whose numbers readers scale or compression changes: no masks.
_INEXACT = {".avif", ".jp2", ".pbm", ".pgm", ".pnm", ".ppm"}


def spec(root: pathlib.Path) -> spec_lib.Spec:
  """Return the classes of a data set."""
  return classes_json.read(root / CLASSES)[0]


class Unpaired(NamedTuple):
  """A file without a partner.

  Attributes:
    text: The message about it.
    names: The files that the message names; the first is this one.
  """

  text: str
  names: tuple[str, ...]


def source(
  root: pathlib.Path, split: str, channels: Sequence[int] | None = None
) -> files.Files:
  """Return a split.

  Args:
    root: The folder of the data set.
    split: The split's name.
    channels: Bands to read (`bands`), of .npy and .npz as well; all files must
      be of the first one's kind. None: RGB pictures.

  Raises:
    InputError: classes.json or the folders are not as they must be.
  """
  pairs, unpaired = listing(root, split, channels)
  if unpaired:
    raise errors.InputError(unpaired[0].text)
  return pairs


def listing(
  root: pathlib.Path, split: str, channels: Sequence[int] | None = None
) -> tuple[files.Files, list[Unpaired]]:
  """Return a split, as `source` does, and the files that are in no pair.

  Raises:
    InputError: classes.json or the folders are not as they must be.
  """
  spec, table = classes_json.read(root / CLASSES)
  suffixes = walk.PICTURES + (() if channels is None else bands.SUFFIXES)
  images, labels = _files(root, split)
  pairs, unpaired = _pairs(images, labels, suffixes)
  reader = None
  if channels is not None:
    path = pairs[0].image if pairs else None
    first = (files.read_bytes(path), str(path)) if path else None
    reader = bands.Reader(channels, first=first)
  result = files.Files(spec, split, table, pairs, reader)
  others = images.of_other_kinds(suffixes), labels.of_other_kinds()
  result.left_out = ", ".join(text for text in others if text)
  return result, unpaired


class _Folder(NamedTuple):
  """A folder and all files in it."""

  root: pathlib.Path
  paths: list[pathlib.Path]

  def of_other_kinds(self, kinds: tuple[str, ...] = walk.PICTURES) -> str:
    """Return the files that are no pictures: "images/train has 3 .heic"."""
    others = [p for p in self.paths if p.suffix.lower() not in kinds]
    place = "/".join(self.root.parts[-2:])
    return f"{place} has {walk.by_suffix(others)}" if others else ""


def splits(root: pathlib.Path, kind: str = "images") -> list[str]:
  """Return the names of the folders below images/, or labels/."""
  return walk.folders(root / kind)


def _files(root: pathlib.Path, split: str) -> tuple[_Folder, _Folder]:
  """Return all files in the two folders of a split."""
  have = splits(root)
  if split not in have:
    raise errors.InputError(
      f"no split {split!r}: {root / 'images'} has {have or 'no folders'}. Make "
      f"images/{split} and labels/{split}, or name one that exists"
    )
  images, labels = root / "images" / split, root / "labels" / split
  masks = walk.files(labels) if labels.is_dir() else []
  return _Folder(images, walk.files(images)), _Folder(labels, masks)


def _pairs(
  images: _Folder, labels: _Folder, suffixes: tuple[str, ...]
) -> tuple[list[files.Pair], list[Unpaired]]:
  """Match images and masks by their path without the suffix."""
  pictures, twice = _by_stem(images, suffixes)
  masks, more = _by_stem(labels, walk.PICTURES)
  if not pictures:
    text = f"{images.root} holds no picture ({', '.join(suffixes)}"
    if bands.SUFFIXES[0] not in suffixes:
      text += f"; with data.channels {' and '.join(bands.SUFFIXES)}"
    kinds = walk.by_suffix(images.paths) or "nothing"
    raise errors.InputError(
      f"{text}), but {kinds}: put pictures of one of these kinds there"
    )
  unpaired = [
    *_inexact(masks),
    *twice,
    *more,
    *_single(pictures, masks, labels.root, "mask"),
    *_single(masks, pictures, images.root, "image"),
  ]
  both = sorted(pictures.keys() & masks.keys())
  return [files.Pair(k, pictures[k], masks[k]) for k in both], unpaired


def _inexact(masks: dict[str, pathlib.Path]) -> list[Unpaired]:
  """Return masks of kinds that do not keep every number as it is."""
  return [
    Unpaired(
      f"{path} is no mask: a {path.suffix.lower()} file may hold other numbers "
      "than were drawn. Save masks as PNG from where they were made",
      (str(path),),
    )
    for path in masks.values()
    if path.suffix.lower() in _INEXACT
  ]


def _by_stem(
  folder: _Folder, suffixes: tuple[str, ...]
) -> tuple[dict[str, pathlib.Path], list[Unpaired]]:
  """Return {path below the folder without suffix: file} of all pictures.

  Second files of one name come apart.
  """
  result: dict[str, pathlib.Path] = {}
  twice = []
  for path in folder.paths:
    if path.suffix.lower() not in suffixes:
      continue
    key = walk.key(path.relative_to(folder.root).with_suffix(""))
    if key in result:
      what = "differ in their suffix only"
      if path.suffix == result[key].suffix:
        what = "differ in how an accented letter is stored only"
      text = (
        f"{result[key]} and {path} {what}: images and masks are matched by the "
        "name before the suffix. Rename or remove one"
      )
      twice.append(Unpaired(text, (str(path), str(result[key]))))
    result.setdefault(key, path)
  return result, twice


def _single(
  have: dict[str, pathlib.Path],
  other: dict[str, pathlib.Path],
  folder: pathlib.Path,
  what: str,
) -> list[Unpaired]:
  """Return the files without a partner of the same name in `folder`."""
  keys = sorted(have.keys() - other.keys())
  free = sorted(other.keys() - have.keys())
  result = []
  for key in keys:
    count = f"{len(keys)} of {len(have)} files"
    # The hint of one file is enough: one rule names them all.
    if not result and (near := [f for f in free if key in f or f in key]):
      count += f"; is {other[near[0]]} meant?"
    text = (
      f"{have[key]} has no {what} {folder / key}.* ({count}). Both must have "
      "the same name before the suffix: add or rename it, or take the file out"
    )
    result.append(Unpaired(text, (str(have[key]), str(folder / key))))
  return result
