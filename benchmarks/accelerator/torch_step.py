"""PyTorch's side: a network of segmentation_models.pytorch, eager and compiled.

  python -m benchmarks.accelerator.torch_step resnet101 --side=512 --batch=16

It runs in a process of its own, and prints each result as a line of JSON.
bfloat16 by autocast, channels_last, cuDNN's own benchmark.
"""

import argparse
from collections.abc import Callable, Iterator
import importlib
import json
import time
from typing import Any

from benchmarks import timing

CLASSES = 21
COUNTED = 4  # steps in which cuDNN tries its algorithms, or more is compiled


def main() -> None:
  """Measure and print."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("encoder", help="the backbone's name there")
  parser.add_argument("--side", type=int, default=512, help="in pixels")
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--calls", type=int, default=10, help="of a round")
  parser.add_argument("--device", default="cuda")
  for row in measure(parser.parse_args()):
    print(json.dumps(row), flush=True)


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Yield a row for each of step and forward passes, eager, then compiled."""
  torch = importlib.import_module("torch")
  if args.device == "cuda" and not torch.cuda.is_available():
    remark = "skipped: PyTorch sees no CUDA device"
    yield {"what": "training step", "remark": remark}
    return
  smp = importlib.import_module("segmentation_models_pytorch")
  torch.backends.cudnn.benchmark = True
  network = smp.DeepLabV3Plus(
    encoder_name=args.encoder,
    encoder_weights=None,
    encoder_output_stride=16,
    classes=CLASSES,
  )
  network = network.to(args.device, memory_format=torch.channels_last)
  for way in ("eager", "compiled"):
    model = network if way == "eager" else torch.compile(network)
    network.train()
    step = training_step(torch, model, args)
    yield timed(torch, f"training step, {way}", step, args.batch, args)
    network.eval()
    for batch in (1, args.batch):
      run = forward(torch, model, batch, args)
      what = f"forward + argmax, batch {batch}, {way}"
      yield timed(torch, what, run, batch, args)


def training_step(
  torch: Any, model: Any, args: argparse.Namespace
) -> Callable[[], Any]:
  images = noise(torch, args.batch, args)
  labels = torch.randint(
    CLASSES, (args.batch, args.side, args.side), device=args.device
  )
  optimizer = torch.optim.SGD(
    model.parameters(), lr=0.007, momentum=0.9, weight_decay=4e-5
  )

  def run():
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(args.device, torch.bfloat16):
      logits = model(images)
    loss = torch.nn.functional.cross_entropy(logits.float(), labels)
    loss.backward()
    optimizer.step()

  return run


def forward(
  torch: Any, model: Any, batch: int, args: argparse.Namespace
) -> Callable[[], Any]:
  images = noise(torch, batch, args)

  def run():
    with torch.inference_mode(), torch.autocast(args.device, torch.bfloat16):
      return model(images).argmax(1)

  return run


def noise(torch: Any, batch: int, args: argparse.Namespace) -> Any:
  images = torch.randn(batch, 3, args.side, args.side, device=args.device)
  return images.contiguous(memory_format=torch.channels_last)


def timed(
  torch: Any,
  what: str,
  run: Callable[[], Any],
  batch: int,
  args: argparse.Namespace,
) -> dict[str, Any]:
  """Return the speed of a call, its first seconds and the most memory held."""
  cuda = args.device == "cuda"

  def repeat(calls: int = args.calls) -> None:
    for _ in range(calls):
      run()
    if cuda:
      torch.cuda.synchronize()

  if cuda:
    torch.cuda.reset_peak_memory_stats()
  start = time.perf_counter()
  repeat(COUNTED)
  first = time.perf_counter() - start
  wall = timing.in_turn({"run": repeat}, args.rounds, units=args.calls).wall
  seconds = wall["run"]
  row = {
    "what": what,
    "images_per_second": timing.spread([batch / s for s in seconds]),
    "milliseconds": timing.spread([1e3 * s for s in seconds]),
    f"first_{COUNTED}_calls_seconds": first,
  }
  if cuda:
    row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
  return row


if __name__ == "__main__":
  main()
