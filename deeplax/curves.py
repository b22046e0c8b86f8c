"""Draw runs' trimap curves in one plot: python -m deeplax.curves --out=DIR RUN

It reads what `python -m deeplax.evaluate --trimap=1,2,5,10,20,40` has written.
Seeds of one design form a group, and two groups are subtracted:

  python -m deeplax.curves --out=DIR --group="none=runs/none_*" \\
    --group="decoder=runs/decoder_*"
"""

import argparse

from deeplax import commands
from deeplax import errors
from deeplax import paths


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("curves"),
    description="Trimap curves of several runs: mIoU and pixel accuracy by "
    "width of the band around boundaries, from what python -m deeplax.evaluate "
    "--trimap=... has written.",
    epilog='example: %(prog)s --out=curves --group="none='
    'runs/none_*" --group="decoder=runs/decoder_*"',
    allow_abbrev=False,
  )
  parser.add_argument(
    "runs",
    nargs="*",
    type=paths.expanded,
    metavar="RUN",
    help="workdir, or a result's file",
  )
  parser.add_argument(
    "--group",
    action="append",
    default=[],
    metavar="NAME=RUN,RUN",
    help="several seeds as one curve with its spread; RUN may have * and ?; of "
    "two groups the second's gain over the first is shown",
  )
  parser.add_argument(
    "--result",
    default="*.json",
    metavar="NAME",
    help="of the files in eval/ where there are several, e.g. "
    "'val-*-os16-s1.0.json'",
  )
  parser.add_argument(
    "--out",
    type=paths.expanded,
    required=True,
    metavar="DIR",
    help="for curves.svg, curves.md and curves.json",
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)

  from deeplax.reports import trimap_curves

  trimap_curves.run(args)


if __name__ == "__main__":
  main()
