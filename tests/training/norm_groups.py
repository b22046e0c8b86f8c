"""Run by test_norm_groups in its own process: norms over groups of 4 devices.

A step of the whole batch, its norms over groups of devices, against steps of
each group's images on one device, and against NumPy.
"""

import functools
import sys
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from deeplax import parallel
from deeplax.models import layers
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib

DEVICES, BATCH, CLASSES, DECAY = 4, 8, 3, 0.75
OPTIMIZER = optax.sgd(0.5)


class Tiny(nn.Module):
  """A 1x1 convolution with its norm, and scores."""

  norm: layers.Norm

  @nn.compact
  def coarse(self, images, *, train):
    x = images.astype("float32") / 32
    layer = layers.ConvNorm(4, norm=self.norm, activation="relu", name="norm")
    return nn.Dense(CLASSES, name="logits")(layer(x, train=train))


def model(group):
  return Tiny(layers.Norm(DECAY, 1e-3, axis_name=parallel.AXIS, group=group))


@functools.cache
def drawn():
  images = np.zeros((1, 5, 5, 3), np.uint8)
  init = functools.partial(Tiny(layers.Norm(DECAY, 1e-3)).init, method="coarse")
  return jax.device_get(init(jax.random.key(0), images, train=False))


@functools.cache
def batch():
  """Images whose brightness differs by group; every pixel has a label."""
  rng = np.random.default_rng(0)
  shape = (BATCH, 5, 5)
  ceiling = np.linspace(20, 256, BATCH)[:, None, None, None]
  images = (rng.random((*shape, 3)) * ceiling).astype(np.uint8)
  return {
    "image": images,
    "label": rng.integers(0, CLASSES, shape).astype(np.uint8),
  }


@functools.cache
def compiled(group, devices):
  mesh = parallel.mesh(jax.devices()[:devices])
  step = step_lib.make_train_step(model(group), OPTIMIZER)
  return mesh, parallel.pmap(step, mesh=mesh)


def stepped(group, *, devices=DEVICES, rows=slice(None)) -> Any:
  """Return the state after a step, whole on each device."""
  mesh, step = compiled(group, devices)
  state = state_lib.create(drawn(), OPTIMIZER, seed=0)
  part = {name: array[rows] for name, array in batch().items()}
  state, _ = step(
    parallel.replicate(state, mesh=mesh), parallel.shard(part, mesh=mesh)
  )
  return state


def equal(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  assert all(np.array_equal(x, y) for x, y in pairs)


def check_groups(size):
  """Groups of `size` devices: parameters and running statistics."""
  state = stepped(str(size))
  for leaf in jax.tree.leaves((state.params, state.batch_stats)):
    first, *others = [np.asarray(s.data) for s in leaf.addressable_shards]
    assert len(others) == DEVICES - 1
    assert all(np.array_equal(first, other) for other in others)
  rows = BATCH // DEVICES * size
  alone = [
    jax.device_get(stepped("all", devices=1, rows=slice(i, i + rows)))
    for i in range(0, BATCH, rows)
  ]
  # Plain gradient descent moves by the mean of the groups' gradients.
  whole = jax.device_get(state)
  for field in ("params", "batch_stats"):
    wanted = jax.tree.map(
      lambda *leaves: np.mean(leaves, 0), *(getattr(s, field) for s in alone)
    )
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
      getattr(whole, field),
      wanted,
    )
  # The running statistics: what was, and the mean over the groups of theirs.
  kernel = drawn()["params"]["norm"]["kernel"][0, 0]
  maps = (batch()["image"] / 32 @ kernel).reshape(BATCH // rows, -1, 4)
  kept = whole.batch_stats["norm"]
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  close(kept["mean"], (1 - DECAY) * maps.mean(1).mean(0))
  unbiased = maps.var(1, ddof=1).mean(0)
  close(kept["var"], DECAY + (1 - DECAY) * unbiased)
  return whole


def main():
  assert jax.device_count() == DEVICES, jax.devices()
  whole, pairs, single = (check_groups(size) for size in (4, 2, 1))
  equal(jax.device_get(stepped("all")), whole)
  equal(jax.device_get(stepped("device")), single)
  # Their statistics do differ.
  kept = [s.batch_stats["norm"]["var"] for s in (whole, pairs, single)]
  assert not np.allclose(kept[0], kept[1], rtol=1e-3)
  assert not np.allclose(kept[1], kept[2], rtol=1e-3)
  print("checked")


if __name__ == "__main__":
  sys.exit(main())
