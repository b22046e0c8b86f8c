"""What is wrong with a file of a data set: cause, fix, and files of one cause.

The numbers of a mask say a lot about how it was spoilt, and most ways have one
fix; `of_values` tells them apart.
"""

from collections.abc import Sequence
import re
from typing import NamedTuple

import numpy as np

from deeplax.data import label_tables
from deeplax.data import spec as spec_lib
from deeplax.data.checks import mask_counts

SHOWN = 10  # files of one cause in a message; the JSON report has all


class Fault(NamedTuple):
  """A file that cannot be used.

  Attributes:
    cause: The same for all files of one cause.
    file: Its name.
    text: The whole message: file, value, cause and fix.
    detail: What is particular to this file; may be empty.
  """

  cause: str
  file: str
  text: str
  detail: str = ""


def from_text(text: str, *names: str, detail: str = "") -> Fault:
  """Return the fault that a message tells, of the file that it starts with.

  Args:
    text: The message.
    *names: Files that it may name; the cause is what remains without them,
      without numbers and without brackets.
    detail: Of the file.
  """
  file = next((name for name in names if text.startswith(name)), names[0])
  cause, left = text, True
  for name in sorted(names, key=len, reverse=True):
    cause = cause.replace(name, "")
  while left:  # the innermost brackets first
    cause, left = re.subn(r"\s*\([^()]*\)", "", cause)
  return Fault(re.sub(r"\d[\d.,x% ]*", "#", cause), file, text, detail)


def groups(found: Sequence[Fault]) -> list[list[Fault]]:
  """Return the faults by cause, in the order of the first of each."""
  result: dict[str, list[Fault]] = {}
  for fault in found:
    result.setdefault(fault.cause, []).append(fault)
  return list(result.values())


def listing(found: Sequence[Fault], *, shown: int = SHOWN) -> str:
  """Return each cause with its fix once, then its files.

  Args:
    found: All faults.
    shown: Files of one cause to name.
  """
  lines = []
  for number, group in enumerate(groups(found), 1):
    lines.append(f"[{number}] {group[0].text}")
    if len(group) == 1:
      continue
    lines.append(f"    {len(group)} files:")
    for fault in group[:shown]:
      detail = f"  {fault.detail}" if fault.detail else ""
      lines.append(f"    {fault.file}{detail}")
    if len(group) > shown:
      lines.append(f"    and {len(group) - shown} more")
  return "\n".join(lines)


def of_values(
  spec: spec_lib.Spec,
  table: np.ndarray,
  found: Sequence[mask_counts.Counts],
  *,
  whole: bool = True,
) -> list[Fault]:
  """Return the masks whose numbers cannot be what was meant.

  Args:
    spec: The classes.
    table: The label of each number in the masks.
    found: The masks.
    whole: Whether they are all that was looked at: some causes show only in
      all of them together, and one mask alone would be misread.
  """
  present = sorted({v for mask in found for v in mask.values.tolist()})
  allowed = set(np.flatnonzero(table != label_tables.ILLEGAL).tolist())
  if (
    whole and present == [0, 255] and table[255] not in range(spec.num_classes)
  ):
    ignored = table[255] == spec_lib.IGNORE_LABEL
    why = "255 means ignored here, so only 0 would be learnt. "
    text = (
      f"{_every(found)} 0 and 255 only, the numbers of a black and white "
      f'picture. {why if ignored else ""}If 255 is class 1, write "label_map": '
      '{"255": 1}, "ignore_label": null into classes.json, or divide the masks '
      "by 255"
    )
    return [
      Fault("0 and 255", mask.file, f"{mask.file}: {text}")
      for mask in found
      if 255 in mask.values
    ]
  bad = [(m, [v for v in m.values.tolist() if v not in allowed]) for m in found]
  bad = [(mask, values) for mask, values in bad if values]
  if bad:
    every = sorted(set(present) - allowed)
    joint = _of_all(every, present, spec) if whole else ""
    return [_illegal(m, v, joint, spec, table) for m, v in bad]
  if whole and found and not any(legal(mask, table) for mask in found):
    text = (
      f"{_every(found)} ignored pixels only (value {_some(present)}), so there "
      "is nothing to learn. Check ignore_label, or whether the masks were "
      "written"
    )
    return [Fault("ignored", m.file, f"{m.file}: {text}") for m in found]
  return []


def legal(mask: mask_counts.Counts, table: np.ndarray) -> int:
  """Return how many pixels of a mask belong to a class."""
  return int(
    mask_counts.by_label(mask, table)[: label_tables.MAX_CLASSES].sum()
  )


def _illegal(
  mask: mask_counts.Counts,
  bad: Sequence[int],
  joint: str,
  spec: spec_lib.Spec,
  table: np.ndarray,
) -> Fault:
  """Return the fault of a mask with the numbers `bad` that are no class."""
  share = mask.pixels[np.isin(mask.values, bad)].sum() / mask.pixels.sum()
  advice = joint or _of_one(bad, mask, float(share), spec)
  text = (
    f"{mask.file} has values {_some(bad)} but num_classes={spec.num_classes} "
    f"allows {_ranges(table, spec.num_classes)}. {advice} ({share:.2%} of its "
    "pixels)"
  )
  cause = from_text(advice, mask.file).cause
  return Fault(cause, mask.file, text, f"values {_some(bad)}")


