"""What model.remat costs and saves: memory, and time on a CPU.

  python -m benchmarks.remat --config=v3plus_mobilenet_v2 --out remat.json
  python -m benchmarks.remat --rounds=0     # only traces: nothing is compiled

For a GPU and a TPU, neither of them here, it counts what the traced forward
pass keeps for the backward pass, in bfloat16: arguments apart, each array once.
A compiler may keep less, or compute more anew by itself; what the TPU's says of
memory and time is in `python -m benchmarks.aot --remat`. On this machine's CPU
the training step runs in float32 with and without remat in turn, and the memory
of its temporary arrays is the compiler's figure.
"""

import argparse
from collections.abc import Mapping
import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import ml_collections

from benchmarks import steps
from benchmarks import timing
from deeplax import clocks
from deeplax import errors
from deeplax import parallel
from deeplax.models import build
from deeplax.models import cost
from deeplax.ops import backend
from deeplax.training import losses

PLATFORMS = ("gpu", "tpu")
WAYS = {"kept": False, "remat": True}


@errors.command
def main() -> None:
  """Measure, print and write."""
  args = parse()
  report: dict[str, Any] = {
    "benchmark": "model.remat: arrays kept for the backward pass of "
    f"{args.images} images of {args.size}x{args.size} in bfloat16, as traced; "
    f"CPU: step of {args.cpu_images} of {args.cpu_size}x{args.cpu_size}, "
    "float32",
    **timing.origin("remat"),
    "machine": timing.machine(load=timing.load()),
    "versions": timing.versions("jax", "jaxlib", "flax"),
    "settings": {
      key: getattr(args, key)
      for key in ("images", "size", "cpu_images", "cpu_size", "separable")
    },
    "networks": [],
  }
  print(f"{report['benchmark']}\n{report['machine']}", flush=True)
  for name in args.config:
    row: dict[str, Any] = {"config": name, "kept_gb": kept_of(name, args)}
    if args.rounds:
      row["cpu"] = cpu(name, args)
    show(row)
    report["networks"].append(row)
    timing.write(report, args.out)


def parse() -> argparse.Namespace:
  parser = timing.parser(__doc__)
  add = parser.add_argument
  add("--config", action="append", help="name or file; repeat for several")
  add("--separable", action="store_true", help="separable head and decoder")
  add("--images", type=int, default=8, help="of a GPU's or TPU's batch")
  add("--size", type=int, default=513, help="side of its crops in pixels")
  add("--cpu_images", type=int, default=2, help="of the CPU's batch")
  add("--cpu_size", type=int, default=257, help="side of its crops")
  add("--rounds", type=int, default=7, help="timed steps of each; 0: none")
  args = timing.parsed(parser, "images", "size", "cpu_images", "cpu_size")
  args.config = args.config or ["v3plus_mobilenet_v2", "v3plus_xception"]
  return args


def kept_of(name: str, args: argparse.Namespace) -> dict[str, dict[str, float]]:
  """Return GB kept for the backward pass, {platform: {way: GB}}."""
  found = {}
  for platform in PLATFORMS:
    found[platform] = {}
    for way, remat in WAYS.items():
      config = steps.config(name, separable=args.separable, remat=remat)
      with backend.target(platform):
        size = kept_by_network(config, args.images, args.size)
      found[platform][way] = size / 1e9
  return found


def kept_by_network(
  config: ml_collections.ConfigDict, images: int, size: int
) -> int:
  """Return bytes kept for the gradients of a network's training loss."""
  model: Any = build.from_config(config.model, num_classes=steps.CLASSES)
  variables, _ = cost.trace(model, cost.TRACE_SIZE)

  def loss(params, batch_stats, image, label):
    logits, _ = model.apply(
      {"params": params, "batch_stats": batch_stats},
      image,
      train=True,
      method="coarse",
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(0)},
    )
    settings = losses.PLAIN._replace(align_corners=model.align_corners)
    step = jnp.int32(0)
    return losses.of_batch(logits, None, label, settings, step=step)[0]

  shape = (images, size, size)
  return kept(
    loss,
    variables["params"],
    variables["batch_stats"],
    jax.ShapeDtypeStruct((*shape, 3), jnp.uint8),
    jax.ShapeDtypeStruct(shape, jnp.int32),
  )


def kept(function: Any, first: Any, *others: Any) -> int:
  """Return bytes kept for the gradient of a function by its first argument.

  Arguments and constants are there anyway; they do not count.
  """

  def forward(first, *others):
    return jax.vjp(lambda x: function(x, *others), first)[1]

  program = jax.make_jaxpr(forward)(first, *others).jaxpr
  there = {id(v) for v in (*program.invars, *program.constvars)}
  arrays = {
    id(v): v.aval
    for v in program.outvars
    if not hasattr(v, "val") and id(v) not in there  # nor a literal
  }
  return sum(a.size * a.dtype.itemsize for a in arrays.values())


def cpu(name: str, args: argparse.Namespace) -> dict[str, Any]:
  """Compile the step both ways and run them in turn on one CPU device."""
  mesh = parallel.mesh(jax.devices("cpu")[:1])
  runs, temporaries, operations, seconds = {}, {}, {}, {}
  for way, remat in WAYS.items():
    config = steps.config(
      name, separable=args.separable, remat=remat, dtype="float32"
    )
    state = steps.state(config, mesh)
    batch = steps.batch(mesh, images=args.cpu_images, size=args.cpu_size)
    with clocks.timed(seconds, way):
      step = steps.step(config, mesh).lower(state, batch).compile()
    temporaries[way] = step.memory_analysis().temp_size_in_bytes / 1e9
    # What of the second pass is left: the compiler merges equal operations.
    costs = step.cost_analysis() or {}
    operations[way] = costs.get("flops", 0) / 1e9
    runs[way] = _runner(step, state, batch)
    runs[way]()  # the first run is slower
  times = timing.in_turn(runs, args.rounds)
  return {
    "load": timing.load(),
    "compile_seconds": seconds,
    "temporaries_gb": temporaries,
    "giga_operations": operations,
    "seconds": timing.spreads(times.wall),
    "cpu_seconds": timing.spreads(times.cpu),
    "ratio": timing.ratio(times.wall["remat"], times.wall["kept"]),
    "cpu_ratio": timing.ratio(times.cpu["remat"], times.cpu["kept"]),
  }


def _runner(step: Any, state: Any, batch: Any) -> Any:
  """Return a call that takes one training step, and waits for it."""
  held = [state]

  def run() -> None:
    held[0], metrics = step(held[0], batch)
    jax.block_until_ready((held[0], metrics))

  return run


def show(row: Mapping[str, Any]) -> None:
  """Print one network."""
  print(f"\n{row['config']}")
  for platform, gb in row["kept_gb"].items():
    print(
      f"  {platform}: {gb['kept']:.2f} GB for the backward pass, "
      f"{gb['remat']:.2f} with remat"
    )
  if cpu := row.get("cpu"):
    gb, ratio = cpu["temporaries_gb"], cpu["ratio"]
    for way in WAYS:
      spreads = cpu["seconds"][way], cpu["cpu_seconds"][way]
      print(
        f"  CPU: {timing.line(way, *spreads, 6)}, {gb[way]:.2f} GB, "
        f"{cpu['giga_operations'][way]:.1f} GFLOP"
      )
    print(
      f"  remat takes {ratio['median']:.2f} times as long "
      f"({ratio['min']:.2f} to {ratio['max']:.2f}), load {cpu['load']:.1f}",
      flush=True,
    )


if __name__ == "__main__":
  main()
