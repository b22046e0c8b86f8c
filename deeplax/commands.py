"""What the commands share: flags, the compilation cache, clocks, progress."""

import argparse
from collections.abc import Callable, Iterator
import contextlib
import json
import time
from typing import Any

from etils import epath
import jax
import ml_collections

from deeplax import errors
from deeplax import logs
from deeplax import windows as windows_lib
from deeplax.metrics import measures

# How images of many sizes share a program; see `inference.Predictor`.
SIZES = ("reference", "exact")
# In a workdir that deeplax.convert has written: what came from where.
CONVERTED = "converted.json"
RANDOM_INIT = "random (the papers start from ImageNet; expect far less)"


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
  """Return a checkpoint's step, for argparse: a number, or "best"."""
  if text == "best" or text.isdecimal():
    return text if text == "best" else int(text)
  raise argparse.ArgumentTypeError(f"{text!r} must be a number or best")


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags of every command that predicts with a trained run."""
  parser.add_argument(
    "--workdir", required=True, metavar="DIR", help="of the training run"
  )
  parser.add_argument(
    "--step",
    type=step,
    metavar="N|best",
    help="checkpoint: a step, or best by mIoU (default: the newest)",
  )
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


def add_crf_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags of every command that can refine what it predicts."""
  parser.add_argument(
    "--crf",
    action="store_true",
    help="refine by the dense CRF, with the config's eval.crf",
  )
  parser.add_argument(
    "--crf_file",
    metavar="JSON",
    help="refine by the dense CRF as python -m deeplax.crf.search found best",
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


def chosen_measures(args: argparse.Namespace) -> measures.Chosen:
  """Return what the flags of `add_measure_arguments` ask for."""
  return measures.Chosen(
    trimap=tuple(sorted(set(args.trimap))),
    boundary=args.boundary,
    objects=args.objects,
  )


def crf_parameters(
  config: Any, args: argparse.Namespace
) -> dict[str, float | int] | None:
  """Return the keywords of `crf.dense_crf` that the flags ask for, or None.

  Raises:
    InputError: The run reads no RGB, or a parameter is missing or wrong.
  """
  if not (args.crf or args.crf_file):
    return None
  if config.data.channels is not None:
    raise errors.InputError(
      f"--crf compares colours, and this run reads the bands "
      f"data.channels={tuple(config.data.channels)}: leave --crf out"
    )
  known, where = config.eval.crf.to_dict(), "the config's eval.crf"
  found = known
  if args.crf_file:
    where = f"--crf_file={args.crf_file}"
    try:
      found = json.loads(epath.Path(args.crf_file).read_text())["best"]
      kept = {"negligible": known["negligible"]}  # no search is about it
      found = {key: found[key] for key in known if key not in kept} | kept
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise errors.InputError(
        f"{where} is no finished result of python -m deeplax.crf.search: "
        f"{error!r}"
      ) from error
  if args.crf_negligible is not None:
    found = found | {"negligible": args.crf_negligible}
  for key, value in found.items():
    # Features of a tenth of a pixel or grey level still fit into float32.
    least = 0.1 if key.startswith("sigma") else 0
    number = isinstance(value, int | float)
    if not number or not least <= value < float("inf"):
      raise errors.InputError(
        f"{where}: {key} is {value}; give a number of {least} or more"
      )
  if found["negligible"] >= 1:
    raise errors.InputError(
      f"the CRF's negligible marginal is {found['negligible']}: give less than "
      "1, such as 0.01 (--crf_negligible or the config's eval.crf.negligible)"
    )
  return found


def add_size_arguments(parser: argparse.ArgumentParser) -> None:
  """Add the flags of how images of many sizes are given to the network."""
  parser.add_argument(
    "--sizes",
    choices=SIZES,
    help="reference: images are padded with the mean pixel, as the papers' "
    "numbers were made; exact: as if they were not (default: the config's)",
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
    "--overlap",
    type=int,
    metavar="N",
    help="pixels that windows share (default: the config's, a quarter window)",
  )


def sizing(
  config: Any, args: argparse.Namespace | None = None
) -> dict[str, Any]:
  """Return the keywords of `inference.Predictor` about sizes.

  Args:
    config: Of the run.
    args: Of `add_size_arguments`; None: the config's values alone.

  Raises:
    InputError: A value is wrong.
  """
  known = config.eval
  sizes = (args and args.sizes) or known.sizes
  if sizes not in SIZES:
    raise errors.InputError(
      f"eval.sizes={sizes!r} in the config must be one of {', '.join(SIZES)}"
    )
  given = {"window": known.window, "overlap": known.overlap}
  for name in given:
    if args is not None and getattr(args, name) is not None:
      given[name] = getattr(args, name)
  window, overlap = given["window"], given["overlap"]
  found = None
  if window or (args is not None and args.overlap):
    if not overlap and (args is None or args.overlap is None):
      overlap = window // 4
    try:
      found = windows_lib.Windows(window, overlap)
    except ValueError as error:
      raise errors.InputError(
        f"{error}: see --window and --overlap, or the config's eval.window and "
        "eval.overlap"
      ) from error
  return {"pad_to": known.pad_to, "sizes": sizes, "windows": found}


def sizing_text(sizing: dict[str, Any]) -> str:
  """Return what of `sizing` is not as the papers did it, for a line."""
  text = ", exact sizes" if sizing["sizes"] == "exact" else ""
  if found := sizing["windows"]:
    text += f", windows of {found.size} pixels that share {found.overlap}"
  return text


def compilation_cache(workdir: epath.PathLike) -> None:
  """Keep compiled programs in the workdir, unless JAX has another place."""
  if jax.config.values["jax_compilation_cache_dir"] is None:
    folder = epath.Path(workdir) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))


