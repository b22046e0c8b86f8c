"""Check a data set before training: python -m deeplax.check_data DIR

DIR is a folder of own data (images/, labels/, classes.json), or the tree of
VOC 2012, Cityscapes, ADE20K or CamVid. Prints how often each class occurs, or
what is wrong, in which file, and how to mend it.
"""

import argparse
from collections.abc import Sequence
import pathlib

from deeplax import errors
from deeplax.data import build
from deeplax.data import check


@errors.command
def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.check_data",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog="example: python -m deeplax.check_data my_data --split=val",
  )
  parser.add_argument("root", type=pathlib.Path, metavar="DIR")
  parser.add_argument("--split", default="train", help="default: train")
  parser.add_argument(
    "--images",
    type=int,
    default=200,
    metavar="N",
    help="masks to look at, evenly spread; 0: all (default: 200)",
  )
  flags = parser.parse_args(argv)
  if flags.images < 0:
    parser.error(f"--images={flags.images}: give 0 or more")
  source = build.at(flags.root, flags.split)
  print(check.check(source, images=flags.images or len(source)))


if __name__ == "__main__":
  main()
