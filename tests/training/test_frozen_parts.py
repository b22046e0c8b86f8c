"""What a training step leaves alone: frozen norms, parts that do not train."""

import functools
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import layers
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from deeplax.workdir import checkpoint
from tests import runs
from tests import test_configs
from tests.models import networks
from tests.training import optimizers


def batch(size=8):
  rng = np.random.default_rng(0)
  return {
    "image": rng.integers(0, 256, (size, 17, 17, 3)).astype(np.uint8),
    "label": rng.integers(0, 3, (size, 17, 17)).astype(np.uint8),
  }


def tiny(*, trained=(), **settings) -> Any:
  """Return v3+'s decoder on few convolutions."""
  given = {
    "atrous_rates": (),
    "image_pooling": False,
    "dropout": 0.0,
    "decoder__convs": 1,
    "decoder__separable": False,
  }
  config = networks.config(**networks.SMALL, **given | settings)
  model = build.from_config(config, num_classes=3, trained=trained)
  return model.clone(backbone=networks.Tiny(norm=model.backbone.norm))


def after_steps(model, tx, *, steps=2, **settings):
  """Return {"params/backbone/...": (before, after)} of two steps."""
  variables = networks.drawn(model)
  step = jax.jit(
    step_lib.make_train_step(model, tx, axis_name=None, **settings)
  )
  state = state_lib.create(variables, tx, seed=0)
  for _ in range(steps):
    state, _ = step(state, batch())
  before, after = (
    flax.traverse_util.flatten_dict(tree, sep="/")
    for tree in (variables, state.trained)
  )
  assert before.keys() == after.keys()
  return {path: (before[path], after[path]) for path in before}


def moved(pairs, *ends):
  """Return which arrays of these names have changed."""
  return {
    path
    for path, (before, after) in pairs.items()
    if path.endswith(ends) and not np.array_equal(before, after)
  }


OPTIMIZERS = {
  "momentum": {"name": "momentum", "momentum": 0.9},
  "adamw": {"name": "adamw", "momentum": 0.9},
  "clipped": {"name": "momentum", "momentum": 0.9, "clip_norm": 1.0},
}


@pytest.mark.parametrize(
  "optimizer",
  [
    "momentum",
    *(pytest.param(n, marks=networks.SLOW) for n in ("adamw", "clipped")),
  ],
)
def test_a_fixed_norm_trains_nothing_and_its_kernel_does(optimizer):
  tx = optimizers.build(
    lambda step: 0.01, weight_decay=0.1, **OPTIMIZERS[optimizer]
  )
  pairs = after_steps(tiny(batch_norm__mode="fixed"), tx)
  assert not moved(pairs, "/scale", "/offset", "/mean", "/var")
  kernels = {path for path in pairs if path.endswith("kernel")}
  assert moved(pairs, "kernel") == kernels


def test_a_frozen_norm_of_v3_trains_scale_and_offset():
  tx = optimizers.build(lambda step: 0.01, momentum=0.9, weight_decay=0.1)
  pairs = after_steps(tiny(batch_norm__mode="frozen"), tx)
  assert not moved(pairs, "/mean", "/var")
  trained = {p for p in pairs if p.endswith(("/scale", "/offset"))}
  assert moved(pairs, "/scale", "/offset") == trained


# The source of v2_resnet101's rate trains convolutions alone: v2's other rows
# and its debug run from random weights beside it.
@pytest.mark.parametrize(
  "scales", [(), pytest.param((0.75, 0.5), marks=networks.SLOW)]
)
def test_v2_on_resnet_trains_neither_scale_nor_offset(short, scales):
  config = test_configs.get("v2_resnet101")
  config.model.backbone = "resnet50"
  config.model.input_scales = scales
  model: Any = build.from_config(config.model, num_classes=3)
  variables = networks.drawn(model)
  image = jnp.asarray(batch(1)["image"], jnp.float32)

  def total(params):
    logits, _ = model.apply(
      {**variables, "params": params},
      image,
      train=True,
      method="coarse",
      mutable=["batch_stats"],
    )
    return jnp.sum(logits**2)

  gradients: Any = flax.traverse_util.flatten_dict(
    jax.jit(jax.grad(total))(variables["params"]), sep="/"
  )
  for path, gradient in gradients.items():
    of_norm = path.endswith(("/scale", "/offset"))
    assert bool(np.any(np.asarray(gradient))) != of_norm, path


@pytest.mark.parametrize(
  "trained",
  [
    ("decoder", "logits"),
    pytest.param(("logits",), marks=networks.SLOW),
    pytest.param(("head", "decoder", "logits"), marks=networks.SLOW),
  ],
)
def test_parts_that_do_not_train_stay_to_the_last_statistic(trained):
  settings = {"momentum": 0.9, "weight_decay": 0.1, "trained": trained}
  tx = optimizers.build(lambda step: 0.01, **settings)
  pairs = after_steps(tiny(trained=trained), tx)
  changed = {path.split("/")[1] for path in moved(pairs, "")}
  assert changed == set(trained)
  # What trains has its statistics follow the batches.
  statistics = {p.split("/")[1] for p in moved(pairs, "/mean", "/var")}
  assert statistics == set(trained) - {"logits"}


