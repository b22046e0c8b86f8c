"""Prepare a data set: python -m deeplax.data.build NAME --source=PATH

Writes array_record files with TensorFlow Datasets, without TensorFlow, to
DIR/NAME/1.0.0: pictures as they are, labels as training sees them. Where DIR
is the default, or $DEEPLAX_DATA, configurations find it with no flag.

  voc2012     --source: VOCdevkit; --sbd: benchmark_RELEASE, for train_aug
  cityscapes  --source: leftImg8bit/ and gtFine/, or the zips of them
  ade20k      --source: ADEChallengeData2016
  coco        --source: train2017/, val2017/, annotations/; VOC's classes
  folder      --source: your images/, labels/ and classes.json
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
import os
import pathlib
import sys

from deeplax import commands
from deeplax import errors
from deeplax import paths
from deeplax.data import published
from deeplax.data.prepare import ade20k
from deeplax.data.prepare import cityscapes
from deeplax.data.prepare import coco
from deeplax.data.prepare import folder as folder_lib
from deeplax.data.prepare import voc
from deeplax.data.prepare import write

NAMES = ("voc2012", "cityscapes", "ade20k", "coco", "folder")


def parser() -> argparse.ArgumentParser:
  """Return the command line."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("data.build"),
    description=commands.as_typed(__doc__ or ""),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog="example: %(prog)s voc2012 --download",
    allow_abbrev=False,
  )
  parser.add_argument("name", choices=NAMES, metavar="NAME")
  parser.add_argument(
    "--source",
    type=paths.local,
    metavar="PATH",
    help="where the published files are, or are to be fetched to",
  )
  parser.add_argument(
    "--out",
    type=paths.local,
    metavar="DIR",
    help="folder of prepared data sets (default: $TFDS_DATA_DIR, or else "
    "~/tensorflow_datasets, where configurations look)",
  )
  parser.add_argument(
    "--download",
    action="store_true",
    help="fetch the archives to --source (default: downloads/ in --out) and "
    "unpack them; continues where it was interrupted",
  )
  parser.add_argument(
    "--allow_partial",
    action="store_true",
    help="build splits of another size than published, too",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="build it again if it exists"
  )
  parser.add_argument(
    "--sbd",
    type=paths.local,
    metavar="PATH",
    help="voc2012: SBD as unpacked, benchmark_RELEASE",
  )
  parser.add_argument(
    "--min_pixels",
    type=int,
    metavar="N",
    help="coco: take images with more pixels of VOC's classes than this "
    f"(default: {coco.MIN_PIXELS})",
  )
  parser.add_argument(
    "--threads",
    type=int,
    default=4,
    metavar="N",
    help="how many read and check pictures (default: 4)",
  )
  return parser


@errors.command
def main(argv: Sequence[str] | None = None) -> None:
  commands = parser()
  flags = commands.parse_args(argv)
  if flags.threads < 1:
    commands.error(f"--threads={flags.threads}: give 1 or more")
  for flag, name in (("sbd", "voc2012"), ("min_pixels", "coco")):
    if getattr(flags, flag) is not None and flags.name != name:
      commands.error(f"--{flag} is for {name} only")
  if not flags.source and not flags.download:
    commands.error("give --source=PATH, the data set's folder, or --download")
  # Bound to this stdout: while TFDS writes, another one takes its output.
  progress = partial(print, file=sys.stdout, flush=True)
  out = flags.out or _default_out()
  # Refused before anything is fetched; own data are named later, by the plan.
  if not flags.overwrite and flags.name != "folder":
    write.refuse_existing(flags.name, out)
  plan = _plan(flags, out, progress)
  if not flags.overwrite:
    write.refuse_existing(plan.name, out)
  for note in plan.notes:
    progress(note)
  if not plan.splits:
    raise errors.InputError(f"{flags.source} holds no split of {plan.name}")
  if not flags.allow_partial:
    write.check_counts(plan, flags.source or out)
  try:
    target = write.write(plan, out, threads=flags.threads, progress=progress)
  except KeyError as error:
    if "getpwuid" not in str(error):
      raise
    raise errors.InputError(
      f"TensorFlow Datasets needs a user with a name, and user {os.getuid()} "
      "has none here: run this as one of /etc/passwd, or add a line for it"
    ) from error
  counts = ", ".join(f"{k} {len(v)}" for k, v in plan.splits.items())
  progress(f"{plan.name}: {counts} images in {target}")
  progress(f"train on it: {_use(plan, flags, out)}")


