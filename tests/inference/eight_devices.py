"""Run by test_evaluate in its own process: one pass on one and on 8 devices.

It prints as JSON what the passes gave, and which devices computed for them.
"""

from collections.abc import Iterator
import contextlib
import json
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deeplax import parallel
from deeplax.inference import evaluate
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import programs
from deeplax.inference import sizing as sizing_lib
from deeplax.inference import sweep
from deeplax.inference import windows
from deeplax.metrics import measures
from tests.inference import toy
from tests.models import networks

MODES = (mode_lib.Mode(), mode_lib.Mode((0.5, 1.0), flip=True))
MEASURED = measures.Measures(trimap=(1, 4), boundary=True)
WAYS = {
  "padded": sizing_lib.Sizing(),
  "exact": sizing_lib.Sizing("exact"),
  "windows": sizing_lib.Sizing(windows=windows.Windows(65, 16)),
}


class Mixture(nn.Module):
  """A mixture of the colors; every scale and flip gives something else."""

  @nn.compact
  def coarse(self, images, *, train: bool):
    mix = self.param("mix", nn.initializers.zeros, (3, 3))
    return jnp.dot((images + jnp.roll(images, 1, axis=2)) / 64 - 4, mix)


class Mixed(toy.Toy):
  """Eleven pictures of two padded sizes: 8 devices do not divide them."""

  def __init__(self):
    super().__init__(images=11)

  def __getitem__(self, index):
    example = super().__getitem__(index)
    if index % 4 == 3:  # wider than one bucket
      example["image"] = np.tile(example["image"], (1, 4, 1))
      example["label"] = np.tile(example["label"], (1, 4))
    return example


@contextlib.contextmanager
def placements() -> Iterator[list[tuple[list[int], list[int]]]]:
  """Note of each run its devices, and how many images each has."""
  ran, run = [], programs.Programs.run

  def noting(*args, **keywords):
    logits = run(*args, **keywords)
    shards = logits.addressable_shards
    ran.append(
      (
        sorted(s.device.id for s in shards),
        sorted({s.data.shape[0] for s in shards}),
      )
    )
    return logits

  with mock.patch.object(programs.Programs, "run", noting):
    yield ran


def predictor(model, variables, devices, **keywords):
  with mock.patch.object(jax, "local_devices", lambda: devices):
    return predictor_lib.Predictor(
      model, variables, pad_value=(127.5,) * 3, progress=toy.silent, **keywords
    )


def network():
  """Return MobileNetV2 with few layers and channels, and its variables."""
  with networks.shorten():
    model = networks.network(3, **{**networks.SMALL, "atrous_rates": ()})
    return model, networks.drawn(model)


def passes(model, variables, **keywords) -> dict:
  """Evaluate on one device and on 8; return the results and placements."""
  found = {}
  for name, devices in (
    ("one", jax.devices()[:1]),
    ("eight", jax.devices()),
  ):
    kept = []
    with placements() as ran:
      found[name] = evaluate.evaluate_rows(
        sweep.Sweep(
          predictor(model, variables, devices, **keywords), MODES, timed=False
        ),
        Mixed(),
        measured=MEASURED,
        progress=toy.silent,
        keep=lambda row, index, *_, kept=kept: kept.append((row, index)),
      )
    found[f"{name} ran"], found[f"{name} kept"] = ran, kept
  return found


def pointers(tree) -> set[int]:
  return {
    shard.data.unsafe_buffer_pointer()
    for array in jax.tree.leaves(tree)
    for shard in array.addressable_shards
  }


def main() -> None:
  mix = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
  variables = {"params": {"mix": mix}}
  found: dict[str, Any] = {
    name: passes(Mixture(), variables, sizing=sizing)
    for name, sizing in WAYS.items()
  }
  found["two each"] = passes(Mixture(), variables, batch=2)
  model, variables = network()
  image = Mixed()[0]["image"]
  with networks.shorten():
    one, eight = (
      predictor(model, variables, devices, batch=batch)(image)
      for devices, batch in ((jax.devices()[:1], 1), (jax.devices(), 2))
    )
  found["difference"] = float(jnp.abs(one - eight).max())
  # As training has them: a copy on every device, which is used as it is.
  state = parallel.replicate(variables, mesh=parallel.mesh())
  trained = predictor(model, state, jax.devices())
  found["same memory"] = pointers(trained.variables) == pointers(state)
  print(json.dumps(found))


if __name__ == "__main__":
  main()
