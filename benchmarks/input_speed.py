"""Training batches from files: deeplax's loader against tf.data, interleaved.

  pip install -e ".[tf]"
  python -m benchmarks.input_speed --out input_speed.json
  python -m benchmarks.input_speed --data=DIR --split=train

Both treat the same files alike: decode a JPEG (or PNG) and its mask, scale by
0.5 to 2.0 in steps of 0.25 (bilinear, the mask nearest, corners aligned), pad
with the mean pixel, crop 513x513, mirror half of the images, make batches of 8.
Before anything is timed it is checked that both give the same crops for the
same random numbers.

tf.data is used as in DeepLab's TensorFlow code: whole images are scaled, then
padded, then cut; map and prefetch choose their own parallelism. tf_float yields
float32 images and int32 labels as that code does, tf_bytes uint8 as deeplax
does. Files are read by name, from the page cache.

Each pipeline has a process of its own on the same cores. They take turns, and a
pipeline is stopped while it is another's turn, so that it prepares no batches
meanwhile. A turn starts with batches that are not timed.
"""

import argparse
from collections.abc import Mapping
import contextlib
import importlib.util
import itertools
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import input_pipelines
from benchmarks import timing
from deeplax import errors

PIPELINES = ("deeplax", "tf_bytes", "tf_float")
BATCH = input_pipelines.BATCH
WARM_UP = 12  # batches before each turn's clock starts
FIRST_WARM_UP = 60  # batches once: tf.data first looks for its parallelism


@errors.command
def main() -> None:
  """Measure, print and write."""
  args = parse()
  if args.worker:
    return work(args)
  if importlib.util.find_spec("tensorflow") is None:
    raise errors.InputError(
      "this benchmark compares with TensorFlow, which is not installed: "
      'pip install -e ".[tf]"'
    )
  timing.use_cores(args.cores)
  load = timing.load()
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    images = input_pipelines.write_files(root, args)
    differences = {
      name: input_pipelines.difference(root, as_bytes=name == "tf_bytes")
      for name in PIPELINES[1:]
    }
    results = measure(root, args)
  crop = input_pipelines.CROP
  report = {
    "benchmark": f"{crop}x{crop} training crops from files, batches of {BATCH}",
    **timing.origin("input_speed"),
    "machine": timing.machine(load_before=load, load_after=timing.load()),
    "settings": {
      "data": str(args.data or "built-in shapes"),
      "images": images,
      "rounds": args.rounds,
      "images_per_round": args.images_per_round,
      "cores": args.cores,
      "threads": args.threads,
    },
    "differences_from_deeplax": differences,
    **results,
  }
  show(report)
  timing.write(report, args.out)


def parse() -> argparse.Namespace:
  parser = timing.parser(__doc__)
  parser.add_argument(
    "--data",
    type=pathlib.Path,
    metavar="DIR",
    help="a data set on disk (default: built-in pictures of 500x375)",
  )
  parser.add_argument("--split", default="train", help="of --data")
  parser.add_argument(
    "--images", type=int, default=200, help="that are read, again and again"
  )
  parser.add_argument("--rounds", type=int, default=5, help="turns of each")
  parser.add_argument(
    "--images_per_round", type=int, default=400, help="timed in each turn"
  )
  parser.add_argument("--cores", type=int, default=2, help="of each")
  parser.add_argument(
    "--threads", type=int, default=4, help="data.threads of deeplax"
  )
  parser.add_argument("--worker", choices=PIPELINES, help=argparse.SUPPRESS)
  return timing.parsed(parser, "images", "rounds", "images_per_round", "cores")


def work(args: argparse.Namespace) -> None:
  """Run one pipeline: time as many batches as each line of stdin says."""
  if args.worker == "deeplax":
    start = input_pipelines.deeplax(args.data, args.threads)
  else:
    as_bytes = args.worker == "tf_bytes"
    start = input_pipelines.Tensorflow(args.data, as_bytes=as_bytes).start
  clock = time.perf_counter()
  batches = start()
  take(batches, 1)
  answer({"first_batch_seconds": time.perf_counter() - clock})
  take(batches, FIRST_WARM_UP)
  for line in sys.stdin:
    take(batches, WARM_UP)
    clock, cpu_clock = time.perf_counter(), time.process_time()
    take(batches, int(line))
    seconds = time.perf_counter() - clock
    cpu_seconds = time.process_time() - cpu_clock
    answer(
      {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": timing.memory(),
      }
    )


def take(batches: input_pipelines.Batches, count: int) -> None:
  for batch in itertools.islice(batches, count):
    assert len(batch["image"]) == len(batch["label"]) == BATCH


