"""DeepLabv3+ Xception-65 forward on CPU: deeplax against PyTorch, interleaved.

  pip install -e ".[torch]"
  python -m benchmarks.xception_forward --reps 5 --out xception_forward.json

Both run the same network with the same weights on the same image, at output
stride 16, and must give the same logits before anything is timed. Compilation,
memory layout and a first run are not timed. PyTorch runs eagerly in
channels_last, once as trained (convolution, then norm) and once with norms
folded into the kernels beforehand; deeplax folds them in each call.
"""

import argparse
from collections.abc import Callable, Mapping
import importlib
import os
from typing import Any

import numpy as np

from benchmarks import timing

# Without these PyTorch's idle threads spin on cores that JAX needs, and the
# reverse. PyTorch reads them when it is imported.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
CLASSES = 21


def main() -> None:
  """Measure, print and write."""
  args = parse()
  os.environ.update(THREADS)
  timing.use_cores(args.threads)
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  load = timing.load()
  runs, versions = networks(args.size, args.threads)
  reference = runs["torch"]()
  for name, run in runs.items():
    error = np.abs(run() - reference).max() / np.abs(reference).max()
    print(f"{name}: largest difference from torch {error:.1e} of the logits")
    if error > 1e-3:
      raise SystemExit(f"{name} computes another function than torch")
  seconds = timing.in_turn(runs, args.reps)
  report = {
    "benchmark": "v3plus_xception forward, batch 1, output stride 16, float32",
    "size": args.size,
    "reps": args.reps,
    "threads": args.threads,
    "machine": timing.machine(load=load),
    "versions": versions,
    "seconds": timing.spreads(seconds.wall),
    "cpu_seconds": timing.spreads(seconds.cpu),
    "ratio_of_medians": ratios(seconds.wall),
    "cpu_ratio_of_medians": ratios(seconds.cpu),
  }
  show(report)
  timing.write(report, args.out)


def parse() -> argparse.Namespace:
  parser = timing.parser(__doc__)
  parser.add_argument("--size", type=int, default=513, help="side in pixels")
  parser.add_argument("--reps", type=int, default=5, help="runs of each")
  parser.add_argument("--threads", type=int, default=2, help="cores of each")
  args = timing.parsed(parser, "reps", "threads")
  if args.size < 33 or (args.size - 1) % 32:
    parser.error(
      f"--size {args.size}: PyTorch pads as TensorFlow does at sizes 32 n + 1 "
      "only, such as 513 or 257"
    )
  return args


def networks(
  size: int, threads: int
) -> tuple[dict[str, Callable[[], np.ndarray]], dict[str, str]]:
  """Return the runs to time, each giving [size, size, k] logits, and versions.

  Logits become NumPy arrays, without a copy, so that every run has finished
  when it returns.
  """
  try:
    torch = importlib.import_module("torch")
  except ImportError:
    raise SystemExit(
      'this benchmark compares with PyTorch: pip install -e ".[torch]"'
    ) from None
  import jax

  from configs import v3plus_xception
  from deeplax.models import build
  from deeplax.models import variables as variables_lib

  config = v3plus_xception.get_config()
  model = build.from_config(config["model"], num_classes=CLASSES)
  variables = variables_lib.initial_variables(model, 0)
  image = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3))
  image = image.astype(np.float32)

  compiled = jax.jit(lambda v, x: model.apply(v, x, train=False))
  compiled = compiled.lower(variables, image).compile()
  on_device = jax.device_put(image)

  torch.set_num_threads(threads)
  layers = layers_of(variables)
  nchw = torch.from_numpy(image.transpose(0, 3, 1, 2))
  nchw = nchw.contiguous(memory_format=torch.channels_last)

  def with_torch(fold: bool) -> Callable[[], np.ndarray]:
    peer = TorchNetwork(torch, layers, model, fold=fold)

    def run():
      with torch.inference_mode():
        return peer(nchw)[0].permute(1, 2, 0).numpy()

    return run

  runs = {
    "deeplax": lambda: np.asarray(compiled(variables, on_device))[0],
    "torch": with_torch(False),
    "torch_folded": with_torch(True),
  }
  return runs, timing.versions("jax") | {"torch": torch.__version__}


