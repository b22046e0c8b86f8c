"""Own data: a folder of images, a folder of masks, and classes.json.

  images/<split>/a.jpg      any picture; sub-folders are fine
  labels/<split>/a.png      one number per pixel: the class, or ignore_label
  classes.json              {"names": ["road", "car"], "ignore_label": 255}

classes.json may also have "palette" (one [r, g, b] per class, or else the VOC
rule gives colors) and "label_map" for masks with other numbers than those of
the classes, for example {"255": 1}, or {"-9999": 255} to ignore pixels without
data. `"ignore_label": null` means that no number is ignored.
With bands (`bands`), images may be .npy and .npz as well.
"""

import collections
from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple
import unicodedata

from deeplax import errors
from deeplax import text_files
from deeplax.data import bands
from deeplax.data import files
from deeplax.data import label_tables
from deeplax.data import spec as spec_lib
from deeplax.data import walk
from deeplax.labels import IGNORE_LABEL

CLASSES = "classes.json"
# Kinds whose numbers readers scale or compression changes: no masks.
_INEXACT = {".avif", ".jp2", ".pbm", ".pgm", ".pnm", ".ppm"}
_KEYS = {
  *("names", "palette", "ignore_label", "label_map"),  # for deeplax
  *("dataset", "splits", "ignore_color", "note"),  # for people
}
# Without "ignore_label": 255 is the default, and would be wrong where 255 is a
# class, which `checks.advice` finds out from the masks.
_EXAMPLE = '{"names": ["background", "cat"]}'
_short = text_files.short
_FIX = (
  "write one that names the classes in the order of their numbers, for example "
  f"{_EXAMPLE}"
)


def spec(root: pathlib.Path) -> spec_lib.Spec:
  """Return the classes of a data set."""
  return read_classes(root / CLASSES)[0]


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
  spec, table = read_classes(root / CLASSES)
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


def read_classes(
  path: pathlib.Path,
) -> tuple[spec_lib.Spec, label_tables.Table]:
  """Return the classes in a classes.json, and the label of each number.

  Raises:
    InputError: The file is missing, or not as it must be.
  """
  folder = path.parent
  if not path.exists() and folder.is_dir():
    for other in folder.iterdir():
      if other.name.lower() == path.name.lower():
        raise errors.InputError(f"no {path}, but {other}: rename it")
  obj = text_files.read_json(path, fix=_FIX)
  try:
    return _parse(obj, path.resolve().parent.name)
  except (TypeError, ValueError) as error:
    raise errors.InputError(f"{path}: {error}") from error


def _parse(
  obj: dict[str, Any], name: str
) -> tuple[spec_lib.Spec, label_tables.Table]:
  if "names" not in obj:
    raise ValueError(f'has no "names"; for example {_EXAMPLE}')
  if unknown := sorted(obj.keys() - _KEYS):
    raise ValueError(
      f"unknown keys {_short(unknown)}; known are {sorted(_KEYS)}"
    )
  # The names: texts that tables can show, each of one class.
  names = obj["names"]
  if not isinstance(names, list):
    raise ValueError(f'"names" is {_short(names)}, not a list of texts')
  if wrong := [n for n in names if not _is_name(n)]:
    raise ValueError(
      f'"names" has {_short(wrong[0])}: each must be a text on one line'
    )
  same = collections.Counter(text_files.composed(n) for n in names)
  if repeated := [name for name, count in same.items() if count > 1]:
    raise ValueError(
      f'"names" has {_short(repeated[0])} twice (accents may be stored in two '
      "ways that look alike): give each class its own name"
    )
  if not 1 <= len(names) <= label_tables.MAX_CLASSES:
    raise ValueError(f"{len(names)} names, not 1 to {label_tables.MAX_CLASSES}")
  # The label of each number: its own, or what "label_map" says, or ignored.
  ignore = obj.get("ignore_label", IGNORE_LABEL)
  if ignore is not None and not _is_byte(ignore):
    raise ValueError(
      f'"ignore_label" is {_short(ignore)}, not 0 to 255 or null'
    )
  values: dict[label_tables.Number, int] = {i: i for i in range(len(names))}
  values |= _label_map(obj.get("label_map", {}), len(names))
  if ignore is not None:
    if values.get(ignore, IGNORE_LABEL) != IGNORE_LABEL:
      raise ValueError(
        f'"ignore_label" {ignore} is also the number of the class '
        f"{names[values[ignore]]!r}: take {ignore} out of the classes, or set "
        '"ignore_label" to a number that the masks do not use, or to null'
      )
    values[ignore] = IGNORE_LABEL
  spec = spec_lib.Spec(
    name=name,
    class_names=tuple(names),
    palette=_palette(obj.get("palette")) or spec_lib.color_map(len(names)),
    label_map=tuple(
      (number, label)
      for number, label in sorted(values.items())
      if number != label or number >= len(names)
    ),
  )
  return spec, label_tables.from_labels(values)


def _palette(obj: Any) -> tuple[spec_lib.Color, ...]:
  """Return the colors [[red, green, blue], ...]; none for null and []."""
  if obj is not None and not isinstance(obj, list):
    raise ValueError(f'"palette" is {_short(obj)}, not a list of colors')
  for color in obj or []:
    three = isinstance(color, list) and len(color) == 3
    if not three or not all(_is_byte(v) for v in color):
      raise ValueError(
        f'"palette" has {_short(color)}, not [0..255, 0..255, 0..255]'
      )
  return tuple((r, g, b) for r, g, b in obj or [])


def _label_map(obj: Any, num_classes: int) -> dict[label_tables.Number, int]:
  """Return the map {"number in the masks": class}."""
  if not isinstance(obj, dict):
    raise ValueError(f'"label_map" is {_short(obj)}, not like {{"255": 1}}')
  result = {}
  for key, label in obj.items():
    try:
      value = label_tables.number(key)
    except ValueError as error:
      raise ValueError(
        f'"label_map" has the key {_short(key)}, not a number such as "255" '
        'or "-9999"'
      ) from error
    if value in result:
      number = label_tables.written(value)
      raise ValueError(f'"label_map" has the number {number} twice')
    if not _is_byte(label) or label not in {*range(num_classes), 255}:
      raise ValueError(
        f'"label_map" maps {key} to {_short(label)}, not to a class 0 to '
        f"{num_classes - 1} or 255 (ignored)"
      )
    result[value] = label
  return result


def _is_name(value: Any) -> bool:
  """Return whether a value is a text that fits into one line of a table."""
  if not isinstance(value, str) or not value.strip():
    return False
  return not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in value)


def _is_byte(value: Any) -> bool:
  return type(value) is int and 0 <= value <= 255


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
