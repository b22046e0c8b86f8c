"""Learning rates, weight decay and multipliers against the reference."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.training import optim
from deeplax.training import state as state_lib
from tests import shared
from tests.training import optimizers

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
  path = shared.path("golden/tf_deeplab/ops.json")
  cases = json.loads(path.read_text())["lr"]
  # Every case: poly with slow starts and decay_steps, step, cosine.
  assert len(cases) == 7
  for case in cases:
    lr = optimizers.learning_rate(
      schedule=case["policy"],
      base_lr=case["base_lr"],
      total_steps=case["num_steps"],
      power=case["power"],
      end_lr=case.get("end", 0.0),
      decay_steps=int(case.get("decay_steps", 0)),
      step_every=case["decay_step"],
      step_factor=case["decay_factor"],
      slow_start=case.get("burn", "constant"),
      slow_start_steps=case.get("slow", 0),
      slow_start_lr=case.get("slow_lr", 1e-4),
    )
    for step, value in case["values"]:
      # One float32 rounding of 1 - t/T is 6e-8: 0.2% of what is left of the
      # rate at the last step, 1e-6 of base_lr anywhere.
      np.testing.assert_allclose(lr(step), value, rtol=1e-6, atol=7e-9)


def test_the_cosine_schedule_ends_at_end_lr():
  lr = optimizers.learning_rate(
    schedule="cosine", base_lr=0.1, total_steps=100, end_lr=0.01
  )
  np.testing.assert_allclose(
    [lr(0), lr(50), lr(100), lr(200)], [0.1, 0.055, 0.01, 0.01], rtol=1e-5
  )


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"schedule": "linear"}, "optim.schedule 'linear' not in"),
    ({"schedule": "step", "step_every": 0}, "step_every 0, step_factor 0.1"),
    ({"schedule": "step", "step_factor": 1.5}, "step_factor 1.5: the step"),
    ({"schedule": "poly", "slow_start": "slow"}, "slow_start 'slow' not in"),
    ({"schedule": "poly", "decay_steps": -1}, "optim.decay_steps -1"),
  ],
)
def test_impossible_schedules_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    optimizers.learning_rate(base_lr=1.0, total_steps=1, **settings)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"name": "lamb"}, r"optim.name 'lamb' not in \['adamw', 'momentum'\]"),
    ({"clip_norm": -1.0}, "optim.clip_norm -1.0: give 0"),
    ({"trained": ("neck",)}, r"optim.trained: \['neck'\] not in"),
    ({"multiplied": "all"}, r"optim.multiplied 'all' not in"),
  ],
)
def test_impossible_optimizers_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    optimizers.build(
      lambda step: 0.1, momentum=0.9, weight_decay=0.0, **settings
    )


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


def test_the_classifier_alone_is_multiplied_when_asked_for():
  params = {
    "backbone": {"conv": {"kernel": 0, "bias": 0}},
    "head": {
      "branch0": {"fc6": {"kernel": 0, "bias": 0}},
      "logits0": {"kernel": 0, "bias": 0},
    },
    "decoder": {"image_conv1": {"kernel": 0}},
    "logits": {"kernel": 0},
  }
  factors = optim.multipliers(
    params, head=10.0, bias=2.0, multiplied="classifier"
  )
  assert factors["head"]["branch0"]["fc6"] == {"kernel": 1.0, "bias": 2.0}
  assert factors["head"]["logits0"] == {"kernel": 10.0, "bias": 20.0}
  assert factors["logits"] == factors["decoder"]["image_conv1"]
  assert factors["logits"] == {"kernel": 10.0}
  assert factors["backbone"]["conv"] == {"kernel": 1.0, "bias": 2.0}


def test_parts_that_do_not_train_stay_as_they_are():
  tx = optimizers.build(
    lambda step: 0.1, momentum=0.9, weight_decay=0.01, trained=("logits",)
  )
  params = run(tx, [0.3, -0.2])
  jax.tree.map(
    np.testing.assert_array_equal, params["backbone"], PARAMS["backbone"]
  )
  assert np.all(params["logits"]["kernel"] != PARAMS["logits"]["kernel"])


def test_updates_equal_momentum_sgd_written_out():
  tx = optimizers.build(
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


@pytest.mark.parametrize("name", optim.NAMES)
def test_a_run_starts_where_the_optimizer_would(name):
  tx = optimizers.build(lambda step: 0.1, name=name, clip_norm=1.0)
  state = state_lib.create({"params": PARAMS}, tx, seed=0)
  wanted = tx.init(PARAMS)
  assert jax.tree.structure(state.opt_state) == jax.tree.structure(wanted)
  for ours, theirs in zip(
    jax.tree.leaves(state.opt_state), jax.tree.leaves(wanted), strict=True
  ):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def run(tx, gradients):
  """Return the logits' kernel after updates by equal gradients."""
  params, state = PARAMS, tx.init(PARAMS)
  for grad in gradients:
    grads = jax.tree.map(lambda p, g=grad: jnp.full_like(p, g), params)
    updates, state = tx.update(grads, state, params)
    params = jax.tree.map(jnp.add, params, updates)
  return params


def test_nesterov_looks_ahead():
  tx = optimizers.build(
    lambda step: 0.1, momentum=0.9, nesterov=True, weight_decay=0.0
  )
  value, velocity = 1.0, 0.0
  for grad in (0.3, -0.2):
    velocity = 0.9 * velocity + grad
    value -= 0.1 * (grad + 0.9 * velocity)
  params = run(tx, [0.3, -0.2])
  np.testing.assert_allclose(params["logits"]["kernel"], value, rtol=1e-6)


def test_adamw_equals_the_paper_written_out():
  # 1711.05101, algorithm 2: decay acts on the parameter, outside the moments.
  tx = optimizers.build(
    lambda step: 0.1,
    name="adamw",
    momentum=0.9,
    second_moment=0.99,
    weight_decay=0.05,
    head_multiplier=2.0,
  )
  gradients = [0.3, -0.2, 0.5]
  kernel, scale = 1.0, 1.0
  m, v = 0.0, 0.0
  for t, grad in enumerate(gradients, start=1):
    m = 0.9 * m + 0.1 * grad
    v = 0.99 * v + 0.01 * grad**2
    step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    kernel -= 0.1 * 2.0 * (step + 0.05 * kernel)
    scale -= 0.1 * step
  params = run(tx, gradients)
  np.testing.assert_allclose(params["logits"]["kernel"], kernel, rtol=1e-5)
  np.testing.assert_allclose(
    params["backbone"]["conv1"]["scale"], scale, rtol=1e-5
  )


def test_clipping_bounds_the_norm_of_the_whole_gradient():
  count = sum(x.size for x in jax.tree.leaves(PARAMS))
  tx = optimizers.build(
    lambda step: 1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.5
  )
  small, large = 0.1 / np.sqrt(count), 10 / np.sqrt(count)
  for grad, norm in ((small, 0.1), (large, 0.5)):
    grads = jax.tree.map(lambda p, g=grad: jnp.full_like(p, g), PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    # The logits' bias goes at twice the rate, after clipping.
    updates["logits"]["bias"] = updates["logits"]["bias"] / 2
    size = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(updates)))
    np.testing.assert_allclose(size, norm, rtol=1e-5)
