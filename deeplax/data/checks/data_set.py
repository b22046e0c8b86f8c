"""Check all splits of a data set: their files, images in common, classes."""

import argparse
from collections.abc import Callable, Iterable, Sequence
import dataclasses
from functools import partial
import pathlib
from typing import Any

from deeplax import atomic
from deeplax import errors
from deeplax.data import build
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import prepared
from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data import walk
from deeplax.data.checks import check
from deeplax.data.checks import class_counts
from deeplax.data.checks import faults as faults_lib
from deeplax.data.checks import overlap

ALL = "all"

# The file or folder that shows that a published tree has a split. Left out are
# VOC's trainval, which is two others together, and Cityscapes' test, whose
# masks are empty.
_LISTS = "ImageSets/Segmentation"
_SPLITS = {
  "voc2012": {
    "train": f"{_LISTS}/train.txt",
    "train_aug": published.AUG_LABELS,
    "val": f"{_LISTS}/val.txt",
  },
  "cityscapes": {"train": "leftImg8bit/train", "val": "leftImg8bit/val"},
  "ade20k": {"train": "images/training", "val": "images/validation"},
  "camvid": {"train": "trainannot", "val": "valannot", "test": "testannot"},
}


@dataclasses.dataclass
class DataSetReport:
  """The findings of a data set.

  Attributes:
    reports: The report of each split.
    weights: The weight of each class, by training split and rule.
    warnings: Warnings about several splits together.
    faults: Files that cannot be used.
  """

  reports: dict[str, check.SplitReport]
  weights: dict[str, dict[str, tuple[float, ...]]]
  warnings: list[str]
  faults: list[faults_lib.Fault]

  def to_json(self) -> dict[str, Any]:
    """Return all findings, with every faulty file."""
    return {
      "splits": {k: dataclasses.asdict(r) for k, r in self.reports.items()},
      "class_weights": self.weights,
      "warnings": self.warnings,
      "faults": [
        {
          "message": group[0].text,
          "files": [{"file": f.file, "detail": f.detail} for f in group],
        }
        for group in faults_lib.groups(self.faults)
      ],
    }


def run(args: argparse.Namespace) -> None:
  """Check the data set that the flags of `deeplax.check_data` name.

  Raises:
    InputError: A file cannot be used.
  """
  progress = partial(print, flush=True)
  split = args.split or (ALL if args.full else "train")
  if split == ALL:
    for text in _without_masks(args.root):
      progress(f"warning: {text}")
  result = examine(
    args.root,
    splits(args.root) if split == ALL else [split],
    images=args.images,
    full=args.full,
    threads=args.threads,
    channels=args.channels,
    progress=progress,
  )
  for text in result.warnings:
    progress(f"warning: {text}")
  if args.json:
    fields = {"root": str(args.root), "full": args.full, **result.to_json()}
    with errors.disk_errors(f"cannot write {args.json}", "give another --json"):
      atomic.write_json(args.json, fields)
  _refuse(result, args.root)
  for name, weights in result.weights.items():
    report = result.reports[name]
    progress(_weights_text(weights, f"{report.checked} masks of {name}"))
  progress(_summary(result, full=args.full))


def examine(
  root: pathlib.Path,
  names: Sequence[str],
  *,
  images: int = 0,
  full: bool = False,
  threads: int = 4,
  channels: Sequence[int] | None = None,
  progress: Callable[[str], None] = print,
) -> DataSetReport:
  """Check splits of a data set, and return all findings without raising.

  Args:
    root: The data set's folder.
    names: The splits.
    images: How many masks of each to check, evenly spread; 0: all.
    full: Whether to decode images too, and to look for those that are in two
      splits.
    threads: How many read files.
    channels: Bands to read of own data; None: RGB.
    progress: Receives the report of each split, and lines of progress.
  """
  result = DataSetReport({}, {}, [], [])
  fingerprints = {}
  for name in names:
    try:
      source, unpaired = _open(root, name, channels)
    except errors.InputError as error:
      text = str(error)
      result.faults.append(faults_lib.Fault(text, f"{root} {name}", text))
      continue
    findings = check.examine(
      source, images=images, decode=full, threads=threads, progress=progress
    )
    result.faults += [*unpaired, *findings.faults]
    if not findings.masks:
      continue
    result.reports[name] = findings.report
    fingerprints[name] = findings.fingerprints
    progress(str(findings.report))
    if overlap.trains(name) and not findings.faults:
      counts = class_counts.tally(source, findings.masks)
      warn = result.warnings.append
      result.weights[name] = {
        rule: class_counts.weights(counts, rule, progress=warn)
        for rule in class_counts.RULES
      }
  if not result.faults:  # masks that are misread show the wrong classes
    result.warnings += _class_warnings(result.reports)
  result.warnings += overlap.doubles(fingerprints)
  result.faults += overlap.leaks(fingerprints)
  return result


def _open(
  root: pathlib.Path, split: str, channels: Sequence[int] | None
) -> tuple[files.Source, list[faults_lib.Fault]]:
  """Return a split, and a fault for each file without a partner."""
  if not (root / folder.CLASSES).is_file():
    return build.at(root, split), []
  source, unpaired = folder.listing(root, split, channels)
  faults = [
    faults_lib.from_text(u.text, *u.names)._replace(file=u.names[0])
    for u in unpaired
  ]
  return source, faults


