"""Flags that several commands share, and the parsers of their values."""

import argparse
from collections.abc import Callable
from typing import Any

from deeplax import commands
from deeplax import paths
from deeplax.settings import defaults


def numbers(kind: type) -> Callable[[str], tuple]:
  """Return an argparse type for positive numbers, "0.5,1.0,1.5"."""

  def parse(text: str) -> tuple:
    try:
      values = tuple(kind(part) for part in text.split(","))
    except ValueError:
      values = ()
    if not values or not all(0 < v < float("inf") for v in values):
      example = "16,8" if kind is int else "0.5,1.0,1.5"
      raise argparse.ArgumentTypeError(
        f"{text!r} must be positive numbers with commas between, as {example}"
      )
    return values

  return parse


def step(text: str) -> int | str:
  """Return a checkpoint's step for argparse: a number or "best"."""
  if text == "best" or text.isdecimal():
    return text if text == "best" else int(text)
  raise argparse.ArgumentTypeError(f"{text!r} must be a number or best")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags of every command that reads a trained run."""
  parser.add_argument(
    "--workdir",
    type=paths.expanded,
    required=True,
    metavar="DIR",
    help="of the training run",
  )
  parser.add_argument(
    "--step",
    type=step,
    metavar="N|best",
    help="checkpoint: a step, or best by mIoU (default: the newest)",
  )
  add_own_code(parser)


def add_own_code(parser: Any) -> None:
  """Add the flag by which a user trusts the program that a workdir names."""
  parser.add_argument(
    "--own_code",
    action="store_true",
    help="run the Python file that the run's configuration names, for a "
    "network of your own",
  )


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags of every command that predicts with a trained run."""
  add_run_arguments(parser)
  parser.add_argument(
    "--scales",
    type=numbers(float),
    metavar="S,S",
    help="image scales to average, e.g. 0.5,1.0,1.5 (default: the config's)",
  )
  parser.add_argument(
    "--flip",
    action=argparse.BooleanOptionalAction,
    help="average with the mirrored image (default: the config's)",
  )


def add_data_argument(parser: argparse.ArgumentParser) -> None:
  """Add the flag of every command that reads the data of a workdir's run."""
  parser.add_argument(
    "--data_root",
    type=paths.expanded,
    metavar="DIR",
    help="where the data lies now (default: where it was in training)",
  )


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags that deeplax.predict and deeplax.submit share."""
  add_arguments(parser)
  add_crf_arguments(parser)
  add_size_arguments(parser)
  parser.add_argument(
    "--output_stride",
    type=int,
    metavar="OS",
    help="8, 16 or 32 (default: the config's)",
  )
  parser.add_argument(
    "--probs",
    action="store_true",
    help="also write <name>_probs.npz: probabilities [h, w, k], float16",
  )


def add_crf_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags of every command that can refine what it predicts."""
  parser.add_argument(
    "--crf",
    action="store_true",
    help="refine by the dense CRF, with the config's eval.crf",
  )
  parser.add_argument(
    "--crf_file",
    type=paths.expanded,
    metavar="JSON",
    help="refine by the dense CRF as "
    f"{commands.typed('crf.search')} found best",
  )
  parser.add_argument(
    "--crf_negligible",
    type=float,
    metavar="Q",
    help="save time: leave out classes that provably stay below this marginal "
    "in every pixel, such as 0.01 (default: the config's "
    "eval.crf.negligible, 0)",
  )


def add_measure_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags of every command that scores predictions."""
  parser.add_argument(
    "--trimap",
    type=numbers(int),
    default=(),
    metavar="PX,PX",
    help="mIoU and pixel accuracy so many pixels around the boundaries of the "
    "truth, e.g. 1,2,5,10,20,40",
  )
  parser.add_argument(
    "--boundary",
    action="store_true",
    help="boundary F1 (SegNet's) and boundary IoU",
  )
  parser.add_argument(
    "--objects",
    action="store_true",
    help="IoU and recall by the size of objects",
  )


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags for images of many sizes: padding and windows."""
  parser.add_argument(
    "--sizes",
    choices=defaults.SIZES,
    help="reference: images are padded with the mean pixel, as the papers' "
    "numbers were made; exact: as if they were not; unpadded: not at all, with "
    "a program for each size of image (default: the config's)",
  )
  parser.add_argument(
    "--window",
    type=int,
    metavar="N",
    help="predict larger images in windows of NxN pixels, blended where they "
    "overlap; best a multiple of the output stride, plus 1, as 1025; 0: whole "
    "images (default: the config's)",
  )
  parser.add_argument(
    "--batch",
    type=int,
    metavar="N",
    help="images that each device predicts at once; 0: as many as make it "
    "faster and fit into half of its free memory, one on a CPU (default: the "
    "config's)",
  )
  parser.add_argument(
    "--overlap",
    type=int,
    metavar="N",
    help="pixels that windows share (default: the config's, a quarter window)",
  )
