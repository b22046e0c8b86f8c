"""Check the masks of a split before training, and refuse wrong ones.

Nothing else finds them: JAX trains on illegal labels as well, and the model
then predicts one class everywhere. Each message tells the cause and the fix.
"""

import collections
from collections.abc import Callable, Sequence
import dataclasses
from functools import partial
import hashlib
from typing import NamedTuple

import cv2
import numpy as np

from deeplax import errors
from deeplax.data import decoding
from deeplax.data import files
from deeplax.data import label_tables
from deeplax.data import views
from deeplax.data.checks import advice
from deeplax.data.checks import faults as faults_lib
from deeplax.data.checks import mask_counts
from deeplax.data.checks import turned as turned_lib
from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import printed

THUMBNAIL = 16  # pixels a side
UNKNOWN = 8  # rows of the table for numbers that are no class


@dataclasses.dataclass(frozen=True)
class NumberRow:
  """A number in the masks: its share of the pixels, and images that have it."""

  value: label_tables.Number
  name: str
  percent: float
  images: int


@dataclasses.dataclass(frozen=True)
class SplitReport:
  """The table of a split's masks, with warnings and notes.

  Attributes:
    name: The data set and the split.
    images: How many the split has.
    expected: How many were published, or None.
    checked: How many masks could be counted.
    rows: One for each number, ascending.
    warnings: Findings that are probably wrong.
    notes: Findings that are worth knowing.
  """

  name: str
  images: int
  expected: int | None
  checked: int
  rows: tuple[NumberRow, ...]
  warnings: tuple[str, ...]
  notes: tuple[str, ...]

  def __str__(self) -> str:
    count = f"{self.images} images"
    if self.expected not in (None, self.images):
      count += f" (published: {self.expected})"
    lines = [f"{self.name}: {count}, {self.checked} masks checked"]
    width = max((len(r.name) for r in self.rows), default=0)
    lines.append(f"  value  {'class':{width}}  % of pixels  images")
    lines += [
      f"  {label_tables.written(r.value):>5}  {r.name:{width}}  "
      f"{r.percent:11.2f}  {r.images:6d}"
      for r in self.rows
    ]
    lines += [f"  warning: {text}" for text in self.warnings]
    return "\n".join([*lines, *(f"  note: {text}" for text in self.notes)])


class Fingerprint(NamedTuple):
  """What tells an image again in another split.

  Attributes:
    name: The example's name.
    file: The image's file.
    digest: A hash of the file's bytes.
    thumbnail: [16, 16, c] in the image's own type; None: it is not readable.
  """

  name: str
  file: str
  digest: bytes
  thumbnail: np.ndarray | None


class ExampleFindings(NamedTuple):
  """The findings of one example.

  Attributes:
    index: Its index in the source.
    mask: Its mask's counts; None: it could not be read.
    faults: All that is wrong with mask and image.
    fingerprint: Its image's; None: it was not decoded.
    turned: Whether EXIF turns its image and nothing is wrong with it.
  """

  index: int
  mask: mask_counts.MaskCounts | None = None
  faults: Sequence[faults_lib.Fault] = ()
  fingerprint: Fingerprint | None = None
  turned: bool = False


class SplitFindings(NamedTuple):
  """All that `examine` found in a split.

  Attributes:
    report: The table to print.
    masks: Counts of the masks that could be read.
    faults: Masks and images that cannot be used.
    fingerprints: One for each image, if images were decoded.
  """

  report: SplitReport
  masks: list[mask_counts.MaskCounts]
  faults: list[faults_lib.Fault]
  fingerprints: list[Fingerprint]


def check(
  source: files.Source,
  *,
  images: int = 200,
  progress: Callable[[str], None] = lambda line: None,
) -> SplitReport:
  """Check the masks of `images` examples, evenly spread over the source.

  Of the images, only the sizes are read; `progress` receives lines of progress.

  Raises:
    InputError: A mask or image cannot be used: the file, cause and fix.
  """
  findings = examine(source, images=images, progress=progress)
  if findings.faults:
    first, count = findings.faults[0].text, min(images, len(source))
    faulty = len({fault.file for fault in findings.faults})
    if faulty > 1:
      first += f"\n{faulty} of the {count} masks looked at cannot be used"
    raise errors.InputError(first)
  if not findings.masks:
    raise errors.InputError(f"{_title(source)} holds no images")
  return findings.report


