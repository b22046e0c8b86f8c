"""Check whether the network can memorize a few images:

  python -m deeplax.overfit_check --config=configs/own_data.py \\
    --config.data.root=DIR

Trains the configuration's network with its loss and optimizer on a few training
images without augmentation. A sound set-up reaches a mIoU of 95% on them. If
yours does not, the command prints the likely causes, with the measurements
behind them and what to change. Nothing is written.
"""

import argparse
from functools import partial
import sys

from deeplax import commands
from deeplax import config_flag
from deeplax import errors

# Flags of the training command that mean nothing here.
UNUSED = ("workdir", "multihost", *(f.name for f in config_flag.PROCESS))


def parser() -> argparse.ArgumentParser:
  """The command line, without the flags of the configuration."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("overfit_check"),
    description="Train on a few images until they are memorized, or say why "
    "that fails. Exit status: 0 learned, 1 not, 2 wrong input.",
    epilog="example: %(prog)s "
    "--config=configs/own_data.py --config.data.root=my_data",
    allow_abbrev=False,
  )
  parser.add_argument(
    "--config",
    required=True,
    metavar="CONFIG[:ARG]",
    help="the run; any --config.KEY=VALUE as for deeplax.main",
  )
  for name, default, text in (
    ("images", 8, "training images, spread evenly over the split"),
    ("steps", 500, "at most; it stops as soon as they are memorized"),
    ("every", 25, "steps between measurements of the mIoU"),
  ):
    parser.add_argument(
      f"--{name}",
      type=int,
      default=default,
      metavar="N",
      help=f"{text} (default: {default})",
    )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> int:
  args, rest = parser().parse_known_args(argv)
  for name in ("images", "steps", "every"):
    if getattr(args, name) < 1:
      raise errors.InputError(f"--{name}={getattr(args, name)}: give 1 or more")
  for text in rest:
    if text.lstrip("-").partition("=")[0] in UNUSED:
      raise errors.InputError(
        f"{text}: nothing is written, on one device; leave it out"
      )
  config_flag.parse([sys.argv[0], f"--config={args.config}", *rest])
  config = config_flag.CONFIG.value

  # All that can be wrong without a network, before JAX is loaded.
  from deeplax.training import inputs

  source = inputs.examples(config)

  from deeplax.training import overfit

  # Flushed: progress through a pipe is read while it happens.
  return overfit.run(config, args, source, partial(print, flush=True))


if __name__ == "__main__":
  main()
