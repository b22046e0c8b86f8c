"""What the sections share: sizes, programs compiled and timed, the ceilings."""

import argparse
from collections.abc import Callable, Mapping
import functools
import math
import pathlib
import tempfile
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import timing
from deeplax import clocks

# A line of a section's table: "what" it is about, then spreads, numbers or
# texts, in units that their names tell.
Row = dict[str, Any]
NOT_HERE = "not available here"
GIB = 2**30


class Sizes(NamedTuple):
  """How much is measured.

  Attributes:
    side: Of a crop, in pixels.
    batch: Images of a training step on each device.
    rounds: How often each time is taken.
    seconds: That a round lasts at least.
    matrix: Side of the matrices that are multiplied.
    copied: Bytes that are copied.
    maps: Of one shape that an operation works on, one after the other: in turn
      they push each other out of the caches.
    share: Of the channels and of the sides of an operation's maps.
    files: Pictures that are read.
  """

  side: int = 513
  batch: int = 16
  rounds: int = 5
  seconds: float = 0.02
  matrix: int = 8192
  copied: int = GIB
  maps: int = 4
  share: float = 1.0
  files: int = 100


FULL = Sizes()
SMALL = Sizes(
  side=65,
  batch=2,
  rounds=2,
  seconds=0.0,
  matrix=256,
  copied=2**22,
  maps=1,
  share=1 / 16,
  files=8,
)


class Compiled(NamedTuple):
  """A compiled function, and what compiling it took."""

  run: Any
  lower_seconds: float
  compile_seconds: float

  def row(self) -> Row:
    """Return its seconds, and the memory that a call needs on a device."""
    return {
      "lower_seconds": self.lower_seconds,
      "compile_seconds": self.compile_seconds,
      "needs_gib": self._needed(),
    }

  def _needed(self) -> float | str:
    use = self.run.memory_analysis()
    if use is None:
      return NOT_HERE
    # What takes over an argument's memory counts once.
    needed = use.temp_size_in_bytes + use.argument_size_in_bytes
    needed += use.output_size_in_bytes - use.alias_size_in_bytes
    return needed / GIB


class Bench:
  """The machine and the measure of one run.

  Attributes:
    small: Whether tiny networks and maps take the place of the real ones.
    sizes: How much is measured.
    limit: Seconds of a section.
    programs: Training steps that are compiled, by network: `networks.Step`.
  """

  def __init__(self, *, small: bool, limit: float):
    self.small = small
    self.sizes = SMALL if small else FULL
    self.limit = limit
    self.programs: dict[str, Any] = {}
    self._end = math.inf

  def start(self) -> None:
    """Start the clock of a section."""
    self._end = time.monotonic() + self.limit

  @property
  def left(self) -> float:
    """Seconds left to the section; a compilation can't be cut short."""
    return self._end - time.monotonic()

  @property
  def late(self) -> dict[str, str]:
    """The remark of a row that can't be measured any more, or nothing."""
    if self.left > 0:
      return {}
    return {"remark": f"not reached in {self.limit:.0f} s (--limit)"}

  def compiled(self, function: Any, *arguments: Any) -> Compiled:
    """Compile a jitted function for arguments, or for their shapes."""
    # Small networks are compiled once and run a few times.
    options = {"xla_backend_optimization_level": 0} if self.small else None
    clock: dict[str, float] = {}
    with clocks.timed(clock, "lower"):
      lowered = function.lower(*arguments)
    with clocks.timed(clock, "compile"):
      run = lowered.compile(compiler_options=options)
    return Compiled(run, clock["lower"], clock["compile"])

  def times(
    self, runs: Mapping[str, Callable[[], Any]], *, longer: int = 1
  ) -> dict[str, list[float]]:
    """Return the seconds of one call in each round, the runs taking turns.

    Args:
      runs: Each starts its work and returns arrays; compiled before.
      longer: So many times `sizes.seconds` for each round.
    """
    least = longer * self.sizes.seconds
    repeated, calls = {}, {}
    for name, run in runs.items():
      jax.block_until_ready(run())  # warms up
      start = time.perf_counter()
      jax.block_until_ready(run())
      once = time.perf_counter() - start
      calls[name] = min(max(math.ceil(least / once), 1), 1000)
      repeated[name] = functools.partial(_repeat, run, calls[name])
    wall = timing.in_turn(repeated, self.sizes.rounds).wall
    return {
      name: [seconds / calls[name] for seconds in values]
      for name, values in wall.items()
    }

  @functools.cached_property
  def ceilings(self) -> dict[str, dict[str, Any]]:
    """What the device does at best, spreads: "flops" and "bytes" a second."""
    side, copied = self.sizes.matrix, self.sizes.copied
    matrix = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    map_ = jnp.ones(copied // 4, jnp.float32)
    copy = jax.jit(jnp.negative).lower(map_).compile()
    times = self.times(
      {
        "flops": lambda: product(matrix, matrix),
        "bytes": lambda: copy(map_),
      }
    )
    work = {"flops": 2 * side**3, "bytes": 2 * copied}
    return {
      name: timing.spread([work[name] / s for s in values])
      for name, values in times.items()
    }

  def floor(self, *, bytes: float = 0, flops: float = 0) -> dict[str, float]:
    """Return the seconds that such work takes at the ceilings, each alone."""
    return {
      "bytes": bytes / self.ceilings["bytes"]["median"],
      "flops": flops / self.ceilings["flops"]["median"],
    }

  @functools.cached_property
  def pictures(self) -> pathlib.Path:
    """A folder of pictures and masks, which is gone when the process ends."""
    from benchmarks import input_pipelines

    self._folder = tempfile.TemporaryDirectory()
    root = pathlib.Path(self._folder.name)
    made_up = argparse.Namespace(data=None, images=self.sizes.files)
    input_pipelines.write_files(root, made_up)
    return root


def _repeat(run: Callable[[], Any], calls: int) -> None:
  result = None
  for _ in range(calls):
    result = run()
  jax.block_until_ready(result)