def test_parts_that_do_not_train_normalize_as_in_evaluation():
  model = tiny(trained=("decoder", "logits"))
  variables = networks.drawn(model)
  x = jnp.asarray(batch()["image"] / 255, jnp.float32)
  for name in ("backbone", "head"):
    part = getattr(model, name)
    own = {kind: tree[name] for kind, tree in variables.items()}
    run = jax.jit(part.apply, static_argnames=("train", "mutable"))
    trains, _ = run(own, x, train=True, mutable=("batch_stats",))
    jax.tree.map(
      np.testing.assert_array_equal, trains, run(own, x, train=False)
    )
    x = trains["high"] if name == "backbone" else trains


@pytest.mark.slow  # a training
def test_a_run_trains_the_parts_that_the_key_names(trained, tmp_path):
  run = runs.train(
    tmp_path / "second",
    f"--config.init.checkpoint={trained.workdir}",
    "--config.optim.trained=('decoder', 'logits')",
  )
  assert "only of decoder and logits" in run.done.stdout
  before, after = (
    flax.traverse_util.flatten_dict(
      checkpoint.restore_variables(workdir)[0], sep="/"
    )
    for workdir in (trained.workdir, run.workdir)
  )
  pairs = {path: (before[path], after[path]) for path in before}
  changed = {path.split("/")[1] for path in moved(pairs, "")}
  assert changed == {"decoder", "logits"}


def test_the_gradient_of_what_does_not_train_clips_nothing():
  def update(scale, **settings):
    tx = optimizers.build(
      lambda step: 1.0,
      momentum=0.0,
      weight_decay=0.0,
      clip_norm=1.0,
      trained=("logits",),
      **settings,
    )
    params = {
      "backbone": {"kernel": jnp.zeros(2)},
      "logits": {"kernel": jnp.zeros(2), "bias": jnp.zeros(1)},
    }
    gradients = {
      "backbone": {"kernel": jnp.full(2, scale)},
      "logits": {"kernel": jnp.array([0.3, 0.4]), "bias": jnp.zeros(1)},
    }
    return tx.update(gradients, tx.init(params), params)[0]["logits"]["kernel"]

  for settings in ({}, {"head_multiplier": 10.0}):
    expected = -np.array([0.3, 0.4]) * settings.get("head_multiplier", 1.0)
    for scale in (0.0, 100.0):
      np.testing.assert_allclose(update(scale, **settings), expected, rtol=1e-6)


def test_what_trains_changes_nothing_of_the_state_s_form():
  params = {"backbone": {"kernel": jnp.zeros(2)}}
  one, other = (
    optimizers.build(
      lambda step: 1.0,
      momentum=0.9,
      weight_decay=0.0,
      clip_norm=1.0,
      trained=trained,
    ).init(params)
    for trained in ((), ("backbone",))
  )
  # Checkpoints name each state by its place.
  assert [type(s) for s in one] == [type(s) for s in other]


class OneNorm(nn.Module):
  """Scores of one convolution with a norm."""

  norm: layers.Norm

  @nn.compact
  def coarse(self, images, *, train):
    x = images.astype(jnp.float32) / 255
    conv = layers.ConvNorm(3, kernel=3, norm=self.norm, name="conv")
    return conv(x, train=train)


def one_step(norm, *, accumulate, size=12):
  """Return the statistics before and after a step, and the batch's images."""
  model, rows = OneNorm(norm), batch(size)
  variables: Any = model.init(
    jax.random.key(0), rows["image"], train=False, method="coarse"
  )
  stats = variables["batch_stats"]["conv"]
  stats["mean"], stats["var"] = (
    np.array([[1, -2, 3], [1, 2, 4]], np.float32) / 7
  )
  tx = optimizers.build(lambda step: 0.0, momentum=0.0, weight_decay=0.0)
  step = step_lib.make_train_step(
    model, tx, accumulate=accumulate, axis_name=None
  )
  state, _ = jax.jit(step)(state_lib.create(variables, tx, seed=0), rows)
  return variables, state.batch_stats["conv"], rows["image"]


# Decay counts steps: a batch in parts moves the statistics as far as a whole.
@pytest.mark.parametrize(
  "parts", [3, *(pytest.param(n, marks=networks.SLOW) for n in (1, 2, 6))]
)
def test_running_statistics_decay_once_per_step_in_parts_too(parts):
  norm = layers.Norm(decay=0.75, eps=1e-3)
  variables, after, images = one_step(norm, accumulate=parts)
  last = OneNorm(norm._replace(decay=0.0))  # keeps nothing but the batch's
  run: Any = functools.partial(
    last.apply, train=True, method="coarse", mutable=["batch_stats"]
  )
  seen = [
    run(variables, part)[1]["batch_stats"]["conv"]
    for part in np.split(images, parts)
  ]
  for name, before in variables["batch_stats"]["conv"].items():
    mean = np.mean([part[name] for part in seen], axis=0)
    expected = 0.75 * before + 0.25 * mean
    np.testing.assert_allclose(after[name], expected, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
  ("parts", "mode"),
  [
    (3, "frozen"),
    pytest.param(6, "frozen", marks=networks.SLOW),
    pytest.param(3, "fixed", marks=networks.SLOW),
  ],
)
def test_frozen_statistics_in_parts_stay_to_the_last_bit(parts, mode):
  norm = layers.Norm(decay=0.75, eps=1e-3, mode=mode)
  variables, after, _ = one_step(norm, accumulate=parts)
  before = variables["batch_stats"]["conv"]
  jax.tree.map(np.testing.assert_array_equal, before, after)