def _default_out() -> pathlib.Path:
  """Return the folder in which configurations look by default.

  Raises:
    InputError: This user has no home directory.
  """
  try:
    return paths.local(
      os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    )
  except errors.InputError as error:
    raise errors.InputError(
      f"{error}: give --out=DIR here, and export DEEPLAX_DATA=DIR for training"
    ) from error


def _use(plan: write.Plan, flags: argparse.Namespace, out: pathlib.Path) -> str:
  """Return the flags with which training reads the data set."""
  if flags.name == "folder":
    return f"--config.data.name=folder --config.data.root={out / plan.name}"
  name = f"--config.data.name={plan.name}"
  return f"{name} --config.data.root={out}" if flags.out else name


def _plan(
  flags: argparse.Namespace, out: pathlib.Path, progress: Callable[[str], None]
) -> write.Plan:
  """Return the data set to write, fetched and unpacked if need be."""
  source = flags.source or out / "downloads"
  unpacked: dict[str, pathlib.Path] = {}
  if flags.download:
    unpacked = _download(flags, source, progress)
  elif not source.is_dir():
    raise errors.InputError(
      f"--source={source} is no folder: name the one that has the data set, or "
      "add --download"
    )
  root = unpacked.get(flags.name, source)
  if flags.name == "folder":
    return folder_lib.plan(root)
  if flags.name == "coco":
    pixels = flags.min_pixels
    return coco.plan(
      root, min_pixels=coco.MIN_PIXELS if pixels is None else pixels
    )
  if flags.name == "cityscapes":
    return cityscapes.plan(_cityscapes(root, out, progress))
  root = _find(flags.name, root)
  if flags.name == "ade20k":
    return ade20k.plan(root)
  return voc.plan(root, sbd=flags.sbd or unpacked.get("sbd"))


def _find(name: str, root: pathlib.Path) -> pathlib.Path:
  """Return the root of a published data set."""
  tree = published.TREES[name]
  if path := tree.find(root):
    return path
  markers = ", no ".join(tree.markers)
  raise errors.InputError(
    f"--source={root} does not hold {tree.what}: no {markers} there. To get "
    f"it: {'; '.join(tree.get)}"
  )


def _download(
  flags: argparse.Namespace,
  folder: pathlib.Path,
  progress: Callable[[str], None],
) -> dict[str, pathlib.Path]:
  """Return the folders of the unpacked archives, by name."""
  name = flags.name
  if name == "cityscapes":
    raise errors.InputError(cityscapes.GET)
  # Imported here and below, because HTTP is slow to load and rarely needed.
  from deeplax.data.prepare import download

  if name not in download.ARCHIVES:
    raise errors.InputError(
      f"{name} has nothing to --download: give --source=PATH"
    )
  result = {}
  if published.TREES[name].find(folder):
    result[name] = folder
  if flags.sbd:
    result["sbd"] = flags.sbd
  for place, archives in download.ARCHIVES[name].items():
    if place in result:
      continue
    result[place] = folder / place
    if not result[place].exists():
      paths = [
        download.fetch(archive, folder, progress=progress)
        for archive in archives
      ]
      download.unpack(paths, result[place], progress=progress)
  return result


def _cityscapes(
  root: pathlib.Path, out: pathlib.Path, progress: Callable[[str], None]
) -> pathlib.Path:
  """Return the tree of Cityscapes, unpacked if `root` holds its zips."""
  if tree := published.TREES["cityscapes"].find(root):
    return tree
  paths = [root / name for name in cityscapes.ZIPS]
  lost = [path for path in paths if not path.is_file()]
  if lost:
    raise errors.InputError(
      f"no leftImg8bit/ and no {lost[0].name} in {root}. {cityscapes.GET}"
    )
  extra = [root / name for name in cityscapes.EXTRA_ZIPS]
  place = "cityscapes"
  if all(path.is_file() for path in extra):
    paths, place = paths + extra, "cityscapes_train_extra"

  from deeplax.data.prepare import download

  return download.unpack(paths, out / "downloads" / place, progress=progress)
