"""Score masks: python -m deeplax.score PREDICTIONS LABELS --dataset=voc2012

Two folders of PNGs with the same sub-folders and names, predictions as
deeplax.predict writes them: a.jpg's is a_mask.png, its truth a.png. The numbers
are those of deeplax.evaluate, by the same functions, whoever has predicted.
"""

import argparse
import os

from deeplax import commands
from deeplax import errors
from deeplax import flags
from deeplax import paths
from deeplax.data import spec as spec_lib


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("score"),
    description="mIoU and more of predicted masks, per class.",
    epilog="example: %(prog)s predictions data/labels/val "
    "--classes=data/classes.json --boundary --out=scores.json",
    allow_abbrev=False,
  )
  parser.add_argument(
    "predictions", type=paths.local, help="folder of masks, NAME_mask.png"
  )
  parser.add_argument(
    "labels", type=paths.local, help="folder of true masks, NAME.png"
  )
  which = parser.add_mutually_exclusive_group()
  which.add_argument(
    "--classes",
    type=paths.local,
    metavar="FILE",
    help="classes.json of own data (default: the one in LABELS or up to two "
    "folders above)",
  )
  which.add_argument(
    "--dataset", choices=spec_lib.SPECS, help="a published data set"
  )
  parser.add_argument(
    "--list",
    type=paths.local,
    metavar="FILE",
    help="score these names only, one a line, as VOC's val.txt",
  )
  flags.add_measure_arguments(parser)
  parser.add_argument(
    "--out", type=paths.local, metavar="FILE", help="write the scores as JSON"
  )
  parser.add_argument(
    "--threads", type=int, default=os.cpu_count() or 1, help="default: cores"
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  if args.list and not args.list.is_file():
    raise errors.InputError(f"no file --list={args.list} of names, one a line")

  from deeplax.data import mask_folders

  mask_folders.run(args)


if __name__ == "__main__":
  main()
