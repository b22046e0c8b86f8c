"""How long the first commands take: cold, and at a second start.

  python -m benchmarks.start_times --out benchmarks/results/start_times.json
  python -m benchmarks.start_times --config=quickstart:debug --experiment=

Each command is a process of its own, on made-up pictures, in a folder that is
new: `deeplax.main`, the same once more in another workdir with the programs of
the first, `deeplax.evaluate` and `deeplax.predict` of one picture, twice each,
and an experiment. Reported are the wall clock, the CPU seconds of the process
and its children, which say more on a machine with other work, and how many
programs the command asked for and compiled because no cache had them. An
experiment's are its trainings', which are processes too and are not counted.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import timing
from deeplax import errors
from deeplax.workdir import layout

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The command, and the count of what it compiled in its last line.
COUNTED = """
import atexit, collections, json, runpy, sys
import jax
counts = collections.Counter()
def count(event, **_):
  counts[event] += 1
jax.monitoring.register_event_listener(count)
def told():
  asked = counts["/jax/compilation_cache/compile_requests_use_cache"]
  missed = asked - counts["/jax/compilation_cache/cache_hits"]
  print(json.dumps({"programs": asked, "compiled": missed}), file=sys.stderr)
atexit.register(told)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def timed(
  module: str, *arguments: str, cache: pathlib.Path | None = None
) -> dict[str, Any]:
  """Return a command's seconds, and how many programs it compiled.

  Args:
    module: Run as `python -m module`.
    *arguments: Of the command.
    cache: Where compiled programs are kept; None: in the workdir.

  Raises:
    InputError: The command failed.
  """
  environment = {
    key: value
    for key, value in os.environ.items()
    if "COMPILATION_CACHE" not in key and "PERSISTENT_CACHE" not in key
  }
  if cache:
    environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
  start, before = time.perf_counter(), os.times()
  done = subprocess.run(
    [sys.executable, "-c", COUNTED, module, *arguments],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  wall, after = time.perf_counter() - start, os.times()
  if done.returncode:
    raise errors.InputError(f"{module} failed:\n{done.stderr[-2000:]}")
  cpu = sum(after[2:4]) - sum(before[2:4])  # of the children
  counts = json.loads(done.stderr.splitlines()[-1])
  return {"wall": round(wall, 1), "cpu": round(cpu, 1), **counts}


def measured(config: str, experiment: str, folder: pathlib.Path) -> Any:
  """Yield (name, times) of each command, in the order a user gives them."""
  run, again = folder / "run", folder / "again"
  yield "main", timed("deeplax.main", f"--config={config}", f"--workdir={run}")
  yield (
    "main, second start",
    timed(
      *("deeplax.main", f"--config={config}", f"--workdir={again}"),
      cache=run / "compiled",
    ),
  )
  picture = next((run / layout.PICTURES).glob("*.png"))
  for name, *wanted in (
    ("evaluate",),
    ("predict", f"--out={folder / 'out'}", str(picture)),
  ):
    for start in ("", ", second start"):
      command = f"deeplax.{name}", f"--workdir={run}", *wanted
      yield name + start, timed(*command)
  if experiment:
    times = timed("experiments.run", experiment, f"--out={folder / 'results'}")
    yield f"experiment {experiment}", {k: times[k] for k in ("wall", "cpu")}


def parser() -> argparse.ArgumentParser:
  """Return the command line."""
  parser = timing.parser(__doc__)
  parser.add_argument(
    "--config",
    default="v3plus_xception:debug",
    help="what is trained (default: v3plus_xception:debug)",
  )
  parser.add_argument(
    "--experiment",
    default="v3plus_table1:debug",
    metavar="NAME",
    help="in experiments/ (default: v3plus_table1:debug); empty: none",
  )
  return parser


@errors.command
def main(argv: Sequence[str] | None = None) -> None:
  args = parser().parse_args(argv)
  before, commands = timing.load(), {}
  with tempfile.TemporaryDirectory() as folder:
    for name, times in measured(
      args.config, args.experiment, pathlib.Path(folder)
    ):
      commands[name] = times
      counts = ""
      if "compiled" in times:
        counts = f", compiled {times['compiled']} of {times['programs']}"
      print(
        f"{name:32} {times['wall']:6.1f} s, CPU {times['cpu']:6.1f} s{counts}",
        flush=True,
      )
  report = {
    **timing.origin("start_times"),
    "config": args.config,
    "machine": timing.machine(load=[before, timing.load()]),
    "versions": timing.versions("jax", "jaxlib"),
    "commands": commands,
  }
  timing.write(report, args.out)


if __name__ == "__main__":
  main()
