"""Compile the training step for a TPU that is not there; print its profile.

  pip install -e ".[aot]"
  python -m benchmarks.aot --config=v3plus_mobilenet_v2 --out aot.json
  python -m benchmarks.aot --topology=v5e:2x2 --config=v3plus_xception \
    --config=v3plus_resnet101 --separable
  python -m benchmarks.aot --config=v3plus_mobilenet_v2 --forms \
    --forms=resize=gathers --forms=resize=gathers,statistics=two_passes
  python -m benchmarks.aot --topology=v5e:16x16 --config=v3plus_xception \
    --group=16 --programs=runs/programs

libtpu holds the TPU's compiler and runs on any Linux machine of x86. The step
is the one that deeplax.main runs, in bfloat16, in the forms that
deeplax/ops/backend.py has for a TPU; each --forms changes some, or none.

Cycles are the compiler's own estimate, nothing is measured: good for comparing
forms and layers, not for promises. Milliseconds and images a second are those
cycles at the chip's clock. Compiling takes 2 to 15 minutes for each; --programs
keeps the programs, so that the next call reads them, whatever has changed since
(their rows name the commit).

For v5e it also tells what the chips exchange, and how long a step may wait for
that (benchmarks/exchanges.py).
"""

import argparse
from collections.abc import Iterator, Mapping
import contextlib
import gzip
import importlib.util
import itertools
import json
import os
import pathlib
import re
import threading
import time
from typing import Any, NamedTuple

# Before JAX is imported: there is no TPU to ask for, and other programs may
# use the library as well.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from benchmarks import exchanges
from benchmarks import steps
from benchmarks import timing
from benchmarks import tpu_program
from deeplax import atomic
from deeplax import clocks
from deeplax import errors
from deeplax import parallel
from deeplax.ops import backend

# Clock in GHz of each generation: its bf16 peak over the multiply-adds of all
# matrix units in a cycle. v4 and v5p as Google publishes them.
CLOCKS = {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75}
TICK = 20.0  # seconds between the lines of a compilation
LAYERS = 24  # layers in a printed profile


class Case(NamedTuple):
  """One compilation: a configuration with some forms in place of the TPU's.

  Attributes:
    config: As of --config.
    forms: Of each operation, as of --forms.
    group: model.batch_norm.group.
  """

  config: str
  forms: dict[str, str]
  group: str = "all"

  @property
  def title(self) -> str:
    """The configuration, and what was chosen for it."""
    chosen = [f"{name}={form}" for name, form in self.forms.items()]
    if self.group != "all":
      chosen.append(f"group={self.group}")
    return " ".join([self.config, *chosen])


@errors.command
def main() -> None:
  """Compile, print and write."""
  args = parse()
  mesh = parallel.mesh(devices(args.topology))
  cases = [
    Case(*chosen)
    for chosen in itertools.product(args.config, args.forms, args.group)
  ]
  report: dict[str, Any] = {
    "benchmark": f"training step compiled for {args.topology}, bfloat16, "
    f"{args.images} images of {args.size}x{args.size} a chip; estimated",
    **timing.origin("aot"),
    "machine": timing.machine(
      chips=mesh.size, chip=mesh.devices[0].device_kind
    ),
    "versions": timing.versions("jax", "libtpu"),
    "settings": {
      "separable": args.separable,
      "remat": args.remat,
      "clock_ghz": clock(args.topology),
    },
    "programs": [],
  }
  print(f"{report['benchmark']}\n{report['versions']}", flush=True)
  for case in cases:
    row = profile(case, args, mesh)
    show(row)
    report["programs"].append(row)
    # Each at once: the next takes minutes, and may fail.
    timing.write(report, args.out)


def parse() -> argparse.Namespace:
  parser = timing.parser(__doc__)
  add = parser.add_argument
  add("--topology", default="v5e:2x2", help="v5e:2x2, v5e:16x16, v4:4x4x4, ...")
  add("--config", action="append", help="name or file; repeat for several")
  add("--images", type=int, default=8, help="of each chip")
  add("--size", type=int, default=513, help="side of a crop in pixels")
  add("--separable", action="store_true", help="separable head and decoder")
  add("--remat", action="store_true", help="with model.remat, for less memory")
  add("--group", action="append", help="model.batch_norm.group; repeat as well")
  add(
    "--programs",
    metavar="FOLDER",
    help="keep each program there, and compile none that is there",
  )
  add(
    "--forms",
    action="append",
    nargs="?",
    const="",
    metavar="OPERATION=FORM,...",
    help="forms in place of the TPU's; repeat to compare",
  )
  args = timing.parsed(parser, "images", "size")
  args.config = args.config or ["v3plus_mobilenet_v2"]
  args.forms = [steps.forms(text) for text in args.forms or [""]]
  args.group = args.group or ["all"]
  return args


def devices(topology: str) -> Any:
  """Return the chips of a topology that is not there.

  Raises:
    InputError: libtpu is missing, or does not know the topology.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise errors.InputError(
      "libtpu, which compiles for TPUs, is not installed (Linux on x86 only): "
      'pip install -e ".[aot]"'
    )
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=topology
    ).devices
  except Exception as error:  # whatever the library finds wrong
    raise errors.InputError(
      f"--topology {topology}: {str(error).splitlines()[0]}. libtpu knows "
      "v5e:2x2, v5e:16x16, v6e:16x16, v4:4x4x4, v5p:8x8x16 and the like"
    ) from error
  return found


def clock(topology: str) -> float | None:
  """Return the chip's clock in GHz, None if it is not known."""
  return CLOCKS.get(topology.partition(":")[0])


