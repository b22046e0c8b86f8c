"""The cost of the papers' table beside its forward passes, interleaved.

  python -m benchmarks.sweep_cost --out sweep_cost.json
  python -m benchmarks.sweep_cost --network=xception --images=2 --rounds=3

The table of one output stride (one scale; six scales; six scales and flips) of
a network with random weights, on made-up files: the network of
configs/camvid.py at its images' size, which is small, so that all other work
weighs most, or Xception-65 at VOC's. Three ways take turns over the same
images:

  forward     the network at each scale and flip, to logits at the image's size,
              on images in memory; the logits are not used
  sweep       deeplax.evaluate_rows: reads and decodes the files, averages,
              takes the classes, counts the confusion matrix of each row
  everything  the same with trimap, boundary and object measures

Compilation is not timed. On a machine with other work the CPU seconds say more
than the wall clock; on a CPU they include the network's own threads.
"""

import argparse
from collections.abc import Callable, Sequence
import json
import pathlib
import statistics
import tempfile
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from PIL import Image

from benchmarks import timing
from configs import camvid
from configs import v3plus_xception
from deeplax import errors
from deeplax.data import folder
from deeplax.data import loader
from deeplax.inference import averaging
from deeplax.inference import evaluate
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import sizing as sizing_lib
from deeplax.inference import sweep as sweep_lib
from deeplax.metrics import measures
from deeplax.models import build as model_build
from deeplax.models import variables


class Network(NamedTuple):
  """A network, and the size and classes of its images."""

  title: str
  config: Any
  size: tuple[int, int]
  classes: int


NETWORKS = {
  "camvid": Network(
    *("half-width MobileNetV2", camvid.get_config(), (360, 480), 11)
  ),
  "xception": Network(
    *("Xception-65", v3plus_xception.get_config(), (375, 500), 21)
  ),
}
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
MODES = (
  mode_lib.Mode(),
  mode_lib.Mode(SCALES),
  mode_lib.Mode(SCALES, flip=True),
)
EVERYTHING = measures.Measures(
  trimap=(1, 2, 5, 10, 20, 40), boundary=True, objects=True
)
WAYS = ("forward", "sweep", "everything")


@errors.command
def main() -> None:
  """Measure, print and write."""
  args = parse()
  network = NETWORKS[args.network]
  load = timing.load()
  with tempfile.TemporaryDirectory() as name:
    write_files(pathlib.Path(name), args.images, network)
    results = measure(folder.source(pathlib.Path(name), "val"), args)
  report = {
    "benchmark": f"the papers' table on {args.images} images of "
    f"{network.size[0]}x{network.size[1]}, {network.classes} classes, "
    f"{network.title}, output stride {args.output_stride}",
    **timing.origin("sweep_cost"),
    "machine": timing.machine(
      device=jax.devices()[0].device_kind,
      load_before=load,
      load_after=timing.load(),
    ),
    "versions": timing.versions("jax"),
    "settings": {"rounds": args.rounds, "threads": args.threads},
    **results,
  }
  show(report)
  timing.write(report, args.out)


def parse() -> argparse.Namespace:
  parser = timing.parser(__doc__)
  parser.add_argument("--network", choices=NETWORKS, default="camvid")
  parser.add_argument("--images", type=int, default=8, help="of a turn")
  parser.add_argument("--rounds", type=int, default=5, help="turns of each")
  parser.add_argument("--output_stride", type=int, default=16, help="16 or 8")
  parser.add_argument("--threads", type=int, default=4, help="data.threads")
  args = timing.parsed(parser, "images", "rounds")
  if args.threads < 0:
    parser.error("--threads must be 0 or more")
  return args


def write_files(root: pathlib.Path, images: int, network: Network) -> None:
  """Write a data set: JPEGs of noise over patches, and masks of the patches."""
  rng = np.random.default_rng(0)
  for kind in ("images", "labels"):
    (root / kind / "val").mkdir(parents=True)
  for i in range(images):
    coarse = rng.integers(0, network.classes, (12, 16)).astype(np.uint8)
    size = (network.size[1], network.size[0])
    label = Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)
    label.save(root / "labels" / "val" / f"{i:04d}.png")
    noise = rng.integers(0, 40, (*network.size, 3))
    image = np.asarray(label, np.int64)[..., None] * 10 + noise
    picture = Image.fromarray(image.astype(np.uint8))
    picture.save(root / "images" / "val" / f"{i:04d}.jpg", quality=90)
  names = [f"class {k}" for k in range(network.classes)]
  text = json.dumps({"names": names, "ignore_label": 255})
  (root / "classes.json").write_text(text)


