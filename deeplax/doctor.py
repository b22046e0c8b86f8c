"""Examine an installation: python -m deeplax.doctor

Versions, devices, one convolution, memory and disk; exit status 0 when deeplax
can run here.
"""

import argparse

from deeplax import errors
from deeplax import machine


def parser() -> argparse.ArgumentParser:
  """Return the command line."""
  return argparse.ArgumentParser(
    prog="python -m deeplax.doctor",
    description="Look at versions, devices, memory and disk.",
    epilog="exit status: 0 when deeplax can run here, else 1",
  )


@errors.command
def main(argv: list[str] | None = None) -> int:
  parser().parse_args(argv)
  return machine.report()


if __name__ == "__main__":
  main()
