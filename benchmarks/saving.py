"""How long training stands still for a checkpoint.

  python -m benchmarks.saving --network=v3plus_mobilenet_v2 --steps=8

Two ways take turns, each with one checkpoint and the steps after it:

  waited for  the checkpoint is waited for until it is sealed, then steps
  background  as `deeplax train` does: steps while it is written and sealed

"still" are the seconds in which no step can be taken, "round" those of all
together, the wait for the seal at the end included.
"""

import collections
import json
import tempfile
import time
from typing import Any

import jax

from benchmarks import steps as steps_lib
from benchmarks import timing
from deeplax import errors
from deeplax import parallel
from deeplax.workdir import saves

WAYS = ("waited for", "background")


def measure(args: Any, folder: str) -> dict[str, Any]:
  """Return the spreads of each way's seconds, and the state's MB."""
  config, mesh = steps_lib.config(args.network), parallel.mesh()
  step = steps_lib.step(config, mesh)
  state = steps_lib.state(config, mesh)
  batch = steps_lib.batch(mesh, images=args.images, size=args.size)
  seconds = collections.defaultdict(list)
  size = sum(x.nbytes for x in jax.tree.leaves(state)) / 1e6
  state, _ = jax.block_until_ready(step(state, batch))  # compiled
  number = 0
  with saves.Checkpoints(folder, keep=2) as checkpoints:
    for _ in range(args.rounds):
      for way in WAYS:
        number += 1
        start = time.perf_counter()
        checkpoints.save(number, state, {"next_index": number})
        if way == "waited for":
          checkpoints.settle()
        seconds[f"{way}, still"].append(time.perf_counter() - start)
        for _ in range(args.steps):
          state, _ = jax.block_until_ready(step(state, batch))
        checkpoints.settle()
        seconds[f"{way}, round"].append(time.perf_counter() - start)
  return {"state MB": size, "seconds": timing.spreads(seconds)}


@errors.command
def main() -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--network", default="v3plus_mobilenet_v2")
  parser.add_argument("--size", type=int, default=65, help="side of crops")
  parser.add_argument("--images", type=int, default=2, help="of each device")
  parser.add_argument("--steps", type=int, default=8, help="of each round")
  parser.add_argument("--rounds", type=int, default=5)
  args = timing.parsed(parser, "size", "images", "steps", "rounds")
  load = timing.load()
  with tempfile.TemporaryDirectory() as folder:
    report = measure(args, folder)
  report |= timing.origin("saving")
  report |= timing.machine(
    load=load,
    devices=[str(device) for device in jax.devices()],
    versions=timing.versions("jax", "jaxlib", "orbax-checkpoint"),
  )
  print(f"state {report['state MB']:.0f} MB, load {load:.1f}")
  for name, spread in report["seconds"].items():
    print(
      f"{name:20} {spread['median']:.2f} s ({spread['min']:.2f} to "
      f"{spread['max']:.2f})"
    )
  timing.write(report, args.out)
  print(json.dumps(report["versions"]))


if __name__ == "__main__":
  main()