def measure(source: Any, args: argparse.Namespace) -> dict[str, Any]:
  """Let the ways take turns; return the results for the report."""
  network = NETWORKS[args.network]
  config = network.config
  model = model_build.from_config(
    config.model,
    num_classes=network.classes,
    output_stride=args.output_stride,
  )
  predictor = predictor_lib.Predictor(
    model,
    variables.initial_variables(model, 0),
    pad_value=model_build.mean_pixel(config.model),
    sizing=sizing_lib.Sizing(pad_to=config.eval.pad_to),
  )
  images = [e["image"] for e in loader.examples(source, threads=args.threads)]
  clocks = {way: [] for way in WAYS}
  memory: list[float] = []

  def sweep(way: str, measured: measures.Measures) -> None:
    clock: dict[str, float] = {}
    evaluate.evaluate_rows(
      sweep_lib.Sweep(predictor, MODES),
      source,
      threads=args.threads,
      measured=measured,
      clock=clock,
      progress=lambda _: None,
      keep=lambda row, *_: (
        None if row else memory.append(timing.memory("VmRSS"))
      ),
    )
    clocks[way].append(clock)

  predictor.submit_modes(images[0], MODES)  # compiles
  runs: dict[str, Callable[[], None]] = {
    "forward": lambda: forward(predictor, images),
    "sweep": lambda: sweep("sweep", measures.CONFUSION_ONLY),
    "everything": lambda: sweep("everything", EVERYTHING),
  }
  for run in runs.values():
    run()  # warms up
  for values in clocks.values():
    values.clear()
  memory.clear()

  def after(done: int, seconds: timing.Seconds) -> None:
    rates = ", ".join(f"{way} {seconds.wall[way][-1]:.2f}" for way in WAYS)
    of_round = len(images) * sum(map(statistics.mean, seconds.wall.values()))
    left = (args.rounds - done) * of_round
    print(f"round {done}/{args.rounds}: {rates} s an image  ETA {left:.0f} s")

  seconds = timing.in_turn(runs, args.rounds, units=len(images), after=after)
  return summary(seconds, clocks, memory, len(images))


def summary(
  seconds: timing.Seconds,
  clocks: dict[str, list[dict[str, float]]],
  memory: list[float],
  images: int,
) -> dict[str, Any]:
  """Return seconds an image, shares of the time spent waiting, and memory."""
  quarter = memory[: max(len(memory) // 4, 1)]
  return {
    "seconds_an_image": timing.spreads(seconds.wall),
    "cpu_seconds_an_image": timing.spreads(seconds.cpu),
    "over_forward": over_forward(seconds.wall),
    "cpu_over_forward": over_forward(seconds.cpu),
    # Shares of a turn's wall clock that the main thread spent waiting.
    "waiting": {
      way: {
        key: timing.ratio(
          [clock[key] / images for clock in clocks[way]], seconds.wall[way]
        )
        for key in ("load", "count")
      }
      for way in WAYS[1:]
    },
    "memory_mb": {
      "images": len(memory),
      "first_quarter": max(quarter),
      "all": max(memory),
      "growth": max(memory) - max(quarter),
    },
  }  # fmt: skip


def forward(
  predictor: predictor_lib.Predictor, images: list[np.ndarray]
) -> None:
  """Predict images as far as the logits, which are not used."""

  def only_logits(
    modes: Sequence[mode_lib.Mode],
    logits: Callable[[mode_lib.View], jax.Array],
    **_: Any,
  ) -> list[jax.Array]:
    before: Any = ()
    scores: Any = None
    for view in sorted({view for mode in modes for view in mode.views}):
      scores = logits(view)
      jax.block_until_ready(before)
      before = scores
    return [scores] * len(modes)

  pending: Any = ()
  with mock.patch.object(averaging, "predict", only_logits):
    for image in images:
      pending = predictor.submit_modes(image, MODES)
  jax.block_until_ready(pending)


def over_forward(values: dict[str, list[float]]) -> dict[str, Any]:
  """Compare each way with the forward passes of its round."""
  return {way: timing.ratio(values[way], values["forward"]) for way in WAYS[1:]}


def show(report: dict[str, Any]) -> None:
  """Print the report."""
  machine = report["machine"]
  print(f"\n{report['benchmark']}")
  print(
    f"{machine['device']}, {machine['cpu']}, {machine['cores']} cores, load "
    f"{machine['load_before']:.2f} before, {machine['load_after']:.2f} after"
  )
  for way in WAYS:
    wall = report["seconds_an_image"][way]
    cpu = report["cpu_seconds_an_image"][way]
    line = (
      f"{way:10s} {wall['median']:6.3f} s an image ({wall['min']:.3f} to "
      f"{wall['max']:.3f}), CPU {cpu['median']:.3f} s"
    )
    if way in report["waiting"]:
      ratio, cpu_ratio = (
        report[key][way] for key in ("over_forward", "cpu_over_forward")
      )
      waited = report["waiting"][way]
      line += (
        f"; {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f}) "
        f"of forward, CPU {cpu_ratio['median']:.3f}; waited for data "
        f"{waited['load']['median']:.2%}, for counts "
        f"{waited['count']['median']:.2%}"
      )
    print(line)
  memory = report["memory_mb"]
  print(
    f"Memory: {memory['first_quarter']:.0f} MB at most in the first quarter of "
    f"{memory['images']} images, {memory['all']:.0f} MB in all of them."
  )
  print(f"Medians of {report['settings']['rounds']} rounds.")


if __name__ == "__main__":
  main()