def layers_of(variables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Return {"head/aspp0": {"kernel": .., "scale": .., ..}}, scans unstacked."""
  import jax

  layers = {}
  for collection in ("params", "batch_stats"):
    leaves = jax.tree_util.tree_leaves_with_path(variables[collection])
    for keys, value in leaves:
      path = [key.key for key in keys]
      copies = {"/".join(path[:-1]): np.asarray(value)}
      if "middle_flow" in path:
        copies = {
          "/".join(path[:-1]).replace("middle_flow", f"middle_flow{i}"): part
          for i, part in enumerate(np.asarray(value))
        }
      for name, array in copies.items():
        layers.setdefault(name, {})[path[-1]] = array
  return layers


class TorchNetwork:
  """The same network in PyTorch, from the same arrays, in inference mode."""

  def __init__(self, torch, layers, model, *, fold):
    from deeplax.models import deeplab
    from deeplax.models.backbones import xception

    self.torch = torch
    self.functional = torch.nn.functional
    self.plan = xception.dilated_units(
      model.backbone.depth, model.backbone.output_stride
    )
    self.variant = xception.DEPTHS[model.backbone.depth]
    self.atrous_rates = model.head.rates
    self.mean, self.std = model.mean[0], model.std[0]
    self.layers, norms = {}, deeplab.norms(model)
    for path, arrays in layers.items():
      part = path.split("/")[0]
      eps = norms[part].eps if "scale" in arrays else 0.0
      self.layers[path] = self._layer(arrays, eps, fold)

  def _layer(self, arrays, eps, fold):
    torch = self.torch
    values = {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}
    depthwise = "depthwise_kernel" in values
    kernel = values.pop("depthwise_kernel" if depthwise else "kernel")
    kernel = kernel.permute(3, 2, 0, 1)
    bias = values.get("bias")
    norm = None
    if "scale" in values:
      norm = (values["mean"], values["var"], values["scale"], values["offset"])
      if fold:
        factor = values["scale"] / torch.sqrt(values["var"] + eps)
        kernel = kernel * factor.reshape(-1, 1, 1, 1)
        bias = values["offset"] - values["mean"] * factor
        norm = None
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return kernel, bias, norm, eps, kernel.shape[0] if depthwise else 1

  def _conv(self, path, x, *, stride=1, rate=1, relu=False):
    kernel, bias, norm, eps, groups = self.layers[path]
    pad = rate * (kernel.shape[-1] // 2)
    y = self.functional.conv2d(x, kernel, bias, stride, pad, rate, groups)
    if norm is not None:
      y = self.functional.batch_norm(y, *norm, training=False, eps=eps)
    return y.relu_() if relu else y

  def _separable(self, path, x, *, stride=1, rate=1, relu=True):
    x = self._conv(f"{path}/depthwise", x, stride=stride, rate=rate, relu=relu)
    return self._conv(f"{path}/pointwise", x, relu=relu)

  def _resize(self, x, size):
    return self.functional.interpolate(
      x, size=size, mode="bilinear", align_corners=True
    )

  def _block(self, path, block, unit, x):
    y, low = x, x
    for place in (1, 2, 3):
      y = self._separable(
        f"{path}/separable_conv{place}",
        y if block.inner else y.relu(),
        stride=unit.stride if place == 3 else 1,
        rate=unit.rate,
        relu=block.inner,
      )
      low = y if place == 2 else low
    if block.skip == "sum":
      y = y + x
    elif block.skip == "conv":
      y = y + self._conv(f"{path}/shortcut", x, stride=unit.stride)
    return y, low

  def _backbone(self, x):
    x = self._conv("backbone/entry_flow_conv1_1", x, stride=2, relu=True)
    x = self._conv("backbone/entry_flow_conv1_2", x, relu=True)
    lows = {}
    for block, unit in zip(self.variant.blocks, self.plan[1:], strict=True):
      if unit.name == "middle_flow":
        for i in range(self.variant.middle):
          x, _ = self._block(f"backbone/middle_flow{i}", block, unit, x)
        continue
      x, lows[unit.name] = self._block(f"backbone/{unit.name}", block, unit, x)
    return x, lows["entry_flow_block2"]

  def _head(self, x):
    pooled = self._conv(
      "head/image_pooling", x.mean((2, 3), keepdim=True), relu=True
    )
    branches = [pooled.expand(-1, -1, *x.shape[2:])]
    branches.append(self._conv("head/aspp0", x, relu=True))
    for place, rate in enumerate(self.atrous_rates, 1):
      branches.append(self._separable(f"head/aspp{place}", x, rate=rate))
    return self._conv("head/projection", self.torch.cat(branches, 1), relu=True)

  def __call__(self, images):
    x = (images - self.mean) / self.std
    high, low = self._backbone(x)
    low = self._conv("decoder/feature_projection0", low, relu=True)
    x = self._resize(self._head(high), low.shape[2:])
    x = self.torch.cat([x, low], 1)
    for place in (0, 1):
      x = self._separable(f"decoder/conv{place}", x)
    return self._resize(self._conv("logits", x), images.shape[2:])


def ratios(seconds: Mapping[str, list[float]]) -> dict[str, float]:
  """Return deeplax's median time as a share of each peer's."""
  median = timing.medians(seconds)
  ours = median.pop("deeplax")
  return {name: ours / value for name, value in median.items()}


def show(report: Mapping[str, Any]) -> None:
  """Print the report."""
  machine = report["machine"]
  print(f"\n{report['benchmark']}, {report['size']} x {report['size']}")
  print(
    timing.machine_line(
      machine, report["threads"], f"{machine['load']:.2f}", report["versions"]
    )
  )
  for name, wall in report["seconds"].items():
    line = timing.line(name, wall, report["cpu_seconds"][name], 13)
    if name in report["ratio_of_medians"]:
      line += (
        f"; deeplax / {name} {report['ratio_of_medians'][name]:.2f}, "
        f"CPU {report['cpu_ratio_of_medians'][name]:.2f}"
      )
    print(line)
  print(f"Medians of {report['reps']} runs, least and most in brackets.")


if __name__ == "__main__":
  main()
