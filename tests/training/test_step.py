"""The step and its loop, without a data set."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from deeplax import atomic
from deeplax.models import dropout
from deeplax.training import log as log_lib
from deeplax.training import losses
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from tests.training import optimizers


def test_step_metrics_average_over_steps():
  metrics = [
    step_lib.StepMetrics.single_from_model_output(
      loss=jax.numpy.float32(x), pixel_accuracy=0.5, illegal=0
    )
    for x in (1.0, 3.0)
  ]
  values = metrics[0].merge(metrics[1]).compute()
  np.testing.assert_allclose(values["loss"], 2.0)


class Dropping(nn.Module):
  """Logits that are nothing but dropout."""

  @nn.compact
  def coarse(self, images, *, train):
    scale = self.param("scale", nn.initializers.ones, (1, 1, 1, 3))
    return dropout.Dropout(0.5)(images / 255 * scale, train=train)


def test_dropout_differs_from_step_to_step_and_not_from_run_to_run():
  rng = np.random.default_rng(0)
  batch = {
    "image": rng.integers(0, 256, (1, 8, 8, 3)).astype(np.float32),
    "label": rng.integers(0, 3, (1, 8, 8)).astype(np.uint8),
  }
  tx = optimizers.build(lambda _: 0.0, momentum=0.0, weight_decay=0.0)
  variables = {"params": {"scale": np.ones((1, 1, 1, 3), np.float32)}}
  step = jax.jit(step_lib.make_train_step(Dropping(), tx, axis_name=None))
  state: Any = state_lib.create(variables, tx, seed=0)
  first, second, again = (
    float(step(state.replace(step=number), batch)[1].compute()["loss"])
    for number in (np.int32(0), np.int32(1), np.int32(0))
  )
  assert first == again != second


def test_the_log_is_cut_back_to_the_restored_step(tmp_path):
  path = tmp_path / "metrics.jsonl"
  log = log_lib.MetricLog(path, resume_step=0, write=True)
  for step in (10, 20, 30):
    log.write(step, {"loss": 1.0 / step})
  with path.open("a") as file:
    file.write('{"step": 40, "lo')  # killed while writing
  log_lib.MetricLog(path, resume_step=20, write=True)
  assert [line["step"] for line in atomic.read_jsonl(path)] == [10, 20]


def test_a_torn_line_does_not_swallow_the_next(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 10}\n{"step": 20}\n{"step": 30, "lo')
  log = log_lib.MetricLog(path, resume_step=20, write=True)
  log.write(30, {})
  log.write(40, {})
  assert [line["step"] for line in atomic.read_jsonl(path)] == [10, 20, 30, 40]


def test_json_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / "a" / "b.json"
  atomic.write_json(path, {"miou": 0.5})
  with pytest.raises(TypeError):
    atomic.write_json(path, {"miou": object()})
  assert "0.5" in path.read_text()
  assert [p.name for p in path.parent.iterdir()] == ["b.json"]


class Tiny(nn.Module):
  """A network of two 1x1 convolutions and a branch beside the last."""

  classes: int = 3

  @nn.compact
  def coarse_and_auxiliary(self, images, *, train):
    del train
    middle = nn.tanh(nn.Dense(4, name="first")(images.astype("float32") / 255))
    logits = nn.Dense(self.classes, name="last")(middle)
    return logits, nn.Dense(self.classes, name="beside")(middle[:, ::2, ::2])

  def coarse(self, images, *, train):
    return self.coarse_and_auxiliary(images, train=train)[0]


def tiny_run(*, steps=3, ema_decay=0.0, accumulate=1, **settings):
  """Return the states after each step on batches with uneven ignored parts."""
  model = Tiny()
  images = np.zeros((1, 4, 4, 3), np.uint8)
  variables: Any = model.init(
    jax.random.key(0), images, train=False, method="coarse_and_auxiliary"
  )
  tx = optimizers.build(lambda step: 0.5, momentum=0.9, weight_decay=1e-3)
  state = state_lib.create(variables, tx, seed=0, average=ema_decay > 0)
  step = jax.jit(
    step_lib.make_train_step(
      model,
      tx,
      loss=losses.Settings(**settings),
      accumulate=accumulate,
      ema_decay=ema_decay,
      axis_name=None,
    )
  )
  rng = np.random.default_rng(0)
  states, values = [state], []
  for _ in range(steps):
    labels = rng.integers(0, 3, (4, 4, 4)).astype(np.uint8)
    labels[0] = 255
    labels[1, :3] = 255
    images = rng.integers(0, 256, (4, 4, 4, 3)).astype(np.uint8)
    state, metrics = step(state, {"image": images, "label": labels})
    states.append(state)
    values.append(metrics.compute())
  return states, values


@pytest.mark.parametrize(
  ("parts", "settings"),
  [
    (2, {}),
    (4, {"auxiliary_weight": 0.4, "class_weights": (1.0, 2.0, 3.0)}),
  ],
)
def test_accumulated_parts_make_the_update_of_the_whole_batch(parts, settings):
  whole, values = tiny_run(**settings)
  split, split_values = tiny_run(accumulate=parts, **settings)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    whole[-1].params,
    split[-1].params,
  )
  for a, b in zip(values, split_values, strict=True):
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)


def test_the_average_follows_the_parameters_as_written_out():
  states, _ = tiny_run(steps=4, ema_decay=0.3)
  expected = states[0].params
  for count, state in enumerate(states[1:], start=1):
    rate = 1 - min(0.3, (1 + count) / (10 + count))
    expected = jax.tree.map(
      lambda old, new, r=rate: old + r * (new - old), expected, state.params
    )
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
      state.variables["params"],
      expected,
    )
  plain, _ = tiny_run(steps=4)
  # Averaging watches; it changes no step.
  jax.tree.map(
    np.testing.assert_array_equal, states[-1].params, plain[-1].params
  )
  assert plain[-1].variables["params"] is plain[-1].params


def test_the_auxiliary_branch_learns_only_when_it_has_a_weight():
  plain, _ = tiny_run()
  joined, _ = tiny_run(auxiliary_weight=0.4)
  before = plain[0].params["beside"]["kernel"]
  decayed = before * (1 - 0.5e-3)  # by weight decay alone, first step
  np.testing.assert_allclose(
    plain[1].params["beside"]["kernel"], decayed, rtol=1e-5
  )
  assert np.abs(joined[1].params["beside"]["kernel"] - decayed).max() > 1e-3
