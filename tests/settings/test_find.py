"""Configurations are found by name or path, wherever one stands."""

import json
import os
import re
import subprocess
import sys

import pytest

from deeplax import errors
from deeplax.settings import find
from tests import conftest

SHIPPED = conftest.ROOT / "configs"


def test_a_file_that_exists_is_taken_as_it_is(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  mine = tmp_path / "configs" / "quickstart.py"
  mine.parent.mkdir()
  mine.write_text("")
  assert find.config("configs/quickstart.py").resolve() == mine
  assert find.config(str(mine)) == mine
  assert find.config("quickstart") == SHIPPED / "quickstart.py"


def test_deeplaxs_own_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for text in ("camvid", "camvid.py", "configs/camvid.py", "configs/camvid"):
    assert find.config(text) == SHIPPED / "camvid.py", text


def test_others_are_refused_with_the_names_there_are():
  wrong = ("camvi", "", "common", "configs/none.py", "mine/camvid.py", "../x")
  for text in wrong:
    try:
      found = find.config(text)
    except errors.InputError as error:
      assert f"no configuration {text!r}:" in str(error)
      assert re.search(", camvid,|camvid, ", str(error)), text
    else:
      pytest.fail(f"{text!r} is taken for {found}")


def test_files_beside_a_misspelled_one_are_named(tmp_path):
  (tmp_path / "mine.py").write_text("")
  with pytest.raises(errors.InputError, match="In .*mine.py"):
    find.config(str(tmp_path / "min.py"))


def python(code, folder):
  """Run code in a folder, which Python then looks in first."""
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=folder, env=os.environ | {"PYTHONPATH": str(conftest.ROOT)},
    capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_configurations_and_tables_load_beside_packages_of_these_names(
  tmp_path,
):
  for name in ("configs", "experiments"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('theirs')")
  code = (
    "import json, sys\n"
    "from deeplax.settings import find\n"
    "for name in find.names():\n"
    "  find.load(find.own(name)).get_config('debug')\n"
    "table = find.load(find.shipped('experiments') / 'v3plus_table1.py')\n"
    "print(json.dumps([len(find.names()), table.BASE, 'jax' in sys.modules]))\n"
  )
  assert python(code, tmp_path) == [13, "v3plus_resnet101", False]


def test_settings_load_nothing_but_ml_collections(tmp_path):
  code = (
    "import json, sys, ml_collections\n"
    "before = {*sys.modules}\n"
    "from deeplax.settings import defaults, find, protocols, published\n"
    "new = {name.partition('.')[0] for name in {*sys.modules} - before}\n"
    "print(json.dumps(sorted(new - sys.stdlib_module_names)))\n"
  )
  assert python(code, tmp_path) == ["deeplax"]
