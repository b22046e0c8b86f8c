"""Run by inference/test_evaluate, a process each: a table over several devices.

python -m tests.several_processes PROCESS PROCESSES ADDRESS
"""

import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deeplax import parallel
from deeplax.data import spec as spec_lib
from deeplax.inference import evaluate
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import sweep
from deeplax.metrics import measures

CLASSES = 5
MODES = (mode_lib.Mode(), mode_lib.Mode((0.5, 1.0), flip=True))
MEASURED = measures.Measures(trimap=(1, 4), boundary=True, objects=True)


class Mixed(nn.Module):
  """A mixture of the colors; every scale and flip gives something else."""

  @nn.compact
  def coarse(self, images, *, train: bool):
    mix = self.param("mix", nn.initializers.zeros, (3, CLASSES))
    shifted = jnp.roll(images, 1, axis=2)
    return jnp.dot((images + shifted) / 64 - 4, mix)


class Seven:
  """Seven pictures: no number of processes from 2 to 6 divides them."""

  spec = spec_lib.Spec(
    "toy", tuple("abcde"), tuple((9 * k, 0, 0) for k in range(CLASSES))
  )
  split = "val"

  def __len__(self):
    return 7

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (40 + index, 50, 3), np.uint8)
    label = rng.integers(0, CLASSES, image.shape[:2]).astype(np.uint8)
    label[: 3 * index] = 255
    return {"image": image, "label": label, "name": f"{index}"}


def main(process, processes, address):
  if processes > 1:
    # A busy machine keeps them waiting for each other.
    jax.distributed.initialize(
      *(address, processes, process),
      initialization_timeout=600,
      heartbeat_timeout_seconds=600,
    )
  mix = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
  # As training has them: a copy on every device of every process.
  variables = parallel.replicate({"params": {"mix": mix}}, mesh=parallel.mesh())
  predictor = predictor_lib.Predictor(
    Mixed(),
    parallel.local(variables),
    pad_value=(127.5,) * 3,
    progress=lambda _: None,
  )
  seen = []
  results = evaluate.evaluate_rows(
    sweep.Sweep(predictor, MODES, timed=False),
    Seven(),
    measured=MEASURED,
    progress=lambda _: None,
    keep=lambda row, index, *_: None if row else seen.append(index),
  )
  print(
    json.dumps(
      {"seen": seen, "devices": jax.device_count(), "results": results}
    )
  )


if __name__ == "__main__":
  main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
