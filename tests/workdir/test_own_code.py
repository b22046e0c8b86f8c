"""A run keeps the files that it ran, and later commands want the same ones."""

import json
import shutil

import pytest

from deeplax import errors
from deeplax.settings import defaults
from deeplax.settings import own
from deeplax.workdir import own_code


@pytest.fixture
def config(tmp_path):
  for folder in ("a", "b"):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "m.py").write_text(f"class D:\n  x = '{folder}'\n")
  c = defaults.base()
  c.model.decoder.kind = f"{tmp_path}/a/m.py:D"
  c.model.head = f"{tmp_path}/a/m.py:D"
  c.train.loss = f"{tmp_path}/b/m.py:D"
  own.trust(c)
  return c


def test_the_copies_are_what_was_run(config, tmp_path):
  run = tmp_path / "run"
  for reference in own.references(config):
    own.load(reference)
  before = (tmp_path / "a/m.py").read_bytes()
  (tmp_path / "a/m.py").write_text("class D: ...")
  own_code.keep(run, config)
  index = json.loads((run / "code/own.json").read_text())
  assert set(index) == {"model.head", "model.decoder.kind", "train.loss"}
  for entry in index.values():
    copy = (run / "code" / entry["copy"]).read_bytes()
    assert own.sha256(copy) == entry["sha256"]
  assert (run / "code/m.py").read_bytes() == before
  assert len(list((run / "code").iterdir())) == 3  # two files, one index
  with pytest.raises(errors.InputError, match="a/m.py has changed since"):
    own_code.refuse_other(run, config)
  (tmp_path / "a/m.py").write_bytes(before)
  own_code.refuse_other(run, config)
  own_code.keep(tmp_path / "other", defaults.base())
  assert not (tmp_path / "other").exists()


def test_a_file_that_is_gone_is_not_run_from_its_copy(config, tmp_path):
  run = tmp_path / "run"
  own_code.keep(run, config)
  (tmp_path / "b/m.py").unlink()
  own_code.refuse_other(run, config, part="model.")  # it predicts without
  with pytest.raises(
    errors.InputError, match=r"b/m.py is gone, .*run/code/\w+_m.py is what it w"
  ):
    own_code.refuse_other(run, config)
  shutil.rmtree(run / "code")
  with pytest.raises(errors.InputError, match=r"own.json.*train again, in ano"):
    own_code.refuse_other(run, config)
