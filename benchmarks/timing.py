"""Parts of all benchmarks: interleaved runs, their spread, the machine.

Runs take turns, so that a busy moment of the machine hits all of them. Times
are medians with their least and most, of the wall clock and of the CPU seconds
of all threads, which count on a machine that has other work as well.
"""

import argparse
from collections.abc import Callable, Mapping
import contextlib
from importlib import metadata
import os
import pathlib
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

from deeplax import atomic


class Seconds(NamedTuple):
  """Seconds of each run in every round: {name: [first round, ...]}."""

  wall: dict[str, list[float]]
  cpu: dict[str, list[float]]


def in_turn(
  runs: Mapping[str, Callable[[], Any]],
  rounds: int,
  *,
  units: int = 1,
  after: Callable[[int, Seconds], None] = lambda done, seconds: None,
) -> Seconds:
  """Time the runs in turn.

  Args:
    runs: Each must have finished its work when it returns.
    rounds: How often each of them runs.
    units: Images of a run; seconds are those of one.
    after: Called after each round with the number of rounds that are done.
  """
  seconds = Seconds({name: [] for name in runs}, {name: [] for name in runs})
  for done in range(1, rounds + 1):
    for name, run in runs.items():
      start, cpu_start = time.perf_counter(), time.process_time()
      run()
      seconds.wall[name].append((time.perf_counter() - start) / units)
      seconds.cpu[name].append((time.process_time() - cpu_start) / units)
    after(done, seconds)
  return seconds


def spread(values: list[float]) -> dict[str, Any]:
  """Return the median of the rounds, the least, the most and all of them."""
  return {
    "median": statistics.median(values),
    "min": min(values),
    "max": max(values),
    "all": values,
  }


def spreads(values: Mapping[str, list[float]]) -> dict[str, dict[str, Any]]:
  """Return the spread of each run."""
  return {name: spread(rounds) for name, rounds in values.items()}


def medians(values: Mapping[str, list[float]]) -> dict[str, float]:
  """Return the median of each run."""
  return {name: statistics.median(rounds) for name, rounds in values.items()}


def ratio(above: list[float], below: list[float]) -> dict[str, Any]:
  """Return the spread of the ratio of two runs, taken round by round."""
  return spread([a / b for a, b in zip(above, below, strict=True)])


def line(
  name: str, wall: Mapping[str, Any], cpu: Mapping[str, Any], width: int
) -> str:
  """Return the spreads of a run's seconds as text."""
  texts = [
    f"{s['median']:.3f} s ({s['min']:.3f} to {s['max']:.3f})"
    for s in (wall, cpu)
  ]
  return f"{name:{width}s} {texts[0]}, CPU {texts[1]}"


def use_cores(count: int) -> None:
  """Keep this process, and those it starts, on so many cores.

  JAX has no setting for its threads; it takes the cores that it may use.
  """
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def load() -> float:
  """Return the machine's load average over a minute."""
  return os.getloadavg()[0]


def machine(**fields: Any) -> dict[str, Any]:
  """Return the machine's CPU and cores, and `fields`: its load, its device."""
  return {"cpu": _cpu(), "cores": os.cpu_count(), **fields}


def _cpu() -> str:
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    for row in info.read_text().splitlines():
      if row.startswith("model name"):
        return row.split(":", 1)[1].strip()
  return platform.processor() or platform.machine()


def machine_line(
  machine: Mapping[str, Any],
  used: int,
  load: str,
  versions: Mapping[str, str],
) -> str:
  """Return the machine, the cores used and the versions as text."""
  numbers = ", ".join(f"{name} {version}" for name, version in versions.items())
  return (
    f"{machine['cpu']}, {machine['cores']} cores, {used} used, load {load}; "
    f"{numbers}"
  )


def versions(*packages: str) -> dict[str, str]:
  """Return the versions of Python and of the packages that are installed."""
  found = {"python": platform.python_version()}
  for name in packages:
    with contextlib.suppress(metadata.PackageNotFoundError):
      found[name] = metadata.version(name)
  return found


def memory(field: str = "VmHWM") -> float:
  """Return memory of this process in MB, by default the most it has held.

  Args:
    field: Of /proc/self/status; "VmRSS" is what the process holds now. Where
      there is no such file it is the most in any case.
  """
  status = pathlib.Path("/proc/self/status")
  if status.exists():
    # Not of getrusage: there Linux counts the process that started this one.
    size = re.search(rf"{field}:\s*(\d+) kB", status.read_text())
    assert size
    return int(size[1]) / 1e3
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def origin(module: str) -> dict[str, str | None]:
  """Return the command and the commit, marked if files differ from it.

  Args:
    module: The benchmark's name in this folder.
  """
  commit = None
  with contextlib.suppress(OSError):  # no git here
    described = subprocess.run(
      ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
      cwd=pathlib.Path(__file__).parent,
      capture_output=True,
      text=True,
    )
    commit = described.stdout.strip() or None
  command = " ".join([f"python -m benchmarks.{module}", *sys.argv[1:]])
  return {"command": command, "commit": commit}


def parser(description: str | None) -> argparse.ArgumentParser:
  """Return a command line with --out, described as it is written."""
  parser = argparse.ArgumentParser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--out", help="JSON file to write")
  return parser


def parsed(
  parser: argparse.ArgumentParser, *positive: str
) -> argparse.Namespace:
  """Return the flags; those named `positive` must be 1 or more."""
  args = parser.parse_args()
  for name in positive:
    if getattr(args, name) < 1:
      parser.error(f"--{name} must be 1 or more")
  return args


def write(report: Mapping[str, Any], out: str | None) -> None:
  """Write the report to the file of --out, whole or not at all."""
  if out:
    atomic.write_json(out, report)
