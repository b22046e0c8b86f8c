"""`deeplax.train`: the command's training, in a process with other work."""

import concurrent.futures
import gc
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deeplax
from deeplax.training import state
from deeplax.workdir import checkpoint
from tests.api import test_model


def _handlers():
  numbers = (signal.SIGINT, signal.SIGTERM)
  handlers = [signal.getsignal(number) for number in numbers]
  return handlers, sys.unraisablehook, sys.excepthook, gc.get_threshold()


def _assert_equal(run, workdir):
  expected, step = checkpoint.restore_variables(workdir)
  assert run.step == step
  jax.tree.map(np.testing.assert_array_equal, run.variables, expected)


def test_it_trains_what_the_command_trains(
  trained, tmp_path, short, capsys, monkeypatch
):
  started = []

  def create(variables, *arguments, **keywords):
    # A copy: training gives up the memory of what it starts from.
    started.append(jax.tree.map(np.array, variables))
    return state_create(variables, *arguments, **keywords)

  state_create = state.create
  monkeypatch.setattr(state, "create", create)
  config = test_model._small()
  before, handlers = config.to_json(), _handlers()
  run = deeplax.train(config, tmp_path / "run")
  assert _handlers() == handlers
  assert config.to_json() == before
  _assert_equal(run, trained.workdir)
  assert "step 4/4" in capsys.readouterr().out
  (first,) = started
  _, variables = deeplax.model(config, num_classes=8)
  jax.tree.map(np.testing.assert_array_equal, dict(variables), dict(first))
  # In a thread, as servers of notebooks may do, and where it goes on.
  with concurrent.futures.ThreadPoolExecutor() as pool:
    again = pool.submit(deeplax.train, config, tmp_path / "run").result()
  assert "finished: " in capsys.readouterr().out
  _assert_equal(again, trained.workdir)
  assert _handlers() == handlers


@pytest.mark.parametrize(
  "overrides, told",
  [
    ({"train.batch_size": 0}, "train.batch_size 0"),
    ({"data.name": "folder", "data.root": "nowhere"}, "nowhere"),
    ({"init.checkpoint": "nowhere"}, "nowhere has no checkpoint"),
  ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
  overrides, told, tmp_path
):
  workdir, handlers = tmp_path / "run", _handlers()
  with pytest.raises(deeplax.InputError, match=told):
    deeplax.train(test_model._small(**overrides), workdir)
  assert not workdir.exists()
  assert _handlers() == handlers


def test_a_workdir_of_another_run_is_refused(trained_copy, short):
  with pytest.raises(deeplax.InputError, match="holds another run"):
    deeplax.train(test_model._small(seed=9), trained_copy)


def test_a_network_and_a_loss_of_ones_own_are_trained_and_loaded(
  tmp_path, short
):
  config = test_model._small()
  model, variables = deeplax.model(
    config, num_classes=8, decoder=test_model.Sum(features=8)
  )

  def nothing(logits, labels, *, ignore_label):
    # No gradient: only weight decay and the norms' statistics change.
    return jnp.zeros(labels.shape)

  run = deeplax.train(config, tmp_path / "run", model=model, loss=nothing)
  image = np.zeros((33, 33, 3), np.uint8)
  assert run(image).shape == (33, 33)
  kernel = run.variables["params"]["decoder"]["low"]["kernel"]
  before = variables["params"]["decoder"]["low"]["kernel"]
  np.testing.assert_allclose(kernel, before, rtol=1e-3)
  with pytest.raises(deeplax.InputError, match="given as a Python object"):
    deeplax.load(tmp_path / "run")
  again = deeplax.load(tmp_path / "run", model=model)
  np.testing.assert_array_equal(again(image), run(image))
