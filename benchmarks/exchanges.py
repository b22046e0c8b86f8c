"""What the chips of a compiled program exchange, and an estimate of its time.

The program's text tells which sums over chips it has, what each waits for and
what runs beside it; the time is that of a torus whose links do as published:

  seconds = 2 * (bytes * (n - 1) / n / (LINK * links) + hop * hops)

for a sum over n chips: its parts go once around each ring to be added up, and
once more to be handed out. On v5e a side of 16 chips is a ring: both of a
chip's links along it carry half, and the farthest chip is 8 hops away; a
shorter side is a line with one link to go by and a chip fewer of hops than it
has. `links` and `hops` are summed over the sides.

LINK and the first of HOPS are the typical values of JAX's "How To Scale Your
Model" (jax-ml.github.io/scaling-book/sharding), whose profile of a small gather
over 4 chips took 8 microseconds for its 3 hops: hence the second. Google's own
200 GB/s a chip, 51.2 TB/s of all-reduce a pod (cloud.google.com/tpu/docs/v5e),
is 11% more than four times LINK. What a sum waits for the slowest chip is not
in the estimate.
"""

from collections.abc import Mapping, Sequence
import math
import statistics
from typing import Any, NamedTuple

from benchmarks import tpu_program

LINK = 4.5e10  # bytes a second of a link of v5e, one way
HOPS = (1e-6, 2.7e-6)  # seconds of a hop, however little it carries
RING = 16  # the side of a torus of v5e that is closed
# How often the whole array passes through a chip's links.
PASSES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1}


class Exchange(NamedTuple):
  """An exchange between chips.

  Attributes:
    operation: all-reduce or the like.
    purpose: norms forward, norms backward, or gradients, with what joined them.
    size: Its bytes.
    chips: Those that take part, as numbers in the mesh; (): all.
    times: How often it runs in a step.
    beside: Estimated cycles of arithmetic between its start and its end, each
      time; 0 where everything else waits.
    algorithm: The compiler's name of it, or "".
  """

  operation: str
  purpose: str
  size: int
  chips: tuple[int, ...]
  times: int
  beside: int
  algorithm: str


def of_program(program: tpu_program.Program) -> list[Exchange]:
  """Return the exchanges of a program in the order in which they start."""
  found = []
  schedule = program.schedule
  for place, (one, times) in enumerate(schedule):
    operation = one.operation.removesuffix("-start")
    if operation not in tpu_program.COLLECTIVES:
      continue
    beside = 0
    if one.operation.endswith("-start"):
      for later, _ in schedule[place + 1 :]:
        if later.operation.endswith("-done") and one.name in later.operands:
          break
        beside += later.cycles
    found.append(
      Exchange(
        operation,
        purpose(one.path),
        one.size,
        one.chips,
        times,
        beside,
        one.algorithm,
      )  # fmt: skip
    )
  return found


def purpose(path: str) -> str:
  """Return what an exchange is for, by where it was traced."""
  if "statistics" not in path.split("/"):
    return "gradients"
  return "norms backward" if "transpose(" in path else "norms forward"


def sides(chips: Sequence[int], places: Sequence[Sequence[int]]) -> list[int]:
  """Return the sides of the part of a torus that chips span.

  Args:
    chips: Numbers in the mesh; (): all.
    places: Coordinates of each chip of the mesh.
  """
  spanned = [places[chip] for chip in chips] if chips else places
  return [max(axis) - min(axis) + 1 for axis in zip(*spanned, strict=True)]


def seconds(
  operation: str, size: int, sides: Sequence[int], hop: float
) -> float:
  """Return the estimated time of one exchange, as above.

  Args:
    operation: A key of PASSES.
    size: Bytes of the array that is whole on every chip.
    sides: Of the part of a torus.
    hop: Seconds of a hop.
  """
  chips = math.prod(sides)
  rings = [side == RING for side in sides if side > 1]
  lines = [side for side in sides if 1 < side != RING]
  links = 2 * sum(rings) + len(lines)
  hops = sum(rings) * RING // 2 + sum(side - 1 for side in lines)
  if not links:
    return 0.0
  carried = size * (chips - 1) / chips / (LINK * links)
  return PASSES[operation] * (carried + hop * hops)


def estimate(
  program: tpu_program.Program,
  places: Sequence[Sequence[int]],
  *,
  clock: float,
  images: int,
) -> dict[str, Any]:
  """Return a report of a program's exchanges, with times for each of HOPS.

  Args:
    places: Coordinates of each chip of the mesh.
    clock: Of a chip in GHz.
    images: Of a chip in a step.
  """
  exchanges = of_program(program)
  step = program.cycles() / clock / 1e9
  rows: dict[str, dict[str, Any]] = {}
  waits = [0.0] * len(HOPS)
  for one in exchanges:
    row = rows.setdefault(
      one.purpose, {"count": 0, "bytes": 0, "ms": [0.0] * len(HOPS)}
    )
    row["count"] += one.times
    row["bytes"] += one.times * one.size
    for place, hop in enumerate(HOPS):
      time = seconds(one.operation, one.size, sides(one.chips, places), hop)
      row["ms"][place] += one.times * time * 1e3
      beside = one.beside / clock / 1e9
      waits[place] += one.times * max(time - beside, 0)
  return {
    "purposes": rows,
    "asynchronous": sum(one.times for one in exchanges if one.beside),
    "mega_cycles_beside": sum(o.times * o.beside for o in exchanges) / 1e6,
    "chain": program.chain(),
    "median_kilo_cycles_apart": statistics.median(apart(program)) / 1e3,
    "algorithms": counted(exchanges),
    "hop_us": [hop * 1e6 for hop in HOPS],
    "wait_ms": [wait * 1e3 for wait in waits],
    "share": [wait / (step + wait) for wait in waits],
    "images_a_second": [images * len(places) / (step + w) for w in waits],
  }


def apart(program: tpu_program.Program) -> list[int]:
  """Return the estimated cycles of arithmetic before each exchange.

  One in a loop counts once.
  """
  found, cycles = [], 0
  for one, _ in program.schedule:
    if one.operation.removesuffix("-start") in tpu_program.COLLECTIVES:
      found.append(cycles)
      cycles = 0
    cycles += one.cycles
  return found


def counted(exchanges: Sequence[Exchange]) -> dict[str, int]:
  """Return how often each algorithm of the compiler's runs in a step."""
  found: dict[str, int] = {}
  for one in exchanges:
    found[one.algorithm] = found.get(one.algorithm, 0) + one.times
  return found


def lines(report: Mapping[str, Any]) -> list[str]:
  """Return a report of `estimate` as text."""
  found = []
  for name, row in report["purposes"].items():
    found.append(
      f"{name}: {row['count']}, {row['bytes'] / 1e6:.2f} MB, "
      f"{between(row['ms'])} ms"
    )
  hops = between(report["hop_us"])
  return [
    *found,
    f"{report['chain']} wait for each other, "
    f"{report['median_kilo_cycles_apart']:.0f} thousand cycles apart (median); "
    f"beside {report['asynchronous']} of them "
    f"{report['mega_cycles_beside']:.1f} million cycles of arithmetic run",
    f"at {hops} microseconds a hop: {between(report['wait_ms'])} ms of waiting,"
    f" {between(report['share'], '.0%')} of a step, "
    f"{between(report['images_a_second'], ',.0f')} images/s of all chips; an "
    "estimate",
  ]


def between(values: Sequence[float], form: str = ".1f") -> str:
  """Return "least to most" of values as text."""
  texts = [format(value, form) for value in sorted(values)]
  return " to ".join(dict.fromkeys(texts))
