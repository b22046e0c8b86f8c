"""The first run is convincing, and needs a network that sees far."""

import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from configs import quickstart
from deeplax import parallel
from deeplax.data import build as data_build
from deeplax.inference import evaluate
from deeplax.inference import predictor as predictor_lib
from deeplax.training import inputs
from deeplax.training import run
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from tests.training import optimizers


class Local(nn.Module):
  """Three 3x3 convolutions: 7 pixels of sight, full resolution."""

  num_classes: int

  @nn.compact
  def coarse(self, images, *, train: bool):
    del train
    x = jnp.asarray(images, jnp.float32) / 127.5 - 1
    for place in range(3):
      x = nn.relu(nn.Conv(32, (3, 3), name=f"conv{place}")(x))
    return nn.Dense(self.num_classes, name="logits")(x)


def local_miou(config):
  """mIoU of `Local` after the same steps on the same batches."""
  source = data_build.source(config.data, "train")
  model = Local(source.spec.num_classes)
  # No norm: a tenth of the rate is what it bears.
  lr = optimizers.learning_rate(
    schedule="poly",
    base_lr=config.optim.base_lr / 10,
    total_steps=config.train.total_steps,
  )
  tx = optimizers.build(lr, momentum=0.9, weight_decay=0.0)
  mesh = parallel.mesh()
  images = jnp.zeros((1, 9, 9, 3))
  variables: Any = model.init(
    jax.random.key(0), images, train=False, method=model.coarse
  )
  state = parallel.replicate(state_lib.create(variables, tx, seed=0), mesh=mesh)
  step = parallel.pmap(step_lib.make_train_step(model, tx), mesh=mesh)
  batches = data_build.train_loader(
    config, source, pad_value=(127.5, 127.5, 127.5)
  )
  for _ in range(config.train.total_steps):
    state, _ = step(state, parallel.shard(next(batches), mesh=mesh))
  predictor = predictor_lib.Predictor(
    model, state.variables, pad_value=(127.5, 127.5, 127.5)
  )
  return evaluate.evaluate(predictor, data_build.source(config.data, "val"))[
    "miou"
  ]


@pytest.mark.slow  # 4 minutes: the whole first run, and the small network's
def test_the_first_run_is_convincing_and_a_local_network_is_not(tmp_path):
  config = quickstart.get_config()
  config.lock()
  run.run(config, inputs.found(config, str(tmp_path)), workdir=str(tmp_path))
  step = config.train.total_steps
  path = tmp_path / "eval" / f"val-{step:08d}-os16-s1.0.json"
  miou = json.loads(path.read_text())["miou"]
  assert miou >= 0.75
  assert local_miou(config) <= miou - 0.2
