"""Score masks: python -m deeplax.score PREDICTIONS LABELS --dataset=voc2012

Two folders of PNGs with the same sub-folders and names, predictions as
deeplax.predict writes them: a.jpg's is a_mask.png, its truth a.png. The numbers
are those of deeplax.evaluate, by the same functions, whoever has predicted.
"""

import argparse
import os
import pathlib

from deeplax import atomic
from deeplax import errors
from deeplax import flags
from deeplax.data import mask_folders
from deeplax.data import published as published_lib
from deeplax.data import spec as spec_lib
from deeplax.inference import settings
from deeplax.metrics import measures


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.score",
    description="mIoU and more of predicted masks, per class.",
    epilog="example: python -m deeplax.score predictions data/labels/val "
    "--classes=data/classes.json --boundary --out=scores.json",
    allow_abbrev=False,
  )
  parser.add_argument(
    "predictions", type=pathlib.Path, help="folder of masks, NAME_mask.png"
  )
  parser.add_argument(
    "labels", type=pathlib.Path, help="folder of true masks, NAME.png"
  )
  which = parser.add_mutually_exclusive_group()
  which.add_argument(
    "--classes",
    type=pathlib.Path,
    metavar="FILE",
    help="classes.json of own data (default: the one in LABELS or up to two "
    "folders above)",
  )
  which.add_argument(
    "--dataset", choices=spec_lib.SPECS, help="a published data set"
  )
  parser.add_argument(
    "--list",
    type=pathlib.Path,
    metavar="FILE",
    help="score these names only, one a line, as VOC's val.txt",
  )
  flags.add_measure_arguments(parser)
  parser.add_argument(
    "--out", type=pathlib.Path, metavar="FILE", help="write the scores as JSON"
  )
  parser.add_argument(
    "--threads", type=int, default=os.cpu_count() or 1, help="default: cores"
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  if args.dataset:
    classes = mask_folders.published(args.dataset, args.labels)
  else:
    classes = mask_folders.own(args.classes, args.labels)
  if args.list and not args.list.is_file():
    raise errors.InputError(f"no file --list={args.list} of names, one a line")
  names = published_lib.voc_ids(args.list) if args.list else None
  pairs = mask_folders.pairs(
    args.predictions, args.labels, ending=classes.ending, names=names
  )
  result = mask_folders.score(
    pairs,
    classes,
    measured=settings.chosen_measures(args),
    threads=args.threads,
  )
  print(measures.table(result, classes.spec.class_names))
  said = f"{result['images']} images"
  if args.out:
    try:
      atomic.write_json(args.out, result)
    except OSError as error:
      raise errors.InputError(f"cannot write {args.out}: {error}") from error
    said += f"; {args.out}"
  print(said)


if __name__ == "__main__":
  main()
