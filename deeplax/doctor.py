"""Examine an installation: python -m deeplax.doctor

Versions, devices, one convolution, memory, disk and the forms that operations
take on the devices: each form is run, its values are compared with the
plainest form's and its time with the chosen one's. That takes seconds; exit
status 0 when deeplax can run here.
"""

import argparse
import time

from deeplax import commands
from deeplax import errors
from deeplax import machine


def parser() -> argparse.ArgumentParser:
  """Return the command line."""
  return argparse.ArgumentParser(
    prog=commands.typed("doctor"),
    description="Look at versions, devices, memory and disk; run every form of "
    "the operations for its values and its time.",
    epilog="exit status: 0 when deeplax can run here, else 1",
  )


@errors.command
def main(argv: list[str] | None = None) -> int:
  parser().parse_args(argv)
  return machine.report(forms, check)


def forms() -> str:
  """Return the form of each operation, and why kernels are left out."""
  from deeplax.ops import backend

  text = ", ".join(f"{name} {backend.form(name)}" for name in backend.FORMS)
  if reason := backend.kernels_missing():
    text += f". Slower than with deeplax's kernels, which do not run: {reason}"
  return text


def check() -> tuple[list[str], list[str]]:
  """Run every form, printing its time; return notes and problems."""
  from deeplax.ops import form_check

  notes, problems, programs = [], [], 0
  start = time.perf_counter()
  for small, large in form_check.cases():
    # Before it is done: a compilation may take long, or never end.
    print(f"  {small.operation:<18}", end="", flush=True)
    found = form_check.compare(small, large)
    print(found.text(), flush=True)
    notes += found.notes()
    problems += found.problems()
    programs += found.programs
  seconds = time.perf_counter() - start
  print(
    f"  {programs} programs compiled and run in {seconds:.0f} s, forward and "
    f"back. Not run: {', '.join(form_check.OF_STEPS)}, ways to build a step"
  )
  return notes, problems


if __name__ == "__main__":
  main()
