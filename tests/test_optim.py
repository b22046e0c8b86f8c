"""Learning rates, weight decay and multipliers against the reference."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax import optim
from tests import shared

PARAMS = {
  "backbone": {
    "conv1": {
      "kernel": jnp.ones((3, 3, 3, 2)),
      "scale": jnp.ones(2),
      "offset": jnp.ones(2),
    },
    "block": {"depthwise_kernel": jnp.ones((3, 3, 1, 2))},
  },
  "logits": {"kernel": jnp.ones((1, 1, 2, 4)), "bias": jnp.ones(4)},
}


def test_learning_rates_equal_the_reference():
  folder = shared.path("golden/tf_deeplab")
  cases = json.loads((folder / "ops.json").read_text())["lr"]
  known = {
    "policy", "base_lr", "num_steps", "power", "values", "slow", "slow_lr",
    "decay_step", "decay_factor",
  }  # fmt: skip
  used = [c for c in cases if c["policy"] == "poly" and not set(c) - known]
  assert len(used) == 2  # without and with a slow start
  for case in used:
    lr = optim.learning_rate(
      schedule="poly",
      base_lr=case["base_lr"],
      total_steps=case["num_steps"],
      power=case["power"],
      slow_start_steps=case.get("slow", 0),
      slow_start_lr=case.get("slow_lr", 0.0),
    )
    for step, value in case["values"]:
      # One float32 rounding of 1 - t/T is 6e-8: 0.2% of what is left of the
      # rate at the last step, 1e-6 of base_lr anywhere.
      np.testing.assert_allclose(lr(step), value, rtol=1e-6, atol=7e-9)


def test_an_unknown_schedule_is_refused():
  with pytest.raises(ValueError, match="schedule 'linear' not in"):
    optim.learning_rate(schedule="linear", base_lr=1.0, total_steps=1)


def test_only_dense_kernels_decay():
  mask = optim.decayed(PARAMS)
  assert mask == {
    "backbone": {
      "conv1": {"kernel": True, "scale": False, "offset": False},
      "block": {"depthwise_kernel": False},
    },
    "logits": {"kernel": True, "bias": False},
  }


def test_head_and_bias_multipliers_multiply():
  factors = optim.multipliers(PARAMS, head=10.0, bias=2.0)
  assert factors["logits"] == {"kernel": 10.0, "bias": 20.0}
  assert set(jax.tree.leaves(factors["backbone"])) == {1.0}


def test_updates_equal_momentum_sgd_written_out():
  tx = optim.build(
    lambda step: 0.1 / (1 + step),
    momentum=0.9,
    weight_decay=0.01,
    head_multiplier=10.0,
  )
  params, state = PARAMS, tx.init(PARAMS)
  kernel, velocity = 1.0, 0.0
  for step, grad in enumerate([0.3, -0.2, 0.5]):
    grads = jax.tree.map(lambda p, g=grad: jnp.full_like(p, g), params)
    updates, state = tx.update(grads, state, params)
    params = jax.tree.map(jnp.add, params, updates)
    velocity = 0.9 * velocity + 10.0 * (grad + 0.01 * kernel)
    kernel -= 0.1 / (1 + step) * velocity
  np.testing.assert_allclose(params["logits"]["kernel"], kernel, rtol=1e-6)
