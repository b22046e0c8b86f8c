"""Called by eight_devices: every switch on one and on 4 devices.

The network has no convolution, so that this takes seconds.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from deeplax import parallel
from deeplax.models import dropout
from deeplax.training import losses
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from tests.training import optimizers

BATCH, CLASSES, STEPS = 16, 3, 3
AVERAGE = "weights, average and dropout"
CASES = {
  AVERAGE: dict(
    auxiliary_weight=0.4,
    class_weights=(1.0, 2.0, 3.0),
    ema_decay=0.5,
    rate=0.5,
  ),
  "parts": dict(accumulate=2, auxiliary_weight=0.4),
}


class Tiny(nn.Module):
  """Two 1x1 layers, dropout and a branch."""

  rate: float

  @nn.compact
  def coarse_and_auxiliary(self, images, *, train):
    x = nn.tanh(nn.Dense(4, name="first")(images.astype("float32") / 255))
    layer = dropout.Dropout(self.rate, parallel.AXIS, name="dropout")
    x = layer(x, train=train)
    logits = nn.Dense(CLASSES, name="last")(x)
    return logits, nn.Dense(CLASSES, name="beside")(x[:, ::2, ::2])

  def coarse(self, images, *, train):
    return self.coarse_and_auxiliary(images, train=train)[0]


def batches():
  rng = np.random.default_rng(0)
  for _ in range(STEPS):
    labels = rng.integers(0, CLASSES, (BATCH, 4, 4)).astype(np.uint8)
    labels[0] = 255
    labels[9:] = np.where(rng.random((7, 4, 4)) < 0.5, 255, labels[9:])
    images = rng.integers(0, 256, (BATCH, 4, 4, 3)).astype(np.uint8)
    yield {"image": images, "label": labels}


@functools.cache
def drawn():
  """Return the first variables, on the host: no step takes their memory."""
  images = np.zeros((1, 4, 4, 3), np.uint8)
  init = functools.partial(Tiny(0.0).init, method="coarse_and_auxiliary")
  return dict(jax.device_get(init(jax.random.key(0), images, train=False)))


@functools.cache
def run(devices, *, rate=0.0, accumulate=1, ema_decay=0.0, **settings):
  """Return the last state, on the host, and the loss of each step."""
  model = Tiny(rate)
  mesh = parallel.mesh(jax.devices()[:devices])
  tx = optimizers.build(
    lambda _: 0.5, momentum=0.9, weight_decay=1e-3, clip_norm=1.0
  )
  state = state_lib.create(drawn(), tx, seed=0, average=ema_decay > 0)
  step = parallel.pmap(
    step_lib.make_train_step(
      model,
      tx,
      loss=losses.Settings(**settings),
      accumulate=accumulate,
      ema_decay=ema_decay,
    ),
    mesh=mesh,
  )
  state = parallel.replicate(state, mesh=mesh)
  found = []
  for batch in batches():
    state, metrics = step(state, parallel.shard(batch, mesh=mesh))
    found.append(float(metrics.compute()["loss"]))
  return jax.device_get(state), found


def difference(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(float(np.abs(x - y).max()) for x, y in pairs)


def hardest(share):
  """Return the first loss by the rule: the hardest of each device's pixels."""
  model = Tiny(0.0)
  images, labels = next(batches()).values()
  logits: Any = model.apply(drawn(), images, train=False, method="coarse")
  chances = np.asarray(jax.nn.log_softmax(logits), np.float64)
  safe = np.where(labels == 255, 0, labels)[..., None]
  entropy = -np.take_along_axis(chances, safe, -1)[..., 0]
  entropy = np.where(labels == 255, 0, entropy).reshape(4, -1)
  chosen = np.sort(entropy, axis=1)[:, ::-1][:, : int(share * entropy[0].size)]
  return chosen.sum() / (chosen > 0).sum()


def compared():
  """Yield what test_parallel asserts, by name."""
  for name, case in CASES.items():
    one, four = run(1, **case), run(4, **case)
    yield name, difference(one, four)
  _, found = run(4, hard_pixels=0.25)
  yield "hard", abs(found[0] - hardest(0.25))
