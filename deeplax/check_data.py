"""Check a data set before training: python -m deeplax.check_data DIR

DIR is a folder of own data (images/, labels/, classes.json), or the tree of
VOC 2012, Cityscapes, ADE20K or CamVid. Prints what each number in the masks
means and how often it occurs, and class weights; or what is wrong, in which
files, and how to mend it. --full reads every mask and every image of every
split, and looks for pictures that are in more than one.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
import dataclasses
from functools import partial
import pathlib
from typing import Any

from deeplax import errors
from deeplax import logs
from deeplax.data import build
from deeplax.data import check
from deeplax.data import faults as faults_lib
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import histogram
from deeplax.data import masks
from deeplax.data import overlap
from deeplax.data import sources
from deeplax.data import spec as spec_lib

ALL = "all"
IMAGES = 200

# What tells that a published tree has a split. VOC's trainval is the others
# together; the masks of Cityscapes' test are empty.
_LISTS = "ImageSets/Segmentation"
_SPLITS = {
  "voc2012": {
    "train": f"{_LISTS}/train.txt",
    "train_aug": sources.AUG_LABELS,
    "val": f"{_LISTS}/val.txt",
  },
  "cityscapes": {"train": "leftImg8bit/train", "val": "leftImg8bit/val"},
  "ade20k": {"train": "images/training", "val": "images/validation"},
  "camvid": {"train": "trainannot", "val": "valannot", "test": "testannot"},
}


@dataclasses.dataclass
class Result:
  """What was found in a data set.

  Attributes:
    reports: By split.
    weights: Of the classes, by training split and rule.
    warnings: About the splits together.
    faults: Files that cannot be used.
  """

  reports: dict[str, check.Report]
  weights: dict[str, dict[str, tuple[float, ...]]]
  warnings: list[str]
  faults: list[faults_lib.Fault]

  def to_json(self) -> dict[str, Any]:
    """Return all of it, with every faulty file."""
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


def examine(
  root: pathlib.Path,
  names: Sequence[str],
  *,
  images: int = 0,
  full: bool = False,
  threads: int = 4,
  channels: Sequence[int] | None = None,
  say: Callable[[str], None] = print,
) -> Result:
  """Look at the splits `names` of the data set in `root`.

  Args:
    root: Its folder.
    names: Of splits.
    images: Masks to look at in each, evenly spread; 0: all.
    full: Decode the images too, and look for the same ones in two splits.
    threads: That read.
    channels: Bands to read of own data; None: RGB.
    say: Receives the report of each split, and progress.
  """
  result = Result({}, {}, [], [])
  seen = {}
  for name in names:
    try:
      source, unpaired = _open(root, name, channels)
    except errors.InputError as error:
      text = str(error)
      result.faults.append(faults_lib.Fault(text, f"{root} {name}", text))
      continue
    found = check.examine(
      source, images=images, decode=full, threads=threads, progress=say
    )
    result.faults += [*unpaired, *found.faults]
    if not found.masks:
      continue
    result.reports[name] = found.report
    seen[name] = found.seen
    say(str(found.report))
    if overlap.trains(name) and not found.faults:
      counted = histogram.tally(source.spec, masks.table(source), found.masks)
      warn = result.warnings.append
      result.weights[name] = {
        rule: histogram.weights(counted, rule, progress=warn)
        for rule in histogram.RULES
      }
  result.warnings += _classes(result.reports) + overlap.doubles(seen)
  result.faults += overlap.leaks(seen)
  return result


def _open(
  root: pathlib.Path, split: str, channels: Sequence[int] | None
) -> tuple[files.Source, list[faults_lib.Fault]]:
  """Return a split, and what of it has no partner."""
  if not (root / folder.CLASSES).is_file():
    return build.at(root, split), []
  source, unpaired = folder.listing(root, split, channels)
  faults = [
    faults_lib.from_text(u.text, *u.names)._replace(file=u.names[0])
    for u in unpaired
  ]
  return source, faults


def splits(root: pathlib.Path) -> list[str]:
  """Return the splits of the data set in `root` that have masks, train first.

  Raises:
    InputError: There is none.
  """
  if (root / folder.CLASSES).is_file():
    # Pictures without masks are to predict only, as in a competition's test.
    return _ordered(folder.splits(root, "labels") or folder.splits(root))
  for name, tree in sources.TREES.items():
    if path := tree.find(root):
      places = _SPLITS[name].items()
      if found := [s for s, place in places if (path / place).exists()]:
        return found
    names = []
    for split, _ in spec_lib.SPECS[name].splits:
      try:
        if sources.prepared(root, spec_lib.SPECS[name], split):
          names.append(split)
      except errors.InputError:  # prepared without this split
        continue
    if names := [split for split in names if not overlap.whole(split)]:
      return names
  if path := sources.newest(root):
    return _ordered(sources.prepared_splits(path))
  build.at(root, "train")  # says what was looked for
  return ["train"]


def _ordered(names: Iterable[str]) -> list[str]:
  """Return splits, train and val first."""
  return sorted(names, key=lambda s: (not overlap.trains(s), s != "val", s))


def _write(path: pathlib.Path, value: dict[str, Any]) -> None:
  try:
    logs.write_json(path, value)
  except OSError as error:
    raise errors.InputError(
      f"--json={path} cannot be written: {error.strerror}"
    ) from error


def _classes(reports: dict[str, check.Report]) -> list[str]:
  """Return warnings about classes that are in some splits only."""
  learnt, scored = set(), set()
  for split, report in reports.items():
    names = {row.name for row in report.rows if row.images}
    if overlap.trains(split):
      learnt |= names
    elif not overlap.whole(split):
      scored |= names
  result = []
  if reports and len(reports) > 1:
    rows = next(iter(reports.values())).rows
    listed = [row.name for row in rows if not row.name.startswith("(")]
    listed = list(dict.fromkeys(listed))
    if never := [n for n in listed if n not in learnt | scored]:
      result.append(f"in no split at all: {', '.join(never)}")
    if learnt and (late := [n for n in listed if n in scored - learnt]):
      result.append(
        f"evaluated but never learnt, because no training mask has it: "
        f"{', '.join(late)}"
      )
    if scored and (unseen := [n for n in listed if n in learnt - scored]):
      result.append(
        f"learnt but never evaluated, because only training masks have it: "
        f"{', '.join(unseen)}"
      )
  return result


def weights_text(weights: dict[str, tuple[float, ...]], title: str) -> str:
  """Return class weights, ready to copy."""
  lines = [f"class weights by {title}, if the loss is to have some:"]
  for rule, values in weights.items():
    numbers = ",".join(f"{value:.4g}" for value in values)
    lines.append(f"  --config.train.class_weights={rule}, which is")
    lines.append(f"  --config.train.class_weights={numbers}")
  return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
  """Return the command line."""
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.check_data",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog="example: python -m deeplax.check_data my_data --full",
    allow_abbrev=False,
  )
  parser.add_argument("root", type=pathlib.Path, metavar="DIR")
  parser.add_argument(
    "--split",
    metavar="NAME|all",
    help="default: train; with --full, all",
  )
  parser.add_argument(
    "--full",
    action="store_true",
    help="every mask and every image, decoded",
  )
  parser.add_argument(
    "--images",
    type=int,
    metavar="N",
    help="masks to look at in a split, evenly spread; 0: all "
    f"(default: {IMAGES})",
  )
  parser.add_argument(
    "--channels",
    type=lambda text: tuple(int(part) for part in text.split(",")),
    metavar="N,N",
    help="own data of many bands: those to read, as data.channels",
  )
  parser.add_argument(
    "--threads", type=int, default=4, metavar="N", help="default: 4"
  )
  parser.add_argument(
    "--json",
    type=pathlib.Path,
    metavar="FILE",
    help="write the findings there, too, with every faulty file",
  )
  return parser


@errors.command
def main(argv: Sequence[str] | None = None) -> None:
  commands = parser()
  flags = commands.parse_args(argv)
  if flags.full and flags.images is not None:
    commands.error("--full looks at all masks: leave --images out")
  images = IMAGES if flags.images is None else flags.images
  if images < 0:
    commands.error(f"--images={images}: give 0 or more")
  if flags.threads < 1:
    commands.error(f"--threads={flags.threads}: give 1 or more")
  split = flags.split or (ALL if flags.full else "train")
  names = splits(flags.root) if split == ALL else [split]
  say = partial(print, flush=True)
  result = examine(
    flags.root,
    names,
    images=0 if flags.full else images,
    full=flags.full,
    threads=flags.threads,
    channels=flags.channels,
    say=say,
  )
  for text in result.warnings:
    say(f"warning: {text}")
  if flags.json:
    _write(
      flags.json,
      {"root": str(flags.root), "full": flags.full, **result.to_json()},
    )
  _refuse(result, flags.root)
  for name, weights in result.weights.items():
    report = result.reports[name]
    say(weights_text(weights, f"{report.checked} masks of {name}"))
  say(_summary(result, full=flags.full))


def _refuse(result: Result, root: pathlib.Path) -> None:
  """Raise if any file is faulty."""
  found = result.faults
  if len(found) == 1:
    raise errors.InputError(found[0].text)
  if found:
    count, causes = len({f.file for f in found}), len(faults_lib.groups(found))
    raise errors.InputError(
      f"{count} files of {root} cannot be used as they are "
      f"({causes} {'cause' if causes == 1 else 'causes'})\n"
      f"{faults_lib.listing(found)}"
    )


def _summary(result: Result, *, full: bool) -> str:
  masks = sum(report.checked for report in result.reports.values())
  what = "masks, all images decoded" if full else "masks; --full reads all"
  names = ", ".join(result.reports)
  return f"no fault found: {names}, {masks} {what}"


if __name__ == "__main__":
  main()