def answer(values: Mapping[str, Any]) -> None:
  print(json.dumps(values), flush=True)


class Worker:
  """A pipeline in a process of its own, which is stopped between its turns."""

  def __init__(self, name: str, root: pathlib.Path, threads: int):
    command = [sys.executable, "-m", "benchmarks.input_speed"]
    command += [f"--worker={name}", f"--data={root}", f"--threads={threads}"]
    self.name = name
    self.process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      # If this process is killed, the kernel then ends the stopped ones too.
      process_group=0,
    )

  def ask(self, batches: int) -> dict[str, float]:
    """Have the pipeline make batches; return its times."""
    assert self.process.stdin is not None
    self.process.send_signal(signal.SIGCONT)
    print(batches, file=self.process.stdin, flush=True)
    answer = self.hear()
    # tf.data would prepare hundreds of further batches.
    self.process.send_signal(signal.SIGSTOP)
    return answer

  def hear(self) -> dict[str, float]:
    assert self.process.stdout is not None
    line = self.process.stdout.readline()
    if not line:
      raise errors.InputError(f"{self.name} has stopped: its message is above")
    return json.loads(line)

  def close(self) -> None:
    self.process.kill()
    self.process.communicate()


def measure(root: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
  """Let the pipelines take turns; return the results for the report."""
  batches = -(-args.images_per_round // BATCH)
  images = batches * BATCH
  first, turns = {}, {name: [] for name in PIPELINES}
  with contextlib.ExitStack() as stack:
    workers = {}
    for name in PIPELINES:
      workers[name] = Worker(name, root, args.threads)
      stack.callback(workers[name].close)
      first[name] = workers[name].hear()["first_batch_seconds"]
      workers[name].ask(1)  # when it has warmed up
      print(f"{name} is ready", flush=True)
    start = time.perf_counter()
    for done in range(1, args.rounds + 1):
      for name, worker in workers.items():
        turns[name].append(worker.ask(batches))
      left = (time.perf_counter() - start) / done * (args.rounds - done)
      rates = ", ".join(
        f"{name} {images / turns[name][-1]['seconds']:.1f}" for name in turns
      )
      print(
        f"round {done}/{args.rounds}: {rates} images/s  ETA {left:.0f} s",
        flush=True,
      )
  speed = {
    name: [images / turn["seconds"] for turn in values]
    for name, values in turns.items()
  }
  cpu = {
    name: [1e3 * turn["cpu_seconds"] / images for turn in values]
    for name, values in turns.items()
  }
  return {
    "versions": versions(),
    "images_per_second": timing.spreads(speed),
    "cpu_ms_per_image": timing.spreads(cpu),
    "speed_of_deeplax_over": {
      name: timing.ratio(speed["deeplax"], speed[name])
      for name in PIPELINES[1:]
    },
    "cpu_of_others_over_deeplax": {
      name: timing.ratio(cpu[name], cpu["deeplax"]) for name in PIPELINES[1:]
    },
    "first_batch_seconds": first,
    "peak_mb": {k: v[-1]["peak_mb"] for k, v in turns.items()},
  }


def versions() -> dict[str, str]:
  names = ("grain", "numpy", "opencv-python-headless", "pillow")
  found = timing.versions(*names, "tensorflow-cpu", "tensorflow")
  return {name.removesuffix("-cpu"): number for name, number in found.items()}


def show(report: Mapping[str, Any]) -> None:
  """Print the report."""
  machine, settings = report["machine"], report["settings"]
  print(f"\n{report['benchmark']}: {settings['data']}")
  print(
    timing.machine_line(
      machine,
      settings["cores"],
      f"{machine['load_before']:.2f} before",
      report["versions"],
    )
  )
  for name in PIPELINES:
    speed = report["images_per_second"][name]
    cpu = report["cpu_ms_per_image"][name]
    print(
      f"{name:8s} {speed['median']:6.1f} images/s ({speed['min']:.1f} to "
      f"{speed['max']:.1f}), CPU {cpu['median']:.1f} ms an image, first batch "
      f"{report['first_batch_seconds'][name]:.2f} s, "
      f"{report['peak_mb'][name]:.0f} MB"
    )
  for name, ratio in report["speed_of_deeplax_over"].items():
    cpu = report["cpu_of_others_over_deeplax"][name]
    print(
      f"deeplax / {name}: {ratio['median']:.2f} ({ratio['min']:.2f} to "
      f"{ratio['max']:.2f}) in images/s, {cpu['median']:.2f} in images per "
      "second of CPU"
    )
  print(f"Medians of {settings['rounds']} rounds, least and most in brackets.")


if __name__ == "__main__":
  main()
