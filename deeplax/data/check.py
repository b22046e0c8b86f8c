"""Look at some masks before training, and stop on what cannot be right.

Nothing else tells: JAX trains on with illegal labels, and the result is a
model that predicts one class everywhere. Cause and fix come in one message.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from deeplax import errors
from deeplax.data import files
from deeplax.data import spec as spec_lib


@dataclasses.dataclass(frozen=True)
class Row:
  """One number of the masks: how many percent of the pixels have it."""

  value: int
  name: str
  percent: float


@dataclasses.dataclass(frozen=True)
class Report:
  """What was found in the masks of a split.

  Attributes:
    name: Of the data set and split.
    images: In the split.
    expected: As published, or None.
    checked: Masks looked at.
    rows: By number in the files.
    notes: What is legal but worth knowing.
  """

  name: str
  images: int
  expected: int | None
  checked: int
  rows: tuple[Row, ...]
  notes: tuple[str, ...]

  def __str__(self) -> str:
    count = f"{self.images} images"
    if self.expected not in (None, self.images):
      count += f" (published: {self.expected})"
    lines = [f"{self.name}: {count}, {self.checked} masks checked"]
    width = max((len(r.name) for r in self.rows), default=0)
    lines.append(f"  value  {'class':{width}}  % of pixels")
    lines += [
      f"  {r.value:5d}  {r.name:{width}}  {r.percent:11.2f}" for r in self.rows
    ]
    return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def check(source: files.Source, *, images: int = 200) -> Report:
  """Check the masks of `images` examples, evenly spread over the source.

  Raises:
    InputError: Some cannot be used: file, numbers, cause and fix.
  """
  count = min(images, len(source))
  chosen = np.linspace(0, len(source) - 1, count).astype(int).tolist()
  if not isinstance(source, files.Decoded):  # pictures made on the spot
    made = [(str(i), _count(np.asarray(source[i]["label"]))) for i in chosen]
    return _report(source, made, files.plain_table(source.spec.num_classes))
  found: list[tuple[str, np.ndarray]] = []  # (file, pixels by number)
  faults: list[str] = []
  for index in chosen:
    try:
      item = source.encoded(index)
      raw = files.decode_label(item.label, item.label_file)
      size, _ = files.image_size(item.image, item.image_file)
      files.check_sizes(item, size, raw.shape)
    except errors.InputError as error:
      faults.append(str(error))
    else:
      found.append((item.label_file, _count(raw)))
  if faults:
    raise errors.InputError(_more(faults[0], len(faults), count))
  if not found:
    raise errors.InputError(f"{_title(source)} holds no images")
  _check_values(source, found)
  return _report(source, found, source.table)


def _title(source: files.Source) -> str:
  return f"{source.spec.name} {source.split}"


def _report(
  source: files.Source,
  found: Sequence[tuple[str, np.ndarray]],
  table: np.ndarray,
) -> Report:
  class_names = source.spec.class_names
  total = _total(found)
  percent = 100 * total / total.sum()
  ignored = spec_lib.IGNORE_LABEL
  rows = []
  for value, label in enumerate(table.tolist()):
    if label < len(class_names):
      rows.append(Row(value, class_names[label], float(_at(percent, value))))
    elif label == ignored and _at(total, value):
      rows.append(Row(value, "(ignored)", float(_at(percent, value))))
  notes = []
  if absent := [r.name for r in rows if not r.percent]:
    shown = ", ".join(absent[:6]) + (", ..." if len(absent) > 6 else "")
    notes.append(f"{len(absent)} classes are in none of these masks: {shown}")
  void = [file for file, counts in found if not _legal(counts, table)]
  if void:
    notes.append(
      f"{len(void)} of {len(found)} masks are wholly ignored, as {void[0]}"
    )
  return Report(
    name=_title(source),
    images=len(source),
    expected=dict(source.spec.splits).get(source.split),
    checked=len(found),
    rows=tuple(rows),
    notes=tuple(notes),
  )


def _count(raw: np.ndarray) -> np.ndarray:
  """Return the number of pixels by value; below 0 counts as 65,535, the end."""
  if raw.dtype != np.uint8:
    raw = np.where((raw >= 0) & (raw <= 65535), raw.astype(np.int64), 65535)
  return np.bincount(raw.ravel(), minlength=256)


def _total(found: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
  total = np.zeros(max(len(counts) for _, counts in found), np.int64)
  for _, counts in found:
    total[: len(counts)] += counts
  return total


def _at(values: np.ndarray, index: int) -> np.number | int:
  return values[index] if index < len(values) else 0


def _legal(counts: np.ndarray, table: np.ndarray) -> int:
  """Return how many pixels of a mask belong to a class."""
  return int(counts[:256][table < files.ILLEGAL].sum())


def _check_values(
  source: files.Decoded, found: Sequence[tuple[str, np.ndarray]]
) -> None:
  """Refuse numbers that are no class, naming what they look like."""
  spec, table = source.spec, source.table
  total = _total(found)
  present = np.flatnonzero(total).tolist()
  allowed = set(np.flatnonzero(table != files.ILLEGAL).tolist())
  if present == [0, 255] and table[255] not in range(spec.num_classes):
    ignored = table[255] == spec_lib.IGNORE_LABEL
    why = "255 means ignored here, so only 0 would be learnt. "
    raise errors.InputError(
      f"{found[0][0]}: {_every(found)} 0 and 255 only, the numbers of a black "
      f"and white picture. {why if ignored else ''}If 255 is class 1, write "
      '"label_map": {"255": 1}, "ignore_label": null into classes.json, or '
      "divide the masks by 255"
    )
  bad = [
    (file, [v for v in np.flatnonzero(counts).tolist() if v not in allowed])
    for file, counts in found
  ]
  bad = [(file, values) for file, values in bad if values]
  if bad:
    file, values = bad[0]
    every = sorted(set(present) - allowed)
    share = sum(total[v] for v in every) / total.sum()
    text = (
      f"{file} has values {_some(values)} but num_classes={spec.num_classes} "
      f"allows {_ranges(table, spec.num_classes)}. "
      f"{_diagnose(every, present, spec)} ({share:.2%} of the pixels looked at)"
    )
    raise errors.InputError(_more(text, len(bad), len(found)))
  if not _legal(total, table):
    raise errors.InputError(
      f"{found[0][0]}: {_every(found)} ignored pixels only (value "
      f"{_some(present)}), so there is nothing to learn. Check ignore_label, "
      "or whether the masks were written"
    )


def _diagnose(
  bad: Sequence[int], present: Sequence[int], spec: spec_lib.Spec
) -> str:
  """Say what illegal numbers look like, and the fix."""
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
  k = spec.num_classes
  if list(bad) == [k] and 0 not in present:
    return (
      "0 is in none of the masks, so the classes are counted from 1: subtract "
      "1 from the masks, or add a class for 0 as the first name"
    )
  if list(bad) == [255]:
    return (
      'If 255 means "not labelled", set "ignore_label": 255 in classes.json'
    )
  if min(bad) > 255:
    return (
      "These need 16 bits: an instance or colour code, not a class. Map them "
      "to classes and save 8 bit PNGs"
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


def _ranges(table: np.ndarray, num_classes: int) -> str:
  """Describe the legal numbers: "0..20 (and 255 = ignored)"."""
  classes = np.flatnonzero(table < num_classes).tolist()
  text = _some(classes)
  if classes == list(range(classes[0], classes[-1] + 1)):
    text = f"{classes[0]}..{classes[-1]}"
  ignored = np.flatnonzero(table == spec_lib.IGNORE_LABEL).tolist()
  return text + (f" (and {_some(ignored)} = ignored)" if ignored else "")


def _every(found: Sequence[tuple[str, np.ndarray]]) -> str:
  return f"all {len(found)} masks looked at hold" if len(found) > 1 else "holds"


def _some(values: Sequence[int]) -> str:
  shown = ", ".join(str(v) for v in values[:8])
  return shown + (", ..." if len(values) > 8 else "")


def _more(text: str, faulty: int, checked: int) -> str:
  if faulty == 1:
    return text
  return f"{text}\n{faulty} of the {checked} masks looked at cannot be used"