def _of_all(
  bad: Sequence[int], present: Sequence[int], spec: spec_lib.Spec
) -> str:
  """Say what the numbers of all masks together look like, or ""."""
  if text := _palette(bad, present, spec):
    return text
  k = spec.num_classes
  if list(bad) == [k] and 0 not in present:
    return (
      "0 is in none of the masks, so the classes are counted from 1: subtract "
      "1 from the masks, or add a class for 0 as the first name"
    )
  # More than half of the levels: fewer may be there by chance.
  if 2 * len(present) > k + 1 > 3 and (levels := _stretched(present, k)):
    mapped = ", ".join(f'"{v}": {c}' for v, c in levels.items() if v != c)
    return (
      f"These are {k} classes spread over 0 to 255, to be seen as greys. Map "
      f'them back in classes.json: "label_map": {{{mapped}}}, "ignore_label": '
      "null"
    )
  return ""


def _of_one(
  bad: Sequence[int],
  mask: mask_counts.Counts,
  share: float,
  spec: spec_lib.Spec,
) -> str:
  """Say what the illegal numbers of one mask look like, and the fix."""
  present = mask.values.tolist()
  if text := _palette(bad, present, spec):
    return text
  if list(bad) == [255]:
    return (
      'If 255 means "not labelled", set "ignore_label": 255 in classes.json'
    )
  if bad[0] < 0:
    return (
      "Numbers below 0 are no class: write them as one number up to 255, and "
      'name that as "ignore_label" in classes.json'
    )
  if bad[-1] > 255:
    if all(v % 257 == 0 for v in present):
      return (
        "All are multiples of 257: numbers of 8 bits were scaled to 16. Divide "
        "the masks by 257 and save 8 bit PNGs"
      )
    return (
      "These need 16 bits: an instance or colour code, not a class. Map them "
      "to classes and save 8 bit PNGs"
    )
  k = spec.num_classes
  # What JPEG leaves around edges is not between its neighbours: many numbers
  # of few pixels. Classes that are not named may be many, but follow the rest.
  follow = list(bad) == list(range(k, k + len(bad)))
  many = len(bad) >= 8 and share < 0.5 and share / len(bad) < 0.02
  if mask.blended or (many and not follow):
    return (
      "These are edges where a smooth resize, a soft brush or JPEG has blended "
      "the classes, which cannot be undone. Make the masks again from where "
      "they were drawn, and resize with the nearest neighbour only"
    )
  if len(bad) == 1:
    return (
      f'Either {bad[0]} means "not labelled": set "ignore_label": {bad[0]} in '
      f"classes.json; or it is a class: then name it there, or map it with "
      f'"label_map": {{"{bad[0]}": CLASS}}'
    )
  return (
    'Name these classes in classes.json, map them with "label_map": '
    f'{{"{bad[0]}": CLASS, ...}}, or repair the masks; JPEG or a smooth '
    "resize on the way makes such numbers too"
  )


def _palette(
  bad: Sequence[int], present: Sequence[int], spec: spec_lib.Spec
) -> str:
  """Say so if the numbers are grey levels of a palette."""
  voc = spec_lib.VOC2012
  for kind, palette in (("VOC", voc.palette), (spec.name, spec.palette)):
    # One grey level alone is a sign only where VOC's 21 classes are meant.
    enough = len(bad) > 1 or spec.num_classes == voc.num_classes
    if enough and set(present) <= _greys(palette):
      return (
        f"These are the grey levels of the {kind} palette: the file was saved "
        f"through a colour-to-grey conversion. {_collision(palette)}Use the "
        "original palette PNGs, read as indices"
      )
  return ""


def _greys(palette: Sequence[spec_lib.Color]) -> set[int]:
  """Return what grey conversions make of the colours, whichever rounding."""
  border = spec_lib.color_map(256)[255]  # what VOC paints ignored pixels with
  levels = (np.array([*palette, border]) @ [0.299, 0.587, 0.114]).tolist()
  return {0} | {int(v) for v in levels} | {int(v + 0.5) for v in levels}


def _collision(palette: Sequence[spec_lib.Color]) -> str:
  """Name two classes of one grey level, if there are such."""
  first: dict[int, int] = {}
  for label, (r, g, b) in enumerate(palette):
    # Pillow's convert("L"), in 16 bit fixed point.
    grey = (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16
    if grey in first:
      return (
        f"{grey} may be class {first[grey]} or {label}, so it cannot be "
        "undone. "
      )
    first[grey] = label
  return ""


def _stretched(present: Sequence[int], num_classes: int) -> dict[int, int]:
  """Return {number: class} if k classes were spread over 0 to 255, or {}."""
  result = {}
  for value in present:
    label = round(value * (num_classes - 1) / 255)
    if abs(value - label * 255 / (num_classes - 1)) >= 1:
      return {}
    result[value] = label
  return result


def _ranges(table: np.ndarray, num_classes: int) -> str:
  """Describe the legal numbers: "0..20 (and 255 = ignored)"."""
  classes = np.flatnonzero(table < num_classes).tolist()
  text = _some(classes)
  if classes == list(range(classes[0], classes[-1] + 1)):
    text = f"{classes[0]}..{classes[-1]}"
  ignored = np.flatnonzero(table == spec_lib.IGNORE_LABEL).tolist()
  return text + (f" (and {_some(ignored)} = ignored)" if ignored else "")


def _every(found: Sequence[mask_counts.Counts]) -> str:
  return f"all {len(found)} masks looked at hold" if len(found) > 1 else "holds"


def _some(values: Sequence[int]) -> str:
  shown = ", ".join(str(v) for v in values[:8])
  return shown + (", ..." if len(values) > 8 else "")
