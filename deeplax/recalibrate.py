"""Measure a run's norm statistics anew: python -m deeplax.recalibrate
--workdir=runs/mine

A norm that was frozen, averaged with others, or trained too briefly for its
decay evaluates with statistics that do not fit its network. This command
measures them on training batches and writes them to a new workdir; the old one
stays as it is.
"""

import argparse

from deeplax import commands
from deeplax import errors
from deeplax import flags
from deeplax import paths


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("recalibrate"),
    description="Re-estimate the running statistics of a run's norms on its "
    "training batches, into a new workdir.",
    epilog="example: %(prog)s --workdir=runs/mine --batches=200",
    allow_abbrev=False,
  )
  flags.add_run_arguments(parser)
  flags.add_data_argument(parser)
  parser.add_argument(
    "--out",
    type=paths.expanded,
    metavar="DIR",
    help="new workdir (default: DIR_recalibrated)",
  )
  parser.add_argument(
    "--batches",
    type=int,
    default=100,
    metavar="N",
    help="training batches to measure on (default: 100)",
  )
  parser.add_argument(
    "--batch_size",
    type=int,
    metavar="N",
    help="images per batch (default: the run's)",
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  for name in ("batches", "batch_size"):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise errors.InputError(f"--{name}={value}: give 1 or more")

  # All that can be wrong without a network, before JAX is loaded.
  from deeplax.inference import asked

  found, source, step = asked.statistics(args)

  from deeplax.training import norm_statistics

  norm_statistics.run(args, found, source, step, print)


if __name__ == "__main__":
  main()
