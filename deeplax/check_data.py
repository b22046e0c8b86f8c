"""Check a data set before training: python -m deeplax.check_data DIR

DIR is a folder of own data (images/, labels/, classes.json), or the tree of
VOC 2012, Cityscapes, ADE20K or CamVid. Prints what each number in the masks
means and how often it occurs, and class weights; or what is wrong, in which
files, and how to mend it. --full reads every mask and every image of every
split, and looks for pictures that are in more than one.
"""

import argparse
from collections.abc import Sequence
import os

from deeplax import commands
from deeplax import errors
from deeplax import paths

IMAGES = 200  # masks of a split to look at


def parser() -> argparse.ArgumentParser:
  """Return the command line."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("check_data"),
    description=commands.as_typed(__doc__ or ""),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog="example: %(prog)s my_data --full",
    allow_abbrev=False,
  )
  parser.add_argument("root", type=paths.local, metavar="DIR")
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
    "--threads",
    type=int,
    default=os.cpu_count() or 1,
    metavar="N",
    help="default: cores",
  )
  parser.add_argument(
    "--json",
    type=paths.local,
    metavar="FILE",
    help="write the findings there, too, with every faulty file",
  )
  return parser


@errors.command
def main(argv: Sequence[str] | None = None) -> None:
  commands = parser()
  args = commands.parse_args(argv)
  if args.full and args.images is not None:
    commands.error("--full looks at all masks: leave --images out")
  if args.images is None:
    args.images = 0 if args.full else IMAGES
  if args.images < 0:
    commands.error(f"--images={args.images}: give 0 or more")
  if args.threads < 1:
    commands.error(f"--threads={args.threads}: give 1 or more")

  from deeplax.data.checks import data_set

  data_set.run(args)


if __name__ == "__main__":
  main()
