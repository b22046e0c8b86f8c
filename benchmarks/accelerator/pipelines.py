"""Sections of what surrounds the networks: evaluation, dense CRF, input."""

from collections.abc import Iterator
import itertools
import os
import time
from typing import Any

import numpy as np

from benchmarks import dense_crf
from benchmarks import input_pipelines
from benchmarks import steps
from benchmarks import timing
from benchmarks.accelerator import bench as bench_lib
from benchmarks.accelerator import networks
from deeplax import crf
from deeplax.data import build as data_build
from deeplax.inference import evaluate
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import sizing as sizing_lib
from deeplax.models import build as model_build
from deeplax.models import variables as variables_lib

CRF_SIZE, CRF_SMALL = (375, 500, steps.CLASSES), (45, 60, 4)
THREADS = 4  # data.threads, and its default
WARM_UP, COUNTED = 8, 16  # batches: those that wait are soon used up


def evaluation(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Time `deeplax.evaluate` at one scale: files, network, confusion matrix."""
  name = "mobilenet" if bench.small else "xception"
  network = networks.NETWORKS[name]
  config = network.configuration(small=bench.small)
  source = data_build.at(bench.pictures, "train")
  model = model_build.from_config(
    config.model, num_classes=len(source.spec.class_names)
  )
  predictor = predictor_lib.Predictor(
    model,
    variables_lib.initial_variables(model, 0),
    pad_value=model_build.mean_pixel(config.model),
    sizing=sizing_lib.Sizing(pad_to=(513, 513)),
    batch=0,
    progress=lambda _: None,
  )
  predictor.expect_images(len(source))
  start = time.perf_counter()
  predictor.labels(source[0]["image"])
  first = time.perf_counter() - start
  for threads in _threads():
    what = f"{network.named(bench)}, one scale, {threads} threads"
    if bench.late:
      yield {"what": what, **bench.late}
      continue

    def run(threads: int = threads) -> Any:
      return evaluate.evaluate(
        predictor, source, threads=threads, progress=lambda _: None
      )["images"]

    (seconds,) = bench.times({"evaluation": run}).values()
    yield {
      "what": what,
      "images_per_second": timing.spread([len(source) / s for s in seconds]),
      "first_image_seconds": first,
    }


def dense(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Time the dense CRF of one image."""
  height, width, classes = CRF_SMALL if bench.small else CRF_SIZE
  image = dense_crf.photograph(None, height, width)
  probabilities = dense_crf.made_up(height, width, classes, classes)
  settings: dict[str, Any] = dense_crf.SETTINGS

  def run() -> np.ndarray:
    return np.asarray(crf.dense_crf(image, probabilities, **settings))

  start = time.perf_counter()
  run()
  first = time.perf_counter() - start
  (seconds,) = bench.times({"crf": run}).values()
  yield {
    "what": f"dense CRF, {height}x{width}, {classes} classes, "
    f"{settings['iterations']} iterations",
    "seconds": timing.spread(seconds),
    "first_image_seconds": first,
  }


def inputs(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Time the training batches that this machine's cores make of JPEG files."""
  size, batch = input_pipelines.CROP, input_pipelines.BATCH
  for threads in _threads():
    what = f"crops of {size}x{size}, {threads} threads"
    if bench.late:
      yield {"what": what, **bench.late}
      continue
    start = time.perf_counter()
    batches = input_pipelines.deeplax(bench.pictures, threads)()
    next(batches)
    first = time.perf_counter() - start
    for _ in itertools.islice(batches, WARM_UP):
      pass
    seconds = timing.in_turn(
      {"input": lambda b=batches: [next(b) for _ in range(COUNTED)]},
      bench.sizes.rounds,
      units=COUNTED * batch,
    )
    wall, cpu = seconds.wall["input"], seconds.cpu["input"]
    yield {
      "what": what,
      "images_per_second": timing.spread([1 / s for s in wall]),
      "cpu_ms_of_an_image": timing.spread([1e3 * s for s in cpu]),
      "first_batch_seconds": first,
    }


def _threads() -> list[int]:
  """Return the numbers of threads to try: the default, one for each core."""
  return sorted({THREADS, os.cpu_count() or THREADS})
