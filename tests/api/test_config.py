"""`deeplax.config`: by name or file, changed, and refused."""

import pathlib
from typing import Any

import ml_collections
import pytest

import deeplax
from deeplax.api import config as config_lib
from deeplax.settings import defaults
from deeplax.settings import find
from tests import conftest

FILE = """\
from deeplax.settings import defaults

def get_config({parameter}):
  c = defaults.base()
  c.train.total_steps = {steps}
  return c
"""


def test_names_and_files_are_those_of_the_command(tmp_path):
  plain = deeplax.config("quickstart")
  assert plain.train.total_steps == 600
  path = str(conftest.ROOT / "configs" / "quickstart.py")
  assert deeplax.config(path) == plain
  debug = deeplax.config("quickstart:debug")
  assert debug.train.total_steps == 4
  mine = tmp_path / "mine.py"
  mine.write_text(FILE.format(parameter="", steps=7))
  assert deeplax.config(str(mine)).train.total_steps == 7
  mine.write_text(FILE.format(parameter="arg", steps="int(arg)"))
  assert deeplax.config(f"{mine}:9").train.total_steps == 9


def test_overrides_set_keys_and_nothing_else():
  found = deeplax.config(
    "v3plus_xception",
    {
      "model.output_stride": 8,
      "eval.scales": [0.5, 1.0],
      "optim.base_lr": 1,
      "eval.pad_to": None,
      "data.root": "~/data",
    },
  )
  assert (found.model.output_stride, found.eval.scales) == (8, (0.5, 1.0))
  assert found.optim.base_lr == 1.0 and found.eval.pad_to is None
  assert found.data.root == str(pathlib.Path.home() / "data")
  plain = deeplax.config("v3plus_xception")
  assert (plain.model.output_stride, plain.data.root) == (16, None)
  with pytest.raises(AttributeError):
    found.model.output_strid = 8  # locked


@pytest.mark.parametrize(
  "name, overrides, told",
  [
    ("nope", {}, "no configuration 'nope'"),
    ("quickstart:fast", {}, "quickstart:fast not in"),
    ("quickstart", {"model.heed": "aspp"}, "did you mean 'model.head'"),
    ("quickstart", {"x": 1}, "no key 'x' in a configuration: deeplax/settings"),
    ("quickstart", {"model": 1}, "no key 'model'"),
    ("quickstart", {"train.batch_size": "8"}, "train.batch_size='8'"),
    ("quickstart", {"seed": None}, "seed is None and always has a value"),
    ("quickstart", {"data.root": "~nobody-here/x"}, "no home directory"),
  ],
)
def test_what_is_wrong_is_named(name, overrides, told):
  with pytest.raises(deeplax.InputError, match="^[^\n]*$") as error:
    deeplax.config(name, overrides)
  assert told in str(error.value)


def test_a_file_of_ones_own_gets_its_whole_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = deeplax.config("quickstart", {"model.decoder.kind": "mine.py:Mine"})
  assert found.model.decoder.kind == f"{tmp_path}/mine.py:Mine"


def test_a_callers_configuration_stays_as_it_was():
  mine = deeplax.config("quickstart")
  copy = config_lib.given(mine)
  copy.train.total_steps = 1
  assert mine.train.total_steps == 600
  free = ml_collections.ConfigDict(defaults.base())
  config_lib.given(free)
  free.anything = 1  # not locked either
  with pytest.raises(deeplax.InputError, match="has a key of its own, any"):
    config_lib.given(free)
  del free.anything
  del free.model.head
  with pytest.raises(deeplax.InputError, match="lacks the key model.head"):
    config_lib.given(free)
  wrong: Any = {"model.head": "aspp"}
  # A TypeError where all calls are checked against their annotations.
  with pytest.raises((deeplax.InputError, TypeError), match="(?i)dict"):
    config_lib.given(wrong)


def test_each_configuration_of_deeplax_has_a_name():
  for name in find.names():
    assert deeplax.config(f"{name}:debug").data.name == "shapes", name
