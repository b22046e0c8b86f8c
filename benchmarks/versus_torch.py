"""deeplax against PyTorch on a CPU: the same networks, in turn.

  pip install -e ".[bench]"
  python -m benchmarks.versus_torch

Forward passes of one image of 513x513 and training steps of two crops of
257x257, float32, DeepLabv3+ at output stride 16 of segmentation_models.pytorch:
PyTorch runs it eagerly, in channels_last. The weights are PyTorch's, and the
logits are compared before anything is timed. Each side is a process of its own;
one run of one, then one of the other, so that a busy moment hits both.
"""

import argparse
from collections.abc import Iterator, Mapping
import contextlib
import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks import timing
from deeplax import atomic
from deeplax.reports import html

NETWORKS = ("xception65", "mobilenet_v2", "resnet101")
WHATS = ("forward", "step")
SIDES = ("torch", "deeplax")
NEEDED = ("torch", "segmentation_models_pytorch", "timm")
# PyTorch's idle threads would spin on the cores of the other side.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
RESULT = pathlib.Path(__file__).parent / "results" / "versus_torch.json"


def main() -> None:
  """Measure, print, write and draw."""
  parser = timing.parser(__doc__)
  parser.add_argument("--reps", type=int, default=9, help="runs of each")
  parser.add_argument("--threads", type=int, default=2, help="cores of each")
  parser.add_argument(
    "--networks", nargs="+", choices=NETWORKS, default=NETWORKS
  )
  parser.add_argument("--image", type=int, default=513, help="of forward")
  parser.add_argument("--crop", type=int, default=257, help="of training")
  parser.set_defaults(out=RESULT)
  args = timing.parsed(parser, "reps", "threads", "image", "crop")
  for module in NEEDED:
    if importlib.util.find_spec(module) is None:
      parser.error(f'{module} is not installed: pip install -e ".[bench]"')
  timing.use_cores(args.threads)
  report = {
    **timing.origin("versus_torch"),
    "benchmark": "DeepLabv3+, output stride 16, float32, in turn with PyTorch",
    "image": args.image,
    "crop": args.crop,
    "reps": args.reps,
    "threads": args.threads,
    "versions": timing.versions("jax", "torch", *NEEDED[1:]),
    "rows": [],
  }
  load = [timing.load()]
  for network, what in itertools.product(args.networks, WHATS):
    row = compared(network, what, args)
    load.append(timing.load())
    report["rows"].append(row)
    print(text(row), flush=True)
  report["machine"] = timing.machine(load=load)
  timing.write(report, args.out)
  if args.out:
    path = pathlib.Path(args.out).with_suffix(".svg")
    atomic.write_text(path, plot(report["rows"]))
    print(path)


def compared(
  network: str, what: str, args: argparse.Namespace
) -> dict[str, Any]:
  """Run both sides in turn; return their seconds, memory and ratio."""
  print(f"{network}, {what}: preparing ...", flush=True)
  found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
  facts = {}
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    sides = {}
    # PyTorch first: it writes the weights that the other reads.
    for name in SIDES:
      sides[name] = stack.enter_context(
        side(
          name,
          network,
          what,
          *(f"--weights={folder}/weights.npz",),
          *(f"--image={args.image}", f"--crop={args.crop}"),
        )
      )
      facts |= answer(sides[name])
    for _ in range(args.reps):
      for name, process in sides.items():
        with contextlib.suppress(BrokenPipeError):  # `answer` tells of it
          process.stdin.write("\n")
          process.stdin.flush()
        found[name].append(answer(process))

  def values(key: str) -> dict[str, list[float]]:
    return {name: [run[key] for run in runs] for name, runs in found.items()}

  wall, cpu = values("seconds"), values("cpu_seconds")
  return {
    "network": network,
    "what": what,
    **facts,
    "seconds": timing.spreads(wall),
    "cpu_seconds": timing.spreads(cpu),
    "megabytes": {n: max(v) for n, v in values("megabytes").items()},
    "ratio": timing.ratio(wall["deeplax"], wall["torch"]),
    "cpu_ratio": timing.ratio(cpu["deeplax"], cpu["torch"]),
  }


@contextlib.contextmanager
def side(*arguments: str) -> Iterator[Any]:
  """Start a side in a process, which ends with the context."""
  command = [sys.executable, "-m", "benchmarks.versus_torch_side", *arguments]
  with subprocess.Popen(
    command,
    env=os.environ | THREADS | {"JAX_PLATFORMS": "cpu"},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      yield process
    finally:
      process.kill()


def answer(process: Any) -> dict[str, Any]:
  """Return the next line of JSON of a side.

  Raises:
    SystemExit: It has ended; what it complained of stands above.
  """
  for line in process.stdout:
    if line.startswith("{"):
      return json.loads(line)
  raise SystemExit(f"{' '.join(process.args[3:6])} has ended, see above")


def text(row: Mapping[str, Any]) -> str:
  """Return a row as lines."""
  lines = [
    timing.line(name, row["seconds"][name], row["cpu_seconds"][name], 8)
    + f", {row['megabytes'][name]:,.0f} MB"
    for name in SIDES
  ]
  ratios = (
    f"{r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})"
    for r in (row["ratio"], row["cpu_ratio"])
  )
  title = f"{row['network']}, {row['what']}, logits within "
  return "\n  ".join(
    [
      f"{title}{row['difference']:.0e}",
      *lines,
      "deeplax / torch " + ", CPU ".join(ratios),
    ]
  )


# Pixels of the plot.
LEFT, SCALE, BAR, GAP = 190, 260, 16, 12


def plot(rows: list[Mapping[str, Any]]) -> str:
  """Return bars of the ratios by round, with their spread, as SVG."""
  height = len(rows) * (BAR + GAP) + 60
  width = LEFT + 2 * SCALE + 20
  one = LEFT + SCALE
  parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
    f'height="{height}" font-family="sans-serif" font-size="13">',
    f'<rect width="{width}" height="{height}" fill="white"/>',
    f'<text x="{LEFT}" y="20">time of deeplax / time of PyTorch</text>',
    f'<line x1="{one}" x2="{one}" y1="30" y2="{height - 26}" stroke="gray"/>',
    f'<text x="{one}" y="{height - 8}" text-anchor="middle">1</text>',
  ]
  for i, row in enumerate(rows):
    top, ratio = 36 + i * (BAR + GAP), row["ratio"]
    low, middle, high = (
      LEFT + SCALE * min(ratio[key], 2) for key in ("min", "median", "max")
    )
    name = html.escape(f"{row['network']}, {row['what']}")
    center = top + BAR / 2
    parts += [
      f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{name}</text>',
      f'<rect x="{LEFT}" y="{top}" width="{middle - LEFT:.1f}" '
      f'height="{BAR}" fill="#0072b2"/>',
      f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{center}" y2="{center}" '
      'stroke="black"/>',
      f'<text x="{high + 6:.1f}" y="{top + 13}">{ratio["median"]:.2f}</text>',
    ]
  return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
  main()
