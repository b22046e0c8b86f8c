"""One command for a machine with an accelerator that one has for minutes only.

  python -m benchmarks.accelerator --out accelerator.json
  python -m benchmarks.accelerator --sections=check,xception --out first.json
  python -m benchmarks.accelerator --small

It runs sections in order of worth, and what each has found is written at once,
as JSON and as a table beside it: a run that is cut short has left the rest. A
section that would no longer fit into --minutes is left out, one that fails is
recorded, and the next goes on; then the exit status is 1. Two programs are
never compiled side by side.

A section looks at its limit of --limit seconds between two rows. It can't stop
a compilation, so one of a training step may take longer.

Training steps are those of 16 images of 513x513 on each device, output stride
16, 21 classes, in bfloat16 with float32 parameters and momentum. The floor of a
step is the time that its convolutions' outputs take through memory at the speed
of a copy, or that its products take at the speed of a matrix product, whichever
is longer; both speeds are measured here.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
import os
import pathlib
import time
import traceback
from typing import Any, NamedTuple

import jax

from benchmarks import steps
from benchmarks import timing
from benchmarks.accelerator import bench as bench_lib
from benchmarks.accelerator import checks
from benchmarks.accelerator import networks
from benchmarks.accelerator import operations
from benchmarks.accelerator import peer
from benchmarks.accelerator import pipelines
from benchmarks.accelerator import table
from deeplax import atomic
from deeplax import errors
from deeplax.ops import backend


class Section(NamedTuple):
  """A part of the benchmark.

  Attributes:
    rows: Measures, and yields each row when it is there.
    seconds: What it may take on a fast card, compilation included.
  """

  rows: Callable[[bench_lib.Bench], Iterator[bench_lib.Row]]
  seconds: float = 60


# In order of worth.
SECTIONS = {
  "check": Section(checks.check),
  "check_step": Section(checks.check_step),
  "ceilings": Section(operations.ceilings, 10),
  "xception": Section(partial(networks.train, name="xception"), 75),
  "mobilenet": Section(partial(networks.train, name="mobilenet"), 75),
  "resnet": Section(partial(networks.train, name="resnet"), 75),
  "kernels": Section(networks.kernels, 10),
  "forwards": Section(networks.forwards),
  "operations": Section(operations.operations),
  "torch_mobilenet": Section(partial(peer.torch, name="mobilenet")),
  "evaluation": Section(pipelines.evaluation, 30),
  "crf": Section(pipelines.dense, 20),
  "input": Section(pipelines.inputs, 20),
  "torch_resnet": Section(partial(peer.torch, name="resnet")),
  "torch_xception": Section(partial(peer.torch, name="xception")),
}
PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "flax", "torch")


@errors.command
def main() -> int:
  """Measure, print and write; return 1 if a section failed."""
  args = parse()
  chosen = sections(args.sections)
  forms = steps.forms(args.forms)
  # Else JAX takes most of the device's memory, and PyTorch's step has none.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  if not args.small:
    # A program that is read from disk says nothing about compiling it.
    jax.config.update("jax_enable_compilation_cache", False)
  bench = bench_lib.Bench(small=args.small, limit=args.limit)
  report = {
    "benchmark": "deeplax on an accelerator",
    **timing.origin("accelerator"),
    "machine": timing.machine(
      device=jax.devices()[0].device_kind,
      devices=jax.device_count(),
      load=timing.load(),
    ),
    "versions": timing.versions(*PACKAGES),
    "settings": {
      "small": args.small,
      "minutes": args.minutes,
      "limit": args.limit,
      "forms": forms,
      **bench.sizes._asdict(),
    },
    "sections": {
      name: {"status": "not reached", "rows": []} for name in chosen
    },
  }
  with backend.chosen(**forms):
    run(bench, chosen, report, args)
  print(f"\n{table.markdown(report)}")
  states = [section["status"] for section in report["sections"].values()]
  return 1 if "failed" in states else 0


def parse() -> argparse.Namespace:
  parser = timing.parser(__doc__)
  parser.add_argument(
    "--sections",
    default=",".join(SECTIONS),
    help="those to run, in this order (default: all, %(default)s)",
  )
  parser.add_argument("--minutes", type=float, default=9, help="for all")
  parser.add_argument(
    "--limit", type=float, default=60, help="seconds of a section"
  )
  parser.add_argument(
    "--forms",
    default="",
    help="other forms than the platform's: statistics=one_pass,...",
  )
  parser.add_argument(
    "--small", action="store_true", help="tiny, to see that it runs"
  )
  return timing.parsed(parser, "minutes", "limit")


def sections(text: str) -> dict[str, Section]:
  """Return the sections of a flag."""
  names = text.split(",")
  if unknown := [name for name in names if name not in SECTIONS]:
    raise errors.InputError(
      f"--sections: {', '.join(map(repr, unknown))} not in {list(SECTIONS)}"
    )
  return {name: SECTIONS[name] for name in names}


def run(
  bench: bench_lib.Bench,
  chosen: dict[str, Section],
  report: dict[str, Any],
  args: argparse.Namespace,
) -> None:
  """Run the sections and write after each row what is known."""
  start = time.monotonic()

  def left() -> float:
    return 60 * args.minutes - (time.monotonic() - start)

  def say(text: str) -> None:
    seconds = time.monotonic() - start
    print(f"[{seconds:5.1f} s, {left():4.0f} left] {text}", flush=True)

  for name, section in chosen.items():
    entry = report["sections"][name]
    began = time.monotonic()
    if left() < section.seconds:
      entry["status"] = "skipped"
      entry["reason"] = (
        f"it may take {section.seconds:.0f} s, and {left():.0f} s of "
        f"--minutes={args.minutes:g} were left"
      )
      say(f"{name} skipped: {entry['reason']}")
      continue
    say(name)
    entry["status"] = "running"
    write(report, args.out)
    bench.start()
    try:
      for row in section.rows(bench):
        entry["rows"].append(row)
        say(f"  {table.line(row)}")
        write(report, args.out)
      entry["status"] = "done"
    except Exception as error:  # the next section is to go on
      traceback.print_exc()
      entry["status"] = "failed"
      entry["reason"] = f"{type(error).__name__}: {str(error)[:500]}"
    entry["seconds"] = time.monotonic() - began
    write(report, args.out)


def write(report: dict[str, Any], out: str | None) -> None:
  """Write the report and its table, if there is a file for them."""
  if out:
    timing.write(report, out)
    table_file = pathlib.Path(out).with_suffix(".md")
    atomic.write_text(table_file, table.markdown(report))


if __name__ == "__main__":
  main()