def splits(root: pathlib.Path) -> list[str]:
  """Return the splits of a data set that have masks, train first.

  Raises:
    InputError: The folder has none.
  """
  if (root / folder.CLASSES).is_file():
    # Images without masks are for predicting, as a competition's test split.
    if names := folder.splits(root, "labels") or folder.splits(root):
      return _ordered(names)
    images, labels = (_holds(root / kind) for kind in ("images", "labels"))
    raise errors.InputError(
      f"{root} has no split. Each is a folder of images and one of masks: "
      "images/train/NAME.jpg with labels/train/NAME.png, and the same for val; "
      f"but images/ {images}, and labels/ {labels}. Make these folders, and "
      "move the files there"
    )
  for name, tree in published.TREES.items():
    if path := tree.find(root):
      places = _SPLITS[name].items()
      if names := [s for s, place in places if (path / place).exists()]:
        return names
    if path := prepared.find(root, name):
      stored = prepared.splits(path)
      names = [s for s, _ in spec_lib.SPECS[name].splits if s in stored]
      if names := [s for s in names if not overlap.is_union(s)]:
        return names
  if path := prepared.newest(root):
    return _ordered(prepared.splits(path))
  build.at(root, "train")  # raises, with all places that it looked in
  return ["train"]


def _holds(path: pathlib.Path) -> str:
  """Return what a folder holds, as text: "holds 12 .jpg, 1 .txt"."""
  if not path.is_dir():
    return "is not there"
  shown = [p for p in path.iterdir() if not walk.hidden(p.name)]
  return f"holds {walk.by_suffix(shown) or 'nothing'}"


def _without_masks(root: pathlib.Path) -> list[str]:
  """Return a warning about each split of own data that has no masks."""
  labels = folder.splits(root, "labels")
  if not (root / folder.CLASSES).is_file() or not labels:
    return []
  return [
    f"{root / 'images' / name} has no {root / 'labels' / name}, so it is not "
    "looked at: pictures without masks can be predicted, but neither learned "
    "from nor scored"
    for name in folder.splits(root)
    if name not in labels
  ]


def _ordered(names: Iterable[str]) -> list[str]:
  """Return splits in order: training, val, then the others."""
  return sorted(names, key=lambda s: (not overlap.trains(s), s != "val", s))


def _class_warnings(reports: dict[str, check.SplitReport]) -> list[str]:
  """Return warnings about classes that only some splits have."""
  learned, scored = set(), set()
  for split, report in reports.items():
    names = {row.name for row in report.rows if row.images}
    if overlap.trains(split):
      learned |= names
    elif not overlap.is_union(split):
      scored |= names
  if len(reports) < 2:
    return []
  rows = next(iter(reports.values())).rows
  # Two numbers may have one name; "(ignored)" and "(no class)" are none.
  listed = dict.fromkeys(r.name for r in rows if not r.name.startswith("("))
  warnings = []
  if never := [n for n in listed if n not in learned | scored]:
    warnings.append(f"in no split at all: {', '.join(never)}")
  if learned and (late := [n for n in listed if n in scored - learned]):
    warnings.append(
      f"evaluated but never learned, because no training mask has it: "
      f"{', '.join(late)}"
    )
  if scored and (unscored := [n for n in listed if n in learned - scored]):
    warnings.append(
      f"learned but never evaluated, because only training masks have it: "
      f"{', '.join(unscored)}"
    )
  return warnings


def _weights_text(weights: dict[str, tuple[float, ...]], title: str) -> str:
  """Return class weights, ready to copy."""
  lines = [f"class weights by {title}, if the loss is to have some:"]
  for rule, values in weights.items():
    numbers = ",".join(f"{value:.4g}" for value in values)
    lines.append(f"  --config.train.class_weights={rule}, which is")
    lines.append(f"  --config.train.class_weights={numbers}")
  return "\n".join(lines)


def _refuse(result: DataSetReport, root: pathlib.Path) -> None:
  """Raise if any file is faulty: the one message, or a list by cause."""
  faults = result.faults
  if len(faults) == 1:
    raise errors.InputError(faults[0].text)
  if faults:
    count = len({fault.file for fault in faults})
    causes = len(faults_lib.groups(faults))
    raise errors.InputError(
      f"{count} files of {root} cannot be used as they are "
      f"({causes} {'cause' if causes == 1 else 'causes'})\n"
      f"{faults_lib.listing(faults)}"
    )


def _summary(result: DataSetReport, *, full: bool) -> str:
  names = ", ".join(result.reports)
  masks = sum(report.checked for report in result.reports.values())
  if full:
    return f"no fault found: {names}, {masks} masks, all images decoded"
  images = sum(report.images for report in result.reports.values())
  text = f"no fault found in {masks} of {images} masks ({names})"
  if masks < images:
    text += f"; the other {images - masks} were not looked at"
  return (
    f"{text}, and no image was decoded. --full reads every mask and image of "
    "every split"
  )
