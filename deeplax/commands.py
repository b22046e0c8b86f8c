"""What the commands share: flags, the compilation cache, clocks, progress."""

import argparse
from collections.abc import Callable, Iterator
import contextlib
import json
import time

from etils import epath
import jax
import ml_collections

from deeplax import logs

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
    every: float = 10.0,
    now: Callable[[], float] = time.perf_counter,
  ):
    """Start the clock.

    Args:
      total: Images to come.
      log: Receives the lines.
      name: What is done, the first word of a line.
      every: Seconds between lines; a short pass is silent.
      now: Seconds of a clock, for example `Predictor.clock`.
    """
    self._total, self._log, self._name = total, log, name
    self._every, self._now = every, now
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
        f"{self._name} {self._done}/{self._total} images  "
        f"{self.rate:.1f} images/s  ETA {logs.duration(left)}"
      )

  @property
  def seconds(self) -> float:
    """Since the start."""
    return self._now() - self._start

  @property
  def rate(self) -> float:
    """Images per second since the start."""
    return self._done / max(self.seconds, 1e-9)