def examine(
  source: files.Source,
  *,
  images: int = 0,
  chosen: Sequence[int] | None = None,
  decode: bool = False,
  threads: int = 4,
  progress: Callable[[str], None] = lambda line: None,
) -> SplitFindings:
  """Check masks and images, and return all findings without raising.

  Args:
    source: A split.
    images: How many examples to check, evenly spread; 0: all.
    chosen: The indices of the examples to check instead.
    decode: Whether to decode the images too, not only to read their sizes.
    threads: How many read files.
    progress: Receives lines of progress.
  """
  findings = mask_counts.each(
    partial(_examine_one, source, decode=decode),
    views.evenly(len(source), images) if chosen is None else chosen,
    threads=threads,
    progress=progress,
    name=f"checked {source.split}",
  )
  examples: list[ExampleFindings] = [*findings]
  # Some faults show only in the numbers of all masks together.
  masks = [example.mask for example in examples if example.mask]
  table = mask_counts.label_table(source)
  faults = [fault for example in examples for fault in example.faults]
  faults += faults_lib.of_numbers(source.spec, table, masks)
  report = _report(source, masks, table, right=not faults)
  turned = [example.index for example in examples if example.turned]
  if turned and isinstance(source, files.Decoded):
    report = _with_turned(report, source, turned, len(examples))
  fingerprints = [
    example.fingerprint for example in examples if example.fingerprint
  ]
  return SplitFindings(report, masks, faults, fingerprints)


def _examine_one(
  source: files.Source, index: int, *, decode: bool
) -> ExampleFindings:
  """Check one example."""
  if not isinstance(source, files.Decoded):  # pictures made on the spot
    return ExampleFindings(index, mask_counts.read(source, index))
  faults: list[faults_lib.Fault] = []
  item = raw = size = fingerprint = mask = None
  names = [source.name(index)]
  if isinstance(source, files.Files):
    names = [str(path) for path in source.pairs[index][1:]]
  with faults_lib.collected(faults, *names):
    item = source.encoded(index)
  if item is None:
    return ExampleFindings(index, faults=faults)
  turned, names = False, (item.label_file, item.image_file)
  # The mask, then the image, then both: each can be wrong on its own.
  with faults_lib.collected(faults, *names):
    raw = decoding.decode_label(
      item.label, item.label_file, source.table.colors
    )
    mask = mask_counts.count(raw, item.label_file, source.table)
  with faults_lib.collected(faults, *names[::-1]):
    header = decoding.image_header(item.image, item.image_file)
    turned = header.orientation != 1
    if decode:
      fingerprint = _fingerprint(source.name(index), item)
      image = source.reader(item.image, item.image_file)
      fingerprint = fingerprint._replace(thumbnail=_thumbnail(image))
      size = image.shape[:2]
    else:
      size = header.size
  if raw is not None and size is not None:
    h, w = raw.shape
    detail = f"{h}x{w}, image {size[0]}x{size[1]}"
    with faults_lib.collected(faults, *names, detail=detail):
      files.check_sizes(item, size, raw.shape)
  # A photo that is refused, for its size perhaps, needs no further warning.
  return ExampleFindings(
    index, mask, faults, fingerprint, turned and not faults
  )


def _with_turned(
  report: SplitReport, source: files.Decoded, turned: Sequence[int], images: int
) -> SplitReport:
  """Add a warning or a note about the photos that EXIF turns."""
  fits = []
  for place in views.evenly(len(turned), turned_lib.COMPARED):
    item = source.encoded(turned[place])
    try:
      example = source.decoded(item)
    except errors.InputError:  # its header alone was whole
      continue
    header = decoding.image_header(item.image, item.image_file)
    fits.append(
      turned_lib.fits(example["image"], example["label"], header.orientation)
    )
  first = source.encoded(turned[0]).image_file
  text, warns = turned_lib.message(first, len(turned), images, fits)
  if warns:
    return dataclasses.replace(report, warnings=(*report.warnings, text))
  return dataclasses.replace(report, notes=(*report.notes, text))


def _fingerprint(name: str, item: files.Encoded) -> Fingerprint:
  digest = hashlib.blake2b(item.image, digest_size=16).digest()
  return Fingerprint(name, item.image_file, digest, None)


