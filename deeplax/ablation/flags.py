"""Flags that the experiments' commands share, and the experiment they choose.

Importing this loads no JAX: `--help` and a mistyped flag answer at once.
"""

import argparse
import os
import pathlib
import shlex

from deeplax import errors
from deeplax import paths
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import recipes


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags that `run` and `report` need to find the same trainings."""
  parser.add_argument(
    "name", metavar="NAME", help="module in experiments/, NAME:debug to try it"
  )
  parser.add_argument(
    "--data",
    choices=recipes.NAMES,
    default="",
    help="other data, with a small network and a short schedule (voc2012: with "
    "the table's own)",
  )
  parser.add_argument(
    "--full_size",
    action="store_true",
    help="with --data: keep the table's network",
  )
  parser.add_argument(
    "--steps", type=positive, help="of each training (default: the recipe's)"
  )
  parser.add_argument(
    "--seeds",
    type=integers,
    default=(),
    help="default 0,1,2, or the experiment's; :debug takes the first",
  )
  parser.add_argument(
    "--set",
    action="append",
    default=[],
    metavar="KEY=VALUE",
    help="a key of deeplax/settings/defaults.py for all trainings, e.g. "
    "data.root=/data",
  )
  parser.add_argument(
    "--out",
    type=paths.local,
    help="default experiments/results/NAME[_debug][_DATA]",
  )


def loaded(
  args: argparse.Namespace,
) -> tuple[experiment_lib.Experiment, pathlib.Path]:
  """Return the experiment and the folder of a command line."""
  if args.full_size and not args.data:
    raise errors.InputError("--full_size goes with --data")
  from deeplax.ablation import load  # loads JAX

  experiment = load.load(
    args.name,
    data=args.data,
    full_size=args.full_size,
    steps=args.steps,
    flags=args.set,
  )
  out = args.out or experiment.out()
  if not out.is_absolute():
    # Relative to the checkout, where the commands run.
    out = experiment_lib.ROOT / os.path.relpath(out, experiment_lib.ROOT)
  return experiment, out


def report_command(args: argparse.Namespace) -> str:
  """Return the command for the report of a run with these arguments."""
  words = [args.name, *([f"--data={args.data}"] if args.data else [])]
  words += ["--full_size"] if args.full_size else []
  words += [f"--steps={args.steps}"] if args.steps else []
  if args.seeds:
    words.append(f"--seeds={','.join(map(str, args.seeds))}")
  words += [f"--set={setting}" for setting in args.set]
  words += [f"--out={args.out}"] if args.out else []
  return f"{experiment_lib.command('report')} {shlex.join(words)}"


def shard(text: str) -> tuple[int, int]:
  """Return (place, number) of "2/4", for argparse."""
  try:
    place, number = map(int, text.split("/"))
  except ValueError:
    place, number = 0, 0
  if not 1 <= place <= number:
    raise argparse.ArgumentTypeError(f"{text!r} is not one of 1/4, 2/4, ...")
  return place, number


def integers(text: str) -> tuple[int, ...]:
  """Return (0, 1, 2) of "0,1,2", for argparse."""
  try:
    numbers = tuple(int(part) for part in text.split(","))
  except ValueError:
    numbers = ()
  if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
    raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0,1,2")
  return numbers


def positive(text: str) -> int:
  """Return a number of steps, for argparse."""
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"{text!r} must be 1 or more")
  return int(text)
