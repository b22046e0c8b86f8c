"""What is wrong with a file of a data set: cause, fix, files of one cause."""

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


@contextlib.contextmanager
def collected(
  faults: list[Fault], *names: str, detail: str = ""
) -> Iterator[None]:
  """Add what goes wrong inside to `faults`; names and detail: `from_text`."""
  try:
    yield
  except errors.InputError as error:
    faults.append(from_text(str(error), *names, detail=detail))


def groups(faults: Sequence[Fault]) -> list[list[Fault]]:
  """Return the faults by cause, in the order of the first of each."""
  result: dict[str, list[Fault]] = {}
  for fault in faults:
    result.setdefault(fault.cause, []).append(fault)
  return list(result.values())


def listing(faults: Sequence[Fault], *, shown: int = SHOWN) -> str:
  """Return each cause with its fix once, then its files.

  Args:
    faults: All faults.
    shown: Files of one cause to name.
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
  whole: bool = True,
) -> list[Fault]:
  """Return the masks whose numbers cannot be what was meant.

  Args:
    spec: The classes.
    table: The label of each number in the masks.
    masks: The masks.
    whole: Whether they are all that was looked at: some causes show only in
      all of them together, and one mask alone would be misread.
  """
  present = advice.ascending({v for m in masks for v in mask_counts.numbers(m)})
  labels = table.items()
  if (
    whole
    and present == [0, 255]
    and labels.get(255) not in range(spec.num_classes)
  ):
    text = advice.black_and_white(spec, labels)
    return [
      Fault("0 and 255", m.file, f"{m.file}: {_every(masks)} {text}")
      for m in masks
      if 255 in m.values
    ]
  bad = [
    (m, [v for v in mask_counts.numbers(m) if v not in labels]) for m in masks
  ]
  bad = [(mask, values) for mask, values in bad if values]
  if bad:
    every = advice.ascending({*present} - labels.keys())
    joint = advice.of_all(every, present, spec, labels) if whole else ""
    return [_illegal(m, v, joint, spec, labels) for m, v in bad]
  if whole and masks and not any(legal(mask, table) for mask in masks):
    text = (
      f"{_every(masks)} ignored pixels only (value "
      f"{advice.some(present)}), so there is nothing to learn. "
      "Check ignore_label, or whether the masks were written"
    )
    return [Fault("ignored", m.file, f"{m.file}: {text}") for m in masks]
  return []


def legal(mask: mask_counts.MaskCounts, table: label_tables.Table) -> int:
  """Return how many pixels of a mask belong to a class."""
  return int(
    mask_counts.by_label(mask, table)[: label_tables.MAX_CLASSES].sum()
  )


def _illegal(
  mask: mask_counts.MaskCounts,
  bad: Sequence[label_tables.Number],
  joint: str,
  spec: spec_lib.Spec,
  labels: advice.Labels,
) -> Fault:
  """Return the fault of a mask with the numbers `bad` that are no class."""
  pixels = sum(
    count
    for value, count in zip(
      mask_counts.numbers(mask), mask.pixels.tolist(), strict=True
    )
    if value not in labels
  )
  share = pixels / int(mask.pixels.sum())
  fix = joint or advice.of_one(bad, mask, share, spec, labels)
  k = spec.num_classes
  text = (
    f"{mask.file} has values {advice.some(bad)} but num_classes={k} allows "
    f"{_ranges(labels, k)}. {fix} ({share:.2%} of its pixels)"
  )
  cause = from_text(fix, mask.file).cause
  return Fault(cause, mask.file, text, f"values {advice.some(bad)}")


def _ranges(labels: advice.Labels, num_classes: int) -> str:
  """Describe the legal numbers: "0..20 (and 255 = ignored)"."""
  classes = [v for v, label in labels.items() if label < num_classes]
  text = advice.some(classes)
  if classes == list(range(len(classes))) and len(classes) > 1:
    text = f"0..{classes[-1]}"
  ignored = [v for v, c in labels.items() if c == IGNORE_LABEL]
  return text + (f" (and {advice.some(ignored)} = ignored)" if ignored else "")


def _every(masks: Sequence[mask_counts.MaskCounts]) -> str:
  return f"all {len(masks)} masks looked at hold" if len(masks) > 1 else "holds"
