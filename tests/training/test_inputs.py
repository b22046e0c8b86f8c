"""What a training reads is examined, and nothing that it does not read."""

import pytest

from deeplax import errors
from deeplax.settings import defaults
from deeplax.training import inputs
from deeplax.workdir import layout


def _config():
  return defaults.debug(defaults.base())


def test_a_run_that_goes_on_needs_no_weights_to_start_from(tmp_path):
  config, workdir = _config(), tmp_path / "run"
  config.init.checkpoint = str(tmp_path / "gone")
  with pytest.raises(errors.InputError, match="gone has no checkpoint"):
    inputs.found(config, str(workdir))
  (workdir / layout.CHECKPOINTS / "400").mkdir(parents=True)
  assert len(inputs.found(config, str(workdir)).train) == 16


def test_examples_alone_need_no_split_to_evaluate(tmp_path):
  config = _config()
  config.data.eval_split = "nope"
  config.log.tensorboard = True
  assert len(inputs.examples(config)) == 16
  with pytest.raises(errors.InputError, match="nope"):
    config.log.tensorboard = False
    inputs.found(config, str(tmp_path))
