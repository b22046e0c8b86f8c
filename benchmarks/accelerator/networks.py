"""Sections of whole networks: training steps, forward passes, their kernels."""

from collections.abc import Iterator
from functools import partial
import math
import statistics
from typing import Any, NamedTuple

import jax
import ml_collections

from benchmarks import steps
from benchmarks import timing
from benchmarks.accelerator import bench as bench_lib
from benchmarks.accelerator import profile
from deeplax import parallel
from deeplax.models import cost

# How often each convolution's output has to pass through memory. Forward, where
# norms are folded into kernels, it is written and read. Training writes it,
# reads it for its statistics, normalizes it (read, write) and convolves that;
# on the way back its norm reads it twice beside the gradient (4) and writes
# one, which the input gradient and, with the map, the kernel gradient read (3),
# and the input gradient writes.
PASSES = {"step": 14, "forward": 2}
# The gradients by input and kernel cost as much as the forward pass, each.
PRODUCTS = {"step": 3, "forward": 1}
BYTES = 2  # of a value in bfloat16


class Network(NamedTuple):
  """A network to be measured.

  Attributes:
    title: Its name in tables.
    config: Its configuration.
    small: The keys of `config.model` of its small stand-in.
    separable: Whether head and decoder are made separable.
  """

  title: str
  config: str
  small: dict[str, Any]
  separable: bool = False

  def named(self, bench: bench_lib.Bench) -> str:
    """Return the title of what is measured."""
    return f"{self.title}, small stand-in" if bench.small else self.title

  def configuration(
    self, *, small: bool, dtype: str = "bfloat16"
  ) -> ml_collections.ConfigDict:
    config = steps.config(self.config, separable=self.separable, dtype=dtype)
    if small:
      config.model.update_from_flattened_dict({**NARROW, **self.small})
    return config


NARROW = {"channels": 16, "decoder.channels": 16}
NETWORKS = {
  "xception": Network(
    "Xception-65",
    "v3plus_xception",
    {"backbone": "xception_41", "xception.middle_units": 1},
  ),
  "mobilenet": Network(
    "MobileNetV2", "v3plus_mobilenet_v2", {"depth_multiplier": 0.1}
  ),
  "resnet": Network(
    "ResNet-101, separable head",
    "v3plus_resnet101",
    {"backbone": "resnet_v1_50_beta"},
    separable=True,
  ),
}


class Step:
  """A compiled training step, with the state and the batch to run it on."""

  def __init__(self, bench: bench_lib.Bench, config: ml_collections.ConfigDict):
    mesh, sizes = parallel.mesh(), bench.sizes
    self.state = steps.state(config, mesh)
    self.batch = steps.batch(mesh, images=sizes.batch, size=sizes.side)
    step = steps.step(config, mesh)
    self.compiled = bench.compiled(step, self.state, self.batch)

  def __call__(self) -> Any:
    """Start a step; return its metrics."""
    self.state, metrics = self.compiled.run(self.state, self.batch)
    return metrics


def train(bench: bench_lib.Bench, name: str) -> Iterator[bench_lib.Row]:
  """Time the training step of a network."""
  network = NETWORKS[name]
  config = network.configuration(small=bench.small)
  step = bench.programs[name] = Step(bench, config)
  loss = float(step().compute()["loss"])
  if not math.isfinite(loss):
    raise FloatingPointError(f"the loss of the first step is {loss}")
  (seconds,) = bench.times({"step": step}, longer=20).values()
  yield {
    "what": f"{network.named(bench)}, training step",
    **speed(bench, config, bench.sizes.batch, "step", seconds),
    **step.compiled.row(),
    "peak_gib": peak(),
    "first_loss": loss,
  }


def forwards(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Time forward pass and argmax, of one image and of a batch."""
  for name, network in NETWORKS.items():
    what = f"{network.named(bench)}, forward + argmax"
    if bench.late:
      yield {"what": what, **bench.late}
      continue
    config = network.configuration(small=bench.small)
    mesh = parallel.mesh(jax.local_devices()[:1])
    if name in bench.programs:
      variables = parallel.local(bench.programs[name].state.trained)
    else:
      variables = steps.state(config, mesh).trained
    predict = steps.forward(config)
    programs: dict[int, bench_lib.Compiled] = {}
    runs = {}
    for batch in (1, bench.sizes.batch):
      made_up = steps.batch(mesh, images=batch, size=bench.sizes.side)
      images = made_up["image"]
      programs[batch] = bench.compiled(predict, variables, images)
      runs[f"batch {batch}"] = partial(programs[batch].run, variables, images)
    times = bench.times(runs, longer=4).values()
    for batch, seconds in zip(programs, times, strict=True):
      yield {
        "what": f"{what}, batch {batch}",
        **speed(bench, config, batch, "forward", seconds),
        **programs[batch].row(),
      }


def speed(
  bench: bench_lib.Bench,
  config: ml_collections.ConfigDict,
  batch: int,
  kind: str,
  seconds: list[float],
) -> bench_lib.Row:
  """Return the speed of a step or forward pass, beside what is possible.

  Args:
    batch: Images of each device.
    kind: "step" or "forward".
    seconds: Of all rounds.
  """
  model = steps.network(config)
  size = (bench.sizes.side, bench.sizes.side)
  products = cost.multiply_adds(model, size)
  values = sum(
    math.prod(conv.size_out) * conv.shape[-1] * math.prod(conv.shape[:-4])
    for conv in cost.trace(model, size)[1]
  )
  flops = 2 * PRODUCTS[kind] * products * batch
  floor = bench.floor(flops=flops, bytes=PASSES[kind] * BYTES * values * batch)
  median = statistics.median(seconds)
  devices = jax.device_count() if kind == "step" else 1
  return {
    "images_per_second": timing.spread([batch * devices / s for s in seconds]),
    "milliseconds": timing.spread([1e3 * s for s in seconds]),
    "gmacs_of_an_image": products / 1e9,
    "tflops_of_a_device": flops / median / 1e12,
    "floor_of_bytes_ms": 1e3 * floor["bytes"],
    "floor_of_flops_ms": 1e3 * floor["flops"],
    "share_of_floor": max(floor.values()) / median,
  }


def peak() -> float | str:
  """Return the most memory that this process has held on a device, in GiB."""
  stats = jax.local_devices()[0].memory_stats() or {}
  peak = stats.get("peak_bytes_in_use")
  return bench_lib.NOT_HERE if peak is None else peak / bench_lib.GIB


def kernels(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Profile a step of each network that is compiled, by kind of kernel."""
  if not bench.programs:
    network = NETWORKS["xception"]
    config = network.configuration(small=bench.small)
    bench.programs["xception"] = Step(bench, config)
  for name, step in bench.programs.items():
    title = NETWORKS[name].named(bench)
    jax.block_until_ready(step())  # warms up
    events = profile.events(lambda step=step: step())
    if not events:
      yield {"what": title, "remark": f"{bench_lib.NOT_HERE}: no device lines"}
      continue
    moved = profile.bytes_of(step.compiled.run.as_text())
    for kind in profile.kinds(events, moved):
      yield {"what": f"{title}: {kind.name}", **kind.row()}
