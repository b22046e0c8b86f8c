"""What a workdir says of its run, and other runs that are refused there."""

import json

import pytest

from deeplax import atomic
from deeplax import errors
from deeplax.data import spec as spec_lib
from deeplax.settings import defaults
from deeplax.workdir import settings


def test_other_classes_than_the_runs_are_refused(tmp_path):
  spec = spec_lib.SPECS["shapes"]
  atomic.write_json(tmp_path / "spec.json", spec.to_json())
  settings.refuse_other_classes(tmp_path, spec)
  with pytest.raises(errors.InputError, match="trained on 8 classes"):
    settings.refuse_other_classes(tmp_path, spec_lib.SPECS["camvid"])


def test_the_config_comes_back_with_its_types(tmp_path):
  text = json.loads(defaults.base().to_json())
  atomic.write_json(tmp_path / "config.json", text)
  config = settings.load_config(tmp_path)
  assert config.data.crop_size == (513, 513)
  # JSON holds lists in lists.
  assert config.model.cell == defaults.base().model.cell
  assert config.model.atrous_rates is None
  assert config.is_locked


def test_unknown_keys_of_a_config_are_refused(tmp_path):
  text = json.loads(defaults.base().to_json())
  text["model"]["outputstride"] = 8
  atomic.write_json(tmp_path / "config.json", text)
  with pytest.raises(errors.InputError, match="outputstride"):
    settings.load_config(tmp_path)