def _thumbnail(image: np.ndarray) -> np.ndarray:
  """Return the mean colors of an image in a grid of cells."""
  size = (THUMBNAIL, THUMBNAIL)
  # In its own type: a large image in floats would take four times its memory.
  first = np.ascontiguousarray(image[..., :3])
  return cv2.resize(first, size, interpolation=cv2.INTER_AREA)


def _title(source: files.Source) -> str:
  return f"{source.spec.name} {source.split}"


def _report(
  source: files.Source,
  masks: Sequence[mask_counts.MaskCounts],
  table: label_tables.Table,
  *,
  right: bool,
) -> SplitReport:
  """Return the report of a split; only its table if masks are not `right`."""
  class_names = source.spec.class_names
  # Pixels of each number, images that have it, and pixels of each label.
  pixels, images = collections.Counter(), collections.Counter()
  labels = np.zeros(256, np.int64)
  for mask in masks:
    labels += mask_counts.by_label(mask, table)
    values = mask.numbers
    pixels.update(dict(zip(values, mask.pixels.tolist(), strict=True)))
    images.update(values)
  total = max(pixels.total(), 1)
  rows = [
    NumberRow(value, name, 100.0 * pixels[value] / total, images[value])
    for value, name in _names(pixels, class_names, table).items()
  ]
  by_class = labels[: len(class_names)]
  expected = dict(source.spec.splits).get(source.split)
  warnings = []
  if expected not in (None, len(source)):
    warnings.append(
      f"{source.split} has {len(source)} images where {expected} are "
      "published: results do not compare with the papers'"
    )
  void = [m.file for m in masks if not faults_lib.legal(m, table)]
  if void and right:
    warnings.append(
      f"{len(void)} of {len(masks)} masks are wholly ignored, as {void[0]}"
    )
  if right and np.count_nonzero(by_class) == 1 and len(masks) > 1:
    warnings.append(
      f"every mask is {class_names[int(by_class.argmax())]!r} only: a network "
      "would learn to predict it everywhere. See whether the masks were "
      "written with the numbers of the classes, or add images with others"
    )
  notes = []
  if isinstance(source, files.Decoded) and source.left_out:
    notes.append(f"left out, of kinds that are not read: {source.left_out}")
  if right:
    complete = len(masks) == len(source)
    notes += _notes(by_class, class_names, complete=complete)
  return SplitReport(
    name=_title(source),
    images=len(source),
    expected=expected,
    checked=len(masks),
    rows=tuple(rows),
    warnings=tuple(warnings),
    notes=tuple(notes),
  )


def _names(
  pixels: collections.Counter[label_tables.Number],
  class_names: Sequence[str],
  table: label_tables.Table,
) -> dict[label_tables.Number, str]:
  """Return the names of all numbers that are classes or occur, ascending."""
  names = {}
  for value, label in table.items().items():
    if label < len(class_names):
      names[value] = class_names[label]
    elif label == IGNORE_LABEL and pixels[value]:
      names[value] = "(ignored)"
  unknown = [v for v, _ in pixels.most_common() if v not in names]
  names |= dict.fromkeys(unknown[:UNKNOWN], "(no class)")
  return {v: names[v] for v in advice.ascending(names)}


def _notes(
  by_class: np.ndarray, class_names: Sequence[str], *, complete: bool
) -> list[str]:
  """Return which classes are absent, and what a constant answer would score.

  Args:
    by_class: Pixels of each class.
    class_names: The data set's.
    complete: Whether all masks were counted.
  """
  notes = []
  absent = [n for n, c in zip(class_names, by_class, strict=True) if not c]
  if absent:
    shown = ", ".join(absent[:6]) + (", ..." if len(absent) > 6 else "")
    count = "1 class is" if len(absent) == 1 else f"{len(absent)} classes are"
    notes.append(
      f"{count} in none of these masks: {shown}. No network can learn what it "
      "never sees: add images that show it, or take the name out of the classes"
      + ("" if complete else "; --full looks at all masks (deeplax.check_data)")
    )
  if np.count_nonzero(by_class) > 1:  # one alone is a warning
    share = by_class.max() / by_class.sum()
    # Its IoU is its share; that of each other class that occurs is 0.
    miou = share / np.count_nonzero(by_class)
    notes.append(
      f"always predicting {class_names[int(by_class.argmax())]!r} scores pixel "
      f"accuracy {printed.score(share)}, mIoU {printed.score(miou)}"
    )
  return notes
