"""Run by test_parallel in its own process: one run on one and on 8 devices.

What `four_devices` compares is printed as well.
"""

import functools
import tempfile
from typing import Any

import grain
import jax
import numpy as np

from deeplax import parallel
from deeplax.models import build
from deeplax.models import layers
from deeplax.models import variables as variables_lib
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from deeplax.workdir import saves
from tests.models import networks
from tests.training import four_devices
from tests.training import optimizers

BATCH, SIZE, CLASSES, STEPS = 16, (33, 33), 5, 3


def batches():
  rng = np.random.default_rng(0)
  for _ in range(STEPS):
    labels = rng.integers(0, CLASSES, (BATCH, *SIZE)).astype(np.uint8)
    # Uneven: example i has i/BATCH of its rows ignored, the last one all.
    for i in range(BATCH):
      labels[i, : (SIZE[0] * i + BATCH - 1) // (BATCH - 1)] = 255
    yield {
      "image": rng.integers(0, 256, (BATCH, *SIZE, 3)).astype(np.uint8),
      "label": labels,
    }


@functools.cache
def start():
  """Return the step of one device and the first state, which is not donated."""
  config = networks.config(
    **networks.SMALL,
    atrous_rates=(),
    decoder__low_level_channels=4,
    batch_norm__decay=0.9,
  )
  model: Any = build.from_config(
    config, num_classes=CLASSES, axis_name=parallel.AXIS
  )
  norm = layers.Norm(decay=0.9, eps=1e-3, axis_name=parallel.AXIS)
  model = model.clone(backbone=networks.Tiny(norm))
  tx = optimizers.build(lambda _: 0.01, momentum=0.9, weight_decay=1e-4)
  variables = variables_lib.initial_variables(model, seed=0)
  state = jax.device_get(state_lib.create(variables, tx, seed=0))
  return step_lib.make_train_step(model, tx), state


def by_parallel(devices):
  mesh = parallel.mesh(devices)
  step, state = start()
  mapped = parallel.pmap(step, mesh=mesh)
  state = parallel.replicate(state, mesh=mesh)
  for batch in batches():
    state, metrics = mapped(state, parallel.shard(batch, mesh=mesh))
  for leaf in jax.tree.leaves(state.batch_stats):
    copies = [np.asarray(s.data) for s in leaf.addressable_shards]
    assert all(np.array_equal(copies[0], c) for c in copies[1:])
  return jax.device_get((state, metrics.compute()))


def by_jax_pmap():
  count = jax.device_count()
  step, state = start()
  mapped = jax.pmap(step, axis_name=parallel.AXIS)
  state = jax.tree.map(lambda x: np.stack([np.asarray(x)] * count), state)
  for batch in batches():
    split = {k: v.reshape(count, -1, *v.shape[1:]) for k, v in batch.items()}
    state, metrics = mapped(state, split)
  found = jax.device_get((state, metrics))
  state, metrics = jax.tree.map(lambda x: x[0], found)
  return jax.device_get((state, metrics.compute()))


def difference(a, b):
  """Largest difference of two states, relative to each array's largest."""
  return max(
    np.max(np.abs(np.asarray(x, np.float64) - y)) / (np.max(np.abs(y)) + 1e-3)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    if np.size(x)
  )


def restored_on_one(state):
  """Save from 8 devices, restore on one; return the host's copy."""
  eight, one = parallel.mesh(), parallel.mesh(jax.devices()[:1])
  numbers = iter(grain.MapDataset.range(9).to_iter_dataset())
  next(numbers)
  with tempfile.TemporaryDirectory() as folder:
    checkpoints = saves.Checkpoints(folder, keep=2)
    checkpoints.save(
      3, parallel.replicate(state, mesh=eight), numbers.get_state()
    )
    checkpoints.settle()
    again = iter(grain.MapDataset.range(9).to_iter_dataset())
    whole = parallel.replicated(one)
    found = checkpoints.restore(3, state, again, sharding=whole)
    checkpoints.close()
  assert next(again) == 1
  assert jax.tree.leaves(found)[1].devices() == set(jax.devices()[:1])
  return jax.device_get(found)


def compared():
  """Yield what test_parallel asserts, by name."""
  eight, eight_metrics = by_parallel(jax.devices())
  pmapped, pmapped_metrics = by_jax_pmap()
  one, one_metrics = by_parallel(jax.devices()[:1])
  assert int(eight.step) == STEPS
  yield "pmap", difference(eight, pmapped)
  # Saving takes as long as there are arrays: this state has few.
  few, _ = four_devices.run(4, **four_devices.CASES[four_devices.AVERAGE])
  yield "restored", difference(restored_on_one(few), few)
  yield "one", difference(eight.variables, one.variables)
  yield "momentum", difference(eight.opt_state, one.opt_state)
  for name, metrics in (
    *(("loss of eight", eight_metrics), ("loss of pmap", pmapped_metrics)),
    ("loss of one", one_metrics),
  ):
    yield name, float(metrics["loss"])


if __name__ == "__main__":
  assert jax.device_count() == 8, jax.devices()
  for name, value in (*compared(), *four_devices.compared()):
    print(f"{name}: {value}")
