"""Files of a data set that cannot be used, with cause and fix."""

from collections.abc import Iterator, Sequence
import contextlib
import re
from typing import NamedTuple

from deeplax import errors
from deeplax.data import label_tables
from deeplax.data import spec as spec_lib
from deeplax.data.checks import advice
from deeplax.data.checks import mask_counts
from deeplax.labels import IGNORE_LABEL

SHOWN = 10  # files of one cause in a message; the JSON report has all


class Fault(NamedTuple):
  """A file that cannot be used.

  Attributes:
    cause: A text that is the same for all files of one cause.
    file: The file's name.
    text: The whole message: file, value, cause and fix.
    detail: What distinguishes this file from others of its cause, or "".
  """

  cause: str
  file: str
  text: str
  detail: str = ""


def from_text(text: str, *names: str, detail: str = "") -> Fault:
  """Return the fault that a message describes.

  Args:
    text: The message, which starts with the name of the file.
    *names: Files that it may name. The cause is what remains without them,
      without numbers and without brackets.
    detail: What distinguishes this file.
  """
  file = next((name for name in names if text.startswith(name)), names[0])
  cause, left = text, True
  for name in sorted(names, key=len, reverse=True):
    cause = cause.replace(name, "")
  while left:  # the innermost brackets first
    cause, left = re.subn(r"\s*\([^()]*\)", "", cause)
  return Fault(re.sub(r"\d[\d.,x% ]*", "#", cause), file, text, detail)


@contextlib.contextmanager
def collected(
  faults: list[Fault], *names: str, detail: str = ""
) -> Iterator[None]:
  """Add what is refused inside to `faults`; for the rest see `from_text`."""
  try:
    yield
  except errors.InputError as error:
    faults.append(from_text(str(error), *names, detail=detail))


def groups(faults: Sequence[Fault]) -> list[list[Fault]]:
  """Return the faults by cause, in the order in which the causes appear."""
  result: dict[str, list[Fault]] = {}
  for fault in faults:
    result.setdefault(fault.cause, []).append(fault)
  return list(result.values())


def listing(faults: Sequence[Fault], *, shown: int = SHOWN) -> str:
  """Return a text that gives each cause and its fix once, then its files.

  Args:
    faults: Any number of faults.
    shown: How many files of one cause to name.
  """
  lines = []
  for number, group in enumerate(groups(faults), 1):
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


def of_numbers(
  spec: spec_lib.Spec,
  table: label_tables.Table,
  masks: Sequence[mask_counts.MaskCounts],
  *,
  together: bool = True,
) -> list[Fault]:
  """Return a fault for each mask whose numbers cannot be right.

  Args:
    spec: The classes.
    table: The label of each number in the masks.
    masks: The counts of the masks.
    together: Whether to look for causes that only all masks of a split show;
      one mask alone would be misread.
  """
  present = advice.ascending({v for m in masks for v in m.numbers})
  labels = table.items()
  # Masks of 0 and 255 alone are black and white pictures.
  if (
    together
    and present == [0, 255]
    and labels.get(255) not in range(spec.num_classes)
  ):
    text = advice.black_and_white(spec, labels)
    return [
      Fault("0 and 255", m.file, f"{m.file}: {_every(masks)} {text}")
      for m in masks
      if 255 in m.values
    ]
  # Numbers that are neither a class nor ignored.
  bad = [(m, [v for v in m.numbers if v not in labels]) for m in masks]
  bad = [(mask, values) for mask, values in bad if values]
  if bad:
    every = advice.ascending({*present} - labels.keys())
    joint = advice.of_all(every, present, spec, labels) if together else ""
    return [_illegal(m, v, joint, spec, table) for m, v in bad]
  # All numbers are right, and none is a class.
  if together and masks and not any(legal(mask, table) for mask in masks):
    text = (
      f"{_every(masks)} ignored pixels only (value "
      f"{advice.some(present)}), so there is nothing to learn. "
      "Check ignore_label, or whether the masks were written"
    )
    return [Fault("ignored", m.file, f"{m.file}: {text}") for m in masks]
  return []


def legal(mask: mask_counts.MaskCounts, table: label_tables.Table) -> int:
  """Return how many pixels of a mask belong to a class."""
  pixels = mask_counts.by_label(mask, table)
  return int(pixels[: label_tables.MAX_CLASSES].sum())


def _illegal(
  mask: mask_counts.MaskCounts,
  bad: Sequence[label_tables.Number],
  joint: str,
  spec: spec_lib.Spec,
  table: label_tables.Table,
) -> Fault:
  """Return the fault of a mask.

  Args:
    mask: Its counts.
    bad: Its numbers that are no class.
    joint: The fix that the numbers of all masks suggest, or "".
    spec: The classes.
    table: The label of each number.
  """
  labels = table.items()
  illegal = mask_counts.by_label(mask, table)[label_tables.ILLEGAL]
  share = int(illegal) / int(mask.pixels.sum())
  fix = joint or advice.of_one(bad, mask, share, spec, labels)
  k = spec.num_classes
  text = (
    f"{mask.file} has values {advice.some(bad)} but num_classes={k} allows "
    f"{_ranges(labels, k)}. {fix} ({share:.2%} of its pixels)"
  )
  cause = from_text(fix, mask.file).cause
  return Fault(cause, mask.file, text, f"values {advice.some(bad)}")


def _ranges(labels: advice.Labels, num_classes: int) -> str:
  """Return the legal numbers as text: "0..20 (and 255 = ignored)"."""
  classes = [v for v, label in labels.items() if label < num_classes]
  text = advice.some(classes)
  if classes == list(range(len(classes))) and len(classes) > 1:
    text = f"0..{classes[-1]}"
  ignored = [v for v, c in labels.items() if c == IGNORE_LABEL]
  return text + (f" (and {advice.some(ignored)} = ignored)" if ignored else "")


def _every(masks: Sequence[mask_counts.MaskCounts]) -> str:
  return f"all {len(masks)} masks looked at hold" if len(masks) > 1 else "holds"
