"""classes.json of own data: the classes, and what marks them in the masks.

Masks of numbers: {"names": ["road", "car"], "ignore_label": 255}. A number is
the class itself; "label_map" is for others, for example {"255": 1}, or
{"-9999": 255} to ignore pixels without data. `"ignore_label": null` means that
no number is ignored.

Masks of colors: {"colors": {"road": [128, 64, 128], "car": "#00008e"},
"ignore_color": [0, 0, 0]}. A class, or what is ignored, may have a list of
colors. "names" may be left out: the classes are in the order of the colors.

"palette", one color per class, is for pictures; else the first color of each
class, or one that `spec.default_colors` gives it.
"""

import collections
from collections.abc import Mapping
import difflib
import pathlib
import re
from typing import Any
import unicodedata

from deeplax import errors
from deeplax import text_files
from deeplax.data import color_masks
from deeplax.data import label_tables
from deeplax.data import spec as spec_lib
from deeplax.labels import IGNORE_LABEL

_KEYS = {
  *("names", "palette", "ignore_label", "label_map"),  # for deeplax
  *("colors", "ignore_color"),
  *("dataset", "splits", "note"),  # for people
}
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
# Without "ignore_label": 255 is the default, and would be wrong where 255 is a
# class, which `checks.advice` finds out from the masks.
_EXAMPLE = '{"names": ["background", "cat"]}'
_short = text_files.short
_FIX = (
  "write one that names the classes in the order of their numbers, for example "
  f"{_EXAMPLE}"
)


def read(path: pathlib.Path) -> tuple[spec_lib.Spec, label_tables.Table]:
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
  if unknown := sorted(obj.keys() - _KEYS):
    raise ValueError(
      f"unknown keys {_short(unknown)}; known are {sorted(_KEYS)}"
    )
  names = _names(obj)
  palette = _palette(obj.get("palette"))
  if "colors" in obj:
    colors = _colors(obj, names)
    first: dict[int, int] = {}
    for color, label in colors:
      first.setdefault(label, color)
    palette = palette or tuple(
      color_masks.unpacked(first[label]) for label in range(len(names))
    )
    values: dict[label_tables.Number, int] = {i: i for i in range(len(names))}
    values[IGNORE_LABEL] = IGNORE_LABEL
    masks = color_masks.Colors(tuple(colors), names)
  else:
    values, masks = _numbers(obj, names), None
  spec = spec_lib.Spec(
    name=name,
    class_names=names,
    palette=palette or spec_lib.default_colors(names),
    label_map=tuple(
      (number, label)
      for number, label in sorted(values.items())
      if number != label or number >= len(names)
    ),
  )
  return spec, label_tables.from_labels(values, masks)


def _names(obj: Mapping[str, Any]) -> tuple[str, ...]:
  """Return the names: texts that tables can show, each of one class."""
  names = obj.get("names")
  if "names" not in obj:
    if not isinstance(obj.get("colors"), dict):
      raise ValueError(f'has no "names"; for example {_EXAMPLE}')
    names = [*obj["colors"]]
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
  return tuple(names)


def _numbers(
  obj: Mapping[str, Any], names: tuple[str, ...]
) -> dict[label_tables.Number, int]:
  """Return the label of each number in the masks.

  That is its own, or what "label_map" says, or 255 for what is ignored.
  """
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
  return values


def _colors(
  obj: Mapping[str, Any], names: tuple[str, ...]
) -> list[tuple[int, int]]:
  """Return (color, label) of each color in the masks.

  Those of a class are in the order of the file, the ignored ones come last.
  """
  for key in ("label_map", "ignore_label"):
    if obj.get(key) is not None:
      raise ValueError(
        f'"{key}" is about numbers, and with "colors" the masks hold colors: '
        f'leave "{key}" out; pixels of a color are ignored by "ignore_color"'
      )
  given = obj["colors"]
  if not isinstance(given, dict):
    raise ValueError(
      f'"colors" is {_short(given)}, not like {{"{names[0]}": [128, 64, 128]}}'
    )
  for name in given:
    if name not in names:
      near = difflib.get_close_matches(name, names, n=1)
      hint = f"; is {near[0]!r} meant?" if near else ""
      raise ValueError(
        f'"colors" has {_short(name)}, which is none of the "names"{hint}'
      )
  if lacking := [name for name in names if name not in given]:
    raise ValueError(
      f'"colors" has no color of {_short(lacking[0])}: give each class one, or '
      'take the class out of "names"'
    )
  wanted = [(f'"colors" of {name!r}', given[name]) for name in names]
  wanted.append(('"ignore_color"', obj.get("ignore_color") or []))
  found: dict[int, int] = {}
  for label, (place, value) in enumerate(wanted):
    for color in _one_or_more(value, place):
      number = int.from_bytes(bytes(color))
      if found.get(number) == label:
        raise ValueError(f"{place} has {color} twice: keep one")
      if number in found:
        raise ValueError(
          f"{place} has {color}, as {wanted[found[number]][0]} has: a pixel of "
          "this color would be of both. Take it out of one of the two"
        )
      found[number] = label
  ignored = len(names)
  return [(c, IGNORE_LABEL if i == ignored else i) for c, i in found.items()]


def _one_or_more(value: Any, place: str) -> list[spec_lib.Color]:
  """Return the colors of a color, or of a list of colors."""
  many = isinstance(value, list) and not (value and type(value[0]) is int)
  if place != '"ignore_color"' and value in ([], None):
    raise ValueError(f"{place} are none: give one, as [128, 64, 128]")
  return [_color(v, place) for v in (value if many else [value])]


def _palette(obj: Any) -> tuple[spec_lib.Color, ...]:
  """Return the colors [[red, green, blue], ...]; none for null and []."""
  if obj is not None and not isinstance(obj, list):
    raise ValueError(f'"palette" is {_short(obj)}, not a list of colors')
  return tuple(_color(color, '"palette"') for color in obj or [])


def _color(value: Any, place: str) -> spec_lib.Color:
  """Return the color that [red, green, blue] or "#rrggbb" stands for."""
  if isinstance(value, str) and _HEX.fullmatch(value):
    value = [*bytes.fromhex(value[1:])]
  three = isinstance(value, list) and len(value) == 3
  if not three or not all(_is_byte(v) for v in value):
    raise ValueError(
      f'{place} has {_short(value)}, not [0..255, 0..255, 0..255] or "#rrggbb"'
    )
  red, green, blue = map(int, value)
  return red, green, blue


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
