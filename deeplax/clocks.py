"""Clocks, and lines that tell how a long pass or a long call goes."""

from collections.abc import Callable, Iterator
import contextlib
import math
import shutil
import sys
import threading
import time
from typing import TypeVar

Name = TypeVar("Name")

# After two minutes XLA warns of a "Very slow compile"; it has no switch for it.
LONG = 100.0
NORMAL = "; large networks take minutes, whatever XLA says of a slow compile"
ERASE = "\r\x1b[K"  # from the start of a terminal's line to its end


@contextlib.contextmanager
def timed(clock: dict[Name, float] | None, name: Name) -> Iterator[None]:
  """Add the seconds spent inside to `clock[name]`, if there is a clock."""
  start = time.perf_counter()
  try:
    yield
  finally:
    if clock is not None:
      clock[name] = clock.get(name, 0.0) + time.perf_counter() - start


@contextlib.contextmanager
def ticking(
  text: str, progress: Callable[[str], None], *, every: float | None = None
) -> Iterator[None]:
  """Show the seconds that a long call inside takes, such as a compilation.

  A terminal has one line, rewritten each second and gone at the end; other
  outputs get a line every ten seconds. What is over earlier is silent, and so
  are all processes but the first.

  Args:
    text: What is done, such as "compiling the training step".
    progress: Receives the lines; on a terminal `print` is not called.
    every: Seconds between lines; None: as above.
  """
  import jax  # loaded by whoever compiles

  # A stand-in for standard output may lack the method.
  terminal = getattr(sys.stdout, "isatty", bool)()
  # Not where the lines go elsewhere.
  terminal = terminal and getattr(progress, "func", progress) is print
  wait = every or (1.0 if terminal else 10.0)
  start, ended = time.perf_counter(), threading.Event()

  def tick() -> None:
    # A closed output ends the command by itself.
    with contextlib.suppress(OSError, ValueError):
      while not ended.wait(wait):
        seconds = time.perf_counter() - start
        note = NORMAL if seconds > LONG else ""
        line = f"{text} ... {duration(seconds)}{note}"
        if terminal:
          # A line that wraps would not be erased.
          line = line[: shutil.get_terminal_size().columns - 1]
          print(ERASE + line, end="", flush=True)
        else:
          progress(line)

  thread = threading.Thread(target=tick, daemon=True)
  if jax.process_index() == 0:
    thread.start()
  try:
    yield
  finally:
    ended.set()
    if thread.ident:
      thread.join()
      if terminal and time.perf_counter() - start > wait:
        print(ERASE, end="", flush=True)


class Progress:
  """Prints now and then a long pass's progress, its speed and the time left."""

  def __init__(
    self,
    total: int,
    progress: Callable[[str], None],
    *,
    name: str,
    unit: str = "images",
    scale: float = 1,
    done: int = 0,
    every: float = 10.0,
    now: Callable[[], float] = time.perf_counter,
  ):
    """Start the clock.

    Args:
      total: Number of images, or of another unit, in all; 0: unknown.
      progress: Receives the lines.
      name: The first words of a line, such as "evaluated".
      unit: The unit that is counted.
      scale: Counts in one unit: 1e6 bytes are 1 MB.
      done: How many an earlier command did; they do not count in the speed.
      every: Seconds between lines, half of them before the first; a short pass
        is silent.
      now: Seconds of a clock, for example `Predictor.clock`.
    """
    self._total, self._progress, self._name = total, progress, name
    self._unit, self._scale, self._every, self._now = unit, scale, every, now
    self._start = now()
    self._printed = self._start - every / 2  # the first line comes sooner
    self._first = self._done = done

  def step(self, count: int = 1) -> None:
    """Count one image, or a batch of them, or some bytes."""
    self._done += count
    now = self._now()
    ended = self._done == self._total
    since = now - (self._start if ended else self._printed)
    if since >= (self._every / 2 if ended else self._every):
      self._printed = now
      done, total, rate = (
        value / self._scale for value in (self._done, self._total, self.rate)
      )
      left = max(total - done, 0) / rate
      self._progress(
        f"{self._name} {done:.0f}/{total:.0f} {self._unit}  "
        f"{rate:.1f} {self._unit}/s  ETA {duration(left)}"
      )

  @property
  def seconds(self) -> float:
    """Seconds since the start."""
    return self._now() - self._start

  @property
  def rate(self) -> float:
    """Counts per second since the start."""
    return (self._done - self._first) / max(self.seconds, 1e-9)


def duration(seconds: float) -> str:
  """Return seconds as 45 s, 12:05 or 3:12:05."""
  if not math.isfinite(seconds):
    return "?"
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02d}:{rest:02d}"
  return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"
