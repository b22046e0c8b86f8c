"""Look at an installation: python -m deeplax.doctor

Versions, devices, one convolution, memory and disk; exit status 0 when deeplax
can run here.
"""

import argparse

from deeplax import errors
from deeplax import machine


@errors.command
def main(argv: list[str] | None = None) -> int:
  argparse.ArgumentParser(
    prog="python -m deeplax.doctor",
    description="Look at versions, devices, memory and disk.",
    epilog="exit status: 0 when deeplax can run here, else 1",
  ).parse_args(argv)
  found, problems = machine.report()
  for name, value in found.items():
    print(f"{name:<20}{value}")
  if found["jax"] != "missing" and (warning := machine.accelerator_warning()):
    print(f"warning: {warning}")
  for problem in problems:
    print(f"problem: {problem}")
  print("not ready" if problems else "ready")
  return 1 if problems else 0


if __name__ == "__main__":
  main()
