"""Evaluate a run: python -m deeplax.evaluate --workdir=runs/v3plus_xception

It makes the papers' table: every output stride, one scale and several, with and
without flips. What rows share of an image is computed once; see
`inference.averaging`. Labels are compared at their own size, and mIoU is
counted over the data set.
"""

import argparse

from deeplax import commands
from deeplax import errors
from deeplax import flags


def parser() -> argparse.ArgumentParser:
  """The command line; the config's eval values hold where it is silent."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("evaluate"),
    description="mIoU of a trained network on a split, per class: the papers' "
    "table of output strides, scales and flips, config.eval.sweep. With one of "
    "--output_strides, --scales and --flip only that evaluation.",
    epilog="example: %(prog)s "
    "--workdir=runs/v3plus_xception --output_strides=16,8 --flip",
    allow_abbrev=False,
  )
  flags.add_arguments(parser)
  flags.add_data_argument(parser)
  flags.add_crf_arguments(parser)
  flags.add_measure_arguments(parser)
  flags.add_size_arguments(parser)
  parser.add_argument(
    "--output_strides",
    type=flags.numbers(int),
    metavar="OS,OS",
    help="e.g. 16,8: one evaluation each (default: the config's)",
  )
  parser.add_argument(
    "--sweep",
    action=argparse.BooleanOptionalAction,
    help="the whole table, with the strides, scales and flip that are given; "
    "--no-sweep: only the evaluation of training, config.eval (default: the "
    "table if none of them is given)",
  )
  parser.add_argument("--split", help="default: the config's data.eval_split")
  parser.add_argument(
    "--max_images",
    type=int,
    default=0,
    metavar="N",
    help="only N images, spread evenly over the split (default: all)",
  )
  parser.add_argument(
    "--pictures",
    type=int,
    default=0,
    metavar="N",
    help="also write a sheet of N images, truths and predictions (default: 0)",
  )
  parser.add_argument(
    "--html",
    action="store_true",
    help="also write a page with the table, the confusion matrix and the worst "
    "images, for each evaluation; it needs no network",
  )
  parser.add_argument(
    "--worst",
    type=int,
    default=20,
    metavar="N",
    help="images on that page (default: 20)",
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  if args.worst < 1:
    raise errors.InputError(f"--worst={args.worst}: give 1 or more")

  # All that can be wrong without a network, before JAX is loaded.
  from deeplax.inference import asked

  found, source = asked.evaluation(args)

  from deeplax.reports import evaluation

  evaluation.run(args, found, source)


if __name__ == "__main__":
  main()