def profile(
  case: Case, args: argparse.Namespace, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
  """Return what the compiler says of one case, which it compiles if need be."""
  compiled, text = kept(case, args, mesh)
  program = tpu_program.Program(text)
  cycles = program.cycles()
  row = {
    **compiled,
    "collectives": program.collectives(),
    "mega_cycles": cycles / 1e6,
    "unknown_loops": program.unknown_loops,
    "by_kind": in_millions(program.by_kind()),
    "by_layer": in_millions(program.by_layer()),
  }
  if ghz := clock(args.topology):
    row["ms"] = cycles / ghz / 1e6
    row["images_a_second_a_chip"] = args.images / (row["ms"] / 1e3)
  if args.topology.startswith("v5e:"):  # the links of others are not written
    places = [chip.coords for chip in mesh.devices.flat]
    row["exchanges"] = exchanges.estimate(
      program, places, clock=CLOCKS["v5e"], images=args.images
    )
  return row


def kept(
  case: Case, args: argparse.Namespace, mesh: jax.sharding.Mesh
) -> tuple[dict[str, Any], str]:
  """Return a case's figures and program, from --programs if they are there."""
  if not args.programs:
    return compile_case(case, args, mesh)
  about = f"{args.topology} {case.title} {args.images}x{args.size}"
  about += args.separable * " separable"
  name = re.sub(r"[^\w.=-]+", "_", about + args.remat * " remat")
  file = pathlib.Path(args.programs) / f"{name}.json.gz"
  if file.exists():
    row, text = json.loads(gzip.decompress(file.read_bytes()))
  else:
    row, text = compile_case(case, args, mesh)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic.writing(file) as written:
      written.write(gzip.compress(json.dumps([row, text]).encode()))
  return row, text


def compile_case(
  case: Case, args: argparse.Namespace, mesh: jax.sharding.Mesh
) -> tuple[dict[str, Any], str]:
  """Compile a case; return its figures and the text of its program."""
  config = steps.config(case.config, separable=args.separable, remat=args.remat)
  config.model.batch_norm.group = case.group
  seconds: dict[str, float] = {}
  with clocks.timed(seconds, "lower"):
    with backend.target("tpu"), backend.chosen(**case.forms):
      lowered = steps.step(config, mesh).lower(
        steps.abstract_state(config, mesh),
        steps.abstract_batch(mesh, images=args.images, size=args.size),
      )
  with ticking(f"{case.title}: compiling"), clocks.timed(seconds, "compile"):
    compiled = compile_anew(lowered)
  memory, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
  row = {
    "commit": timing.origin("aot")["commit"],
    "config": case.config,
    "forms": case.forms,
    "group": case.group,
    "seconds": seconds,
    "gb": {
      "arguments": memory.argument_size_in_bytes / 1e9,
      "temporaries": memory.temp_size_in_bytes / 1e9,
      "traffic": costs.get("bytes accessed", 0) / 1e9,
    },
  }
  return row, compiled.as_text()


def compile_anew(lowered: Any) -> Any:
  """Compile without JAX's cache: what it keeps only a TPU could read back."""
  settings: Any = jax.config
  used = settings.jax_enable_compilation_cache
  settings.update("jax_enable_compilation_cache", False)
  compilation_cache.reset_cache()  # else the setting is not looked at again
  try:
    return lowered.compile()
  finally:
    settings.update("jax_enable_compilation_cache", used)
    compilation_cache.reset_cache()


def in_millions(cycles: Mapping[str, int]) -> dict[str, float]:
  """Return millions of cycles, the most first."""
  rows = sorted(cycles.items(), key=lambda row: -row[1])
  return {name: round(value / 1e6, 3) for name, value in rows}


@contextlib.contextmanager
def ticking(title: str) -> Iterator[None]:
  """Print now and then how long what is inside has taken."""
  done, start = threading.Event(), time.perf_counter()

  def tick() -> None:
    while not done.wait(TICK):
      elapsed = clocks.duration(time.perf_counter() - start)
      print(f"{title}, {elapsed}", flush=True)

  thread = threading.Thread(target=tick, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def show(row: Mapping[str, Any]) -> None:
  """Print the profile of one program."""
  title = Case(row["config"], row["forms"], row["group"]).title
  seconds, gb = row["seconds"], row["gb"]
  print(
    f"\n{title}\ncompiled in {clocks.duration(seconds['compile'])}, lowered in "
    f"{clocks.duration(seconds['lower'])}\na chip: {gb['arguments']:.2f} GB "
    f"of arguments, {gb['temporaries']:.2f} GB of temporaries, "
    f"{gb['traffic']:.1f} GB of traffic"
  )
  for name, one in row["collectives"].items():
    print(f"{one['count']} {name}, {one['bytes'] / 1e6:.1f} MB")
  line = f"{row['mega_cycles']:.1f} million cycles"
  if "ms" in row:
    line += (
      f": {row['ms']:.1f} ms, {row['images_a_second_a_chip']:.0f} images/s a "
      "chip, estimated"
    )
  print(line)
  if "exchanges" in row:
    print("\n".join(exchanges.lines(row["exchanges"])))
  if row["unknown_loops"]:
    print(f"{row['unknown_loops']} loops of unknown length count once")
  for what in ("by_kind", "by_layer"):
    print(f"\n{what.replace('_', ' ')}, million cycles")
    for name, value in list(row[what].items())[:LAYERS]:
      print(f"  {value:7.2f}  {value / row['mega_cycles']:4.0%}  {name}")


if __name__ == "__main__":
  main()
