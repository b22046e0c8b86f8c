"""One side of benchmarks.versus_torch: a network that runs when it is told to.

  python -m benchmarks.versus_torch_side torch resnet101 step --weights=FILE

It prints a line of JSON when it is ready, and one for each line that it reads:
wall and CPU seconds of a run, and the most memory that the process has held.
The torch side writes its weights and what it makes of an image into a file; the
deeplax side reads that, and must make the same of it.
"""

import argparse
from collections.abc import Callable
import importlib
import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks import steps
from benchmarks import timing

# segmentation_models.pytorch's names of the backbones.
ENCODERS = {
  "xception65": "tu-xception65",
  "mobilenet_v2": "mobilenet_v2",
  "resnet101": "resnet101",
}
IMAGE, CROP, BATCH = 513, 257, 2
# Of the logits' largest value: float noise of a hundred layers.
SAME = 1e-3


def main() -> None:
  """Get ready, say so, and run once for each line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("side", choices=("deeplax", "torch"))
  parser.add_argument("network", choices=ENCODERS)
  parser.add_argument("what", choices=("forward", "step"))
  parser.add_argument("--weights", required=True, help="an .npz file")
  parser.add_argument("--image", type=int, default=IMAGE, help="its side")
  parser.add_argument("--crop", type=int, default=CROP, help="of training")
  args = parser.parse_args()
  run, facts = (of_torch if args.side == "torch" else of_deeplax)(args)
  run()
  say(facts)
  for _ in sys.stdin:
    start, cpu = time.perf_counter(), time.process_time()
    run()
    say(
      {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "megabytes": timing.memory(),
      }
    )


def say(row: dict[str, Any]) -> None:
  """Print a line of JSON."""
  print(json.dumps(row), flush=True)


def picture(side: int) -> np.ndarray:
  """Return an image of noise, [1, side, side, 3], in 0..255."""
  noise = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3))
  return noise.astype(np.float32)


def of_torch(
  args: argparse.Namespace,
) -> tuple[Callable[[], Any], dict[str, Any]]:
  """Return a run of PyTorch's network, eager and in channels_last."""
  torch = importlib.import_module("torch")
  smp = importlib.import_module("segmentation_models_pytorch")
  network = smp.DeepLabV3Plus(
    encoder_name=ENCODERS[args.network],
    encoder_weights=None,
    encoder_output_stride=16,
    classes=steps.CLASSES,
  )
  network = network.to(memory_format=torch.channels_last).eval()
  resized = torch.nn.functional.interpolate

  def logits(images):
    # As the network's own forward pass, but for any size: there, features are
    # resized by a factor of four, which needs sides that 16 divides.
    features = network.encoder(images)
    decoder = network.decoder
    low = decoder.block1(features[2])
    high = resized(
      decoder.aspp(features[-1]),
      size=low.shape[2:],
      mode="bilinear",
      align_corners=True,
    )
    coarse = decoder.block2(torch.cat([high, low], 1))
    return resized(
      network.segmentation_head[0](coarse),
      size=images.shape[2:],
      mode="bilinear",
      align_corners=True,
    )

  def on_device(images):
    images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    return images.contiguous(memory_format=torch.channels_last)

  image = on_device(normalized(args.network, picture(args.image)))

  def forward():
    with torch.inference_mode():
      return logits(image)

  # Random weights: norms that have seen the image keep values of one size.
  network.train()
  with torch.no_grad():
    for _ in range(2):
      logits(torch.cat([image, image.flip(3)]))
  network.eval()
  arrays = {k: v.numpy() for k, v in network.state_dict().items()}
  seen = forward().numpy().transpose(0, 2, 3, 1)
  np.savez(args.weights, **arrays, **{"seen logits": seen})
  facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
  if args.what == "forward":
    return forward, facts

  network.train()
  optimizer = torch.optim.SGD(
    network.parameters(), lr=0.007, momentum=0.9, weight_decay=4e-5
  )
  rng = np.random.default_rng(1)
  crops = rng.uniform(-1, 1, (BATCH, args.crop, args.crop, 3))
  crops = on_device(crops.astype(np.float32))
  labels = torch.from_numpy(
    rng.integers(0, steps.CLASSES, (BATCH, args.crop, args.crop))
  )

  def step():
    optimizer.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(
      logits(crops), labels, ignore_index=255
    )
    loss.backward()
    optimizer.step()
    return loss.item()

  return step, facts


def normalized(network: str, images: np.ndarray) -> np.ndarray:
  """Return images as the network's backbone takes them."""
  model = steps.network(configuration(network))
  mean, std = (np.asarray(x, np.float32) for x in (model.mean, model.std))
  return (images - mean) / std


def configuration(network: str) -> Any:
  """Return the configuration of the same network here, in float32."""
  name = f"published:smp_deeplabv3plus_{network}"
  return steps.config(name, dtype="float32")


def of_deeplax(
  args: argparse.Namespace,
) -> tuple[Callable[[], Any], dict[str, Any]]:
  """Return a run of deeplax's network, with the weights of the torch side."""
  import jax

  from deeplax import parallel
  from deeplax.pretrained import tables
  from deeplax.training import parts

  config = configuration(args.network)
  with np.load(args.weights) as file:
    arrays = dict(file)
  seen = arrays.pop("seen logits")
  model = parts.network(config, steps.CLASSES)
  variables = tables.convert_arrays(arrays, "smp", model=model)
  image = jax.device_put(picture(args.image))
  forward = jax.jit(lambda v, x: model.apply(v, x, train=False))
  start = time.perf_counter()
  if args.what == "forward":
    forward = forward.lower(variables, image).compile()
  compiled = time.perf_counter() - start
  error = np.abs(np.asarray(forward(variables, image)) - seen).max()
  error = float(error / np.abs(seen).max())
  if error > SAME:
    raise SystemExit(
      f"{args.network}: logits differ from torch's by {error:.1e} of their "
      "largest value: these are two networks"
    )
  facts = {"jax": jax.__version__, "difference": error}
  if args.what == "forward":
    facts["compile_seconds"] = compiled
    return lambda: jax.block_until_ready(forward(variables, image)), facts

  mesh = parallel.mesh(jax.devices()[:1])
  state = steps.state(config, mesh)
  batch = steps.batch(mesh, images=BATCH, size=args.crop)
  start = time.perf_counter()
  step = steps.step(config, mesh).lower(state, batch).compile()
  facts["compile_seconds"] = time.perf_counter() - start
  held = [state]

  def run():
    held[0], metrics = step(held[0], batch)
    jax.block_until_ready((held[0], metrics))

  return run, facts


if __name__ == "__main__":
  main()