def init_text(
  config: ml_collections.ConfigDict, workdir: epath.PathLike | None = None
) -> str:
  """Say where the parameters come from; stands in the results too."""
  if workdir is not None and (epath.Path(workdir) / CONVERTED).exists():
    made = json.loads((epath.Path(workdir) / CONVERTED).read_text())
    return f"{made['source']} {made['checkpoint']}"
  return config.init.checkpoint or RANDOM_INIT


@contextlib.contextmanager
def timed(clock: dict[str, float], name: str) -> Iterator[None]:
  """Add the time spent inside to `clock[name]`, in seconds."""
  start = time.perf_counter()
  try:
    yield
  finally:
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - start


class Progress:
  """Says now and then how far a pass over images is, how fast, how long yet."""

  def __init__(
    self,
    total: int,
    log: Callable[[str], None],
    *,
    name: str,
    unit: str = "images",
    every: float = 10.0,
    now: Callable[[], float] = time.perf_counter,
  ):
    """Start the clock.

    Args:
      total: Images to come.
      log: Receives the lines.
      name: What is done, the first word of a line.
      unit: What is counted.
      every: Seconds between lines; a short pass is silent.
      now: Seconds of a clock, for example `Predictor.clock`.
    """
    self._total, self._log, self._name = total, log, name
    self._unit, self._every, self._now = unit, every, now
    self._start = self._said = now()
    self._done = 0

  def step(self) -> None:
    """Count one image."""
    self._done += 1
    now = self._now()
    since = self._start if self._done == self._total else self._said
    if now - since >= self._every:
      self._said = now
      left = (self._total - self._done) / self.rate
      self._log(
        f"{self._name} {self._done}/{self._total} {self._unit}  "
        f"{self.rate:.1f} {self._unit}/s  ETA {logs.duration(left)}"
      )

  @property
  def seconds(self) -> float:
    """Since the start."""
    return self._now() - self._start

  @property
  def rate(self) -> float:
    """Images per second since the start."""
    return self._done / max(self.seconds, 1e-9)
