"""Find a CRF's parameters: python -m deeplax.crf.search --workdir=runs/mine

Coarse to fine on 100 validation images, as DeepLab v1 (1412.7062) and v2
(1606.00915) did: w2 and sigma_gamma are 3, and a grid of w1, sigma_alpha and
sigma_beta is tried, then finer grids around the best so far. `evaluate` and
`predict` read the result's file by --crf_file. A search that was stopped
continues with the next image.
"""

import argparse

from deeplax import commands
from deeplax import errors
from deeplax import flags
from deeplax.settings import protocols


def parser() -> argparse.ArgumentParser:
  """Return the command line."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("crf.search"),
    description="Search the parameters of the dense CRF on validation images, "
    "coarse to fine.",
    epilog="example: %(prog)s --workdir=runs/v2_resnet101 --images=100",
    allow_abbrev=False,
  )
  flags.add_arguments(parser)
  flags.add_data_argument(parser)
  parser.add_argument(
    "--output_stride",
    type=int,
    metavar="OS",
    help="8, 16 or 32 (default: the config's)",
  )
  parser.add_argument("--split", help="default: the config's data.eval_split")
  parser.add_argument(
    "--images",
    type=int,
    default=100,
    metavar="N",
    help="spread evenly over the split (default: 100, the papers')",
  )
  parser.add_argument(
    "--grid",
    choices=sorted(protocols.CRF_GRIDS),
    default="v2",
    help="whose first grid (default: v2)",
  )
  for name in protocols.CRF_GRIDS["v2"]:
    parser.add_argument(
      f"--{name}",
      type=flags.numbers(float),
      metavar="X,X",
      help="values of the first grid instead; one value fixes it",
    )
  parser.add_argument(
    "--rounds",
    type=int,
    default=3,
    metavar="N",
    help="the first grid, then each with half the steps (default: 3)",
  )
  for name, default in (("w2", 3.0), ("sigma_gamma", 3.0), ("iterations", 10)):
    parser.add_argument(
      f"--{name}",
      type=type(default),
      default=default,
      metavar="X",
      help=f"fixed (default: {default:g}, the papers')",
    )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  for name in ("images", "rounds", "w2", "sigma_gamma", "iterations"):
    if not 0 < getattr(args, name) < float("inf"):
      raise errors.InputError(
        f"--{name}={getattr(args, name)}: give a number above 0"
      )

  # All that can be wrong without a network, before JAX is loaded.
  from deeplax.inference import asked

  found, source = asked.crf_search(args)

  from deeplax.inference import crf_search

  crf_search.run(args, found, source)


if __name__ == "__main__":
  main()
