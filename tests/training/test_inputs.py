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


@pytest.mark.parametrize(
  ("made", "start", "shown"),
  [
    ("w.npz", "w.npz", "w.npz"),
    ("m.ckpt-7.index", "m.ckpt-7", "m.ckpt-7"),
    ("zoo/m.ckpt-7.index", "zoo", "zoo/m.ckpt-7"),
  ],
)
def test_weights_of_another_program_come_with_the_command_that_converts_them(
  tmp_path, monkeypatch, made, start, shown
):
  (tmp_path / "zoo").mkdir()
  (tmp_path / made).touch()
  monkeypatch.setattr("sys.argv", ["main", "--config=own_data"])
  config = _config()
  config.init.checkpoint = str(tmp_path / start)
  with pytest.raises(errors.InputError, match="another program's weights") as e:
    inputs.found(config, str(tmp_path / "run"))
  convert = str(e.value).splitlines()[1]
  assert convert.startswith(
    "python -m deeplax.convert --source=tf_deeplab "
    f"--checkpoint={tmp_path / shown} --config=own_data:pretrained "
  )


def test_examples_alone_need_no_split_to_evaluate(tmp_path):
  config = _config()
  config.data.eval_split = "nope"
  config.log.tensorboard = True
  assert len(inputs.examples(config)) == 16
  with pytest.raises(errors.InputError, match="nope"):
    config.log.tensorboard = False
    inputs.found(config, str(tmp_path))
