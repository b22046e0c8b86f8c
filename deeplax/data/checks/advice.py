"""Advice on masks: what their numbers tell about the cause, and the fix.

Most causes have one fix. It works when it is followed word by word, and leaves
in force what classes.json says already.
"""

from collections.abc import Iterable, Mapping, Sequence
import json
import math

import numpy as np

from deeplax.data import label_tables
from deeplax.data import spec as spec_lib
from deeplax.data.checks import mask_counts
from deeplax.labels import IGNORE_LABEL

Labels = Mapping[label_tables.Number, int]  # of the numbers that have one
# Numbers that mark missing data in maps, besides NaN and all below 0: the
# largest of 16 and 32 bits, and nines.
_NO_DATA = (65535, 32767, 2**31 - 1, 2**32 - 1, 9999, 99999, 999999)
_FEW = 10  # numbers that a user may map by hand


def ascending(
  values: Iterable[label_tables.Number],
) -> list[label_tables.Number]:
  """Sort numbers, NaN last."""
  return sorted(values, key=lambda v: (math.isnan(v), v))


def some(values: Sequence[label_tables.Number]) -> str:
  """Return the first eight numbers as text."""
  shown = ", ".join(label_tables.written(v) for v in values[:8])
  return shown + (", ..." if len(values) > 8 else "")


def black_and_white(spec: spec_lib.Spec, labels: Labels) -> str:
  """Return what masks of 0 and 255 only are, and how to read them."""
  start = "0 and 255 only, the numbers of a black and white picture"
  if spec.num_classes == 1:
    (name,) = spec.class_names
    both = _with_background(name)
    return (
      f'{start}, but "names" of classes.json has one class, {name!r}, and a '
      "network needs two to tell apart. If 255 is that class and 0 all else, "
      f'write "names": {both}, "label_map": {{"255": 1}}, '
      '"ignore_label": null into classes.json; if 0 is that class, the same '
      'with "label_map": {"0": 1, "255": 0}'
    )
  why = "255 means ignored here, so only 0 would be learned. "
  return (
    f"{start}. {why if labels.get(255) == IGNORE_LABEL else ''}If "
    '255 is class 1, write "label_map": {"255": 1}, "ignore_label": null into '
    "classes.json, or divide the masks by 255"
  )


def _with_background(name: str) -> str:
  """Return the names of the background and a class, as in classes.json."""
  other = "other" if name == "background" else "background"
  return json.dumps([other, name], ensure_ascii=False)


def of_all(
  bad: Sequence[label_tables.Number],
  present: Sequence[label_tables.Number],
  spec: spec_lib.Spec,
  labels: Labels,
) -> str:
  """Return what the numbers of all masks suggest together, or ""."""
  if _is_nodata(bad, present):
    return _no_data(bad, labels)
  if text := _palette(bad, present, spec):
    return text
  k = spec.num_classes
  if k == 1 and list(bad) == [1] and 0 in present:
    (name,) = spec.class_names
    return (
      f'"names" of classes.json has one class, {name!r}, and a network needs '
      f'two to tell apart. If 1 is that class and 0 all else, write "names": '
      f"{_with_background(name)} into classes.json"
    )
  if list(bad) == [k] and 0 not in present:
    text = "0 is in none of the masks, so the classes are counted from 1: "
    if k <= _FEW:  # not the masks less 1, which would spoil 255
      counted: dict[label_tables.Number, int] = {i + 1: i for i in range(k)}
      text += f"{_map(labels, counted)}, or "
    return text + "add a class for 0 as the first name"
  # More than half of the levels must occur: fewer may do so by chance.
  bytes_only = all(map(label_tables.is_byte, present))
  many = bytes_only and 2 * len(present) > k + 1 > 3
  if many and (levels := _stretched(present, k)):
    mapped = ", ".join(f'"{v}": {c}' for v, c in levels.items() if v != c)
    return (
      f"These are {k} classes spread over 0 to 255, to be seen as grays. Map "
      f'them back in classes.json: "label_map": {{{mapped}}}, "ignore_label": '
      "null"
    )
  return ""


def of_one(
  bad: Sequence[label_tables.Number],
  mask: mask_counts.MaskCounts,
  share: float,
  spec: spec_lib.Spec,
  labels: Labels,
) -> str:
  """Return what the illegal numbers of one mask suggest, and the fix.

  Args:
    bad: The illegal numbers, ascending and NaN last.
    mask: The mask's counts.
    share: Share of the mask's pixels that have illegal numbers.
    spec: The classes.
    labels: The label of each legal number.
  """
  present = mask.numbers
  if text := _palette(bad, present, spec):
    return text
  if list(bad) == [255]:
    return f'If 255 means "not labeled", {_map(labels, {255: 255})}'
  if _is_nodata(bad, present):
    return _no_data(bad, labels)
  if any(v != math.floor(v) for v in bad if math.isfinite(v)):
    return _fractions(bad, mask, labels)
  # Numbers that are no bytes: below 0, or of 16 bits and more.
  if math.isnan(bad[-1]) or bad[0] < 0:
    return (
      "Numbers below 0 are no classes. Map each of these in classes.json, "
      f'"label_map": {{"{label_tables.written(bad[0])}": CLASS, ...}}, with '
      "255 in place of the class for what is to be ignored"
    )
  if bad[-1] > 255:
    if all(v % 257 == 0 for v in present):
      return (
        "All are multiples of 257: numbers of 8 bits were scaled to 16. Divide "
        "the masks by 257 and save 8 bit PNGs"
      )
    return (
      "These need 16 bits: an instance or color code, not a class. Map them "
      "to classes and save 8 bit PNGs"
    )
  # Bytes: blended edges, or classes that classes.json does not name.
  k = spec.num_classes
  # JPEG leaves numbers around edges that are not between their neighbors: many
  # numbers of few pixels each. Classes that classes.json does not name may be
  # many too, but they follow those that it names.
  follow = list(bad) == list(range(k, k + len(bad)))
  many = len(bad) >= 8 and share < 0.5 and share / len(bad) < 0.02
  if mask.blended or (many and not follow):
    return (
      "These are edges where a smooth resize, a soft brush or JPEG has blended "
      "the classes, which cannot be undone. Make the masks again from where "
      "they were drawn, and resize with the nearest neighbor only"
    )
  if len(bad) == 1:
    return (
      f'Either {bad[0]} means "not labeled": {_map(labels, {bad[0]: 255})}; '
      f"or it is a class: then name it there, or map it with "
      f'"label_map": {{"{bad[0]}": CLASS}}'
    )
  return (
    'Name these classes in classes.json, map them with "label_map": '
    f'{{"{bad[0]}": CLASS, ...}}, or repair the masks; JPEG or a smooth '
    "resize on the way makes such numbers too"
  )


