"""Examine an installation: python -m deeplax.doctor

Versions, devices, one convolution, memory, disk and the forms that operations
take on the devices; exit status 0 when deeplax can run here.
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
  return machine.report(forms)


def forms() -> str:
  """Return the form of each operation, and why kernels are left out."""
  from deeplax.ops import backend

  text = ", ".join(f"{name} {backend.form(name)}" for name in backend.FORMS)
  if reason := backend.kernels_missing():
    text += f". Slower than with deeplax's kernels, which do not run: {reason}"
  return text


if __name__ == "__main__":
  main()