def _is_nodata(
  bad: Sequence[label_tables.Number], present: Sequence[label_tables.Number]
) -> bool:
  """Return whether all illegal numbers stand for missing data."""
  if len(bad) > _FEW or list(present) == [0, 65535]:  # black, white in 16 bit
    return False
  return all(not math.isfinite(v) or v < 0 or v in _NO_DATA for v in bad)


def _no_data(bad: Sequence[label_tables.Number], labels: Labels) -> str:
  """Return how to ignore pixels without data."""
  ignored = _map(labels, dict.fromkeys(bad, IGNORE_LABEL))
  text = f'{some(bad)} {"says" if len(bad) == 1 else "say"} "no data" in many '
  text += f"maps. To have those pixels ignored, {ignored}"
  if positive := [v for v in bad if v in _NO_DATA]:
    text += f'. A class would be "{label_tables.written(positive[0])}": CLASS'
  return text


def _map(labels: Labels, more: Mapping[label_tables.Number, int]) -> str:
  """Return the "label_map" by which further numbers have labels, as advice."""
  # classes.json maps the numbers that are not their own label.
  mapping = {v: c for v, c in labels.items() if v != c} | dict(more)
  listed = ", ".join(
    f'"{label_tables.written(v)}": {c}' for v, c in mapping.items()
  )
  return f'write "label_map": {{{listed}}} into classes.json'


def _fractions(
  bad: Sequence[label_tables.Number],
  mask: mask_counts.MaskCounts,
  labels: Labels,
) -> str:
  """Return what numbers that are not whole suggest."""
  if mask.blended or len(bad) > _FEW:
    return (
      "A class is a whole number: these are a smooth resize, heights or "
      "probabilities, from which classes cannot be told. Make the masks again "
      "from where they were drawn, and resize with the nearest neighbor only"
    )
  first = label_tables.written(bad[0])
  return (
    "A class is a whole number. If these stand for classes, map each in "
    f'classes.json, "label_map": {{"{first}": CLASS, ...}}, with 255 in place '
    "of the class for what is to be ignored; or else make the masks again"
  )


def _palette(
  bad: Sequence[label_tables.Number],
  present: Sequence[label_tables.Number],
  spec: spec_lib.Spec,
) -> str:
  """Return that the numbers are gray levels of a palette, or ""."""
  voc = spec_lib.VOC2012
  for kind, palette in (("VOC", voc.palette), (spec.name, spec.palette)):
    # One gray level alone is a sign only where VOC's 21 classes are meant.
    enough = len(bad) > 1 or spec.num_classes == voc.num_classes
    if enough and set(present) <= _grays(palette):
      return (
        f"These are the gray levels of the {kind} palette: the file was saved "
        f"through a color-to-gray conversion. {_collision(palette)}Use the "
        "original palette PNGs, read as indices"
      )
  return ""


def _grays(palette: Sequence[spec_lib.Color]) -> set[int]:
  """Return the gray levels of colors, rounded down and to the nearest."""
  border = spec_lib.color_map(256)[255]  # VOC's color for ignored pixels
  levels = (np.array([*palette, border]) @ [0.299, 0.587, 0.114]).tolist()
  return {0} | {int(v) for v in levels} | {int(v + 0.5) for v in levels}


def _collision(palette: Sequence[spec_lib.Color]) -> str:
  """Return a sentence that names two classes of one gray level, or ""."""
  first: dict[int, int] = {}
  for label, (r, g, b) in enumerate(palette):
    # Pillow's convert("L"), in 16 bit fixed point.
    gray = (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16
    if gray in first:
      return (
        f"{gray} may be class {first[gray]} or {label}, so it cannot be "
        "undone. "
      )
    first[gray] = label
  return ""


def _stretched(
  present: Sequence[label_tables.Number], num_classes: int
) -> dict[label_tables.Number, int]:
  """Return {number: class} if the classes were spread over 0 to 255, or {}."""
  result = {}
  for value in present:
    label = round(value * (num_classes - 1) / 255)
    if abs(value - label * 255 / (num_classes - 1)) >= 1:
      return {}
    result[value] = label
  return result
