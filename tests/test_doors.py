"""Commands answer before anything heavy is loaded, and some never load it."""

import ast
import importlib
import pathlib

import pytest

from deeplax import __main__ as overview
from deeplax.pretrained import tables
from deeplax.settings import published
from tests import house
from tests.data import trees

# Inside rooms that need NumPy and OpenCV themselves.
IN_DATA = ("data.build", "data.shapes")
DOORS = sorted(set(overview.commands()) - set(IN_DATA))
# absl's flags make `main` a door without argparse.
PARSERS = [name for name in DOORS if name != "main"]


def test_the_flags_of_all_commands_load_nothing_heavy():
  have = house.loaded_by(
    "import importlib, sys\n"
    f"for name in {DOORS}:\n"
    "  door = importlib.import_module(f'deeplax.{name}')\n"
    "  if name != 'main':\n"
    "    door.parser().format_help()"
  )
  heavy = {"cv2", "grain", "jax", "numpy", "orbax", "tensorflow_datasets"}
  assert not have & heavy


def test_finding_data_loads_neither_jax_nor_grain_nor_tfds():
  have = house.loaded_by(
    "import deeplax.data.build, deeplax.data.prepare.command"
  )
  assert not have & {"grain", "jax", "orbax", "tensorflow_datasets"}


def test_masks_are_scored_and_checked_without_jax(tmp_path):
  root = trees.folder(tmp_path / "data")
  labels = str(root / "labels" / "val")
  have = house.loaded_by(
    "import sys\n"
    "from deeplax import check_data, score\n"
    f"for main, words in ((score.main, [{labels!r}, {labels!r}]),\n"
    f"                    (check_data.main, [{str(root)!r}])):\n"
    "  try:\n"
    "    main(words)\n"
    "  except SystemExit as end:\n"
    "    assert not end.code, end.code"
  )
  assert {"deeplax.data.mask_folders", "deeplax.data.checks.data_set"} <= have
  assert not have & {"grain", "jax", "orbax", "tensorflow_datasets"}


def run(name: str, *words: str) -> object:
  door = importlib.import_module(f"deeplax.{name}")
  with pytest.raises(SystemExit) as end:
    door.main(list(words))
  return end.value.code


def test_help_names_the_command(capsys):
  for name in (*PARSERS, *IN_DATA):
    assert not run(name, "--help"), name
    assert f"python -m deeplax.{name}" in capsys.readouterr().out


# What each command requires, so that the wrong flag is what is wrong.
REQUIRED = {
  "check_data": ("data",),
  "convert": ("--workdir=run", "--to=timm", "--out=a.npz"),
  "crf.search": ("--workdir=run",),
  "curves": ("--out=out",),
  "data.build": ("voc2012", "--source=data"),
  "data.shapes": ("--out=out",),
  "doctor": (),
  "evaluate": ("--workdir=run",),
  "overfit_check": ("--config=configs/quickstart.py:debug",),
  "predict": ("--workdir=run", "--out=out", "a.jpg"),
  "recalibrate": ("--workdir=run",),
  "score": ("masks", "labels"),
  "submit": ("--server=voc", "--workdir=run", "--out=a.tgz"),
}


def test_a_wrong_flag_is_named_and_ends_with_2(capsys):
  for name in (*PARSERS, *IN_DATA):
    assert run(name, *REQUIRED[name], "--nonsense=1") == 2, name
    assert "nonsense" in capsys.readouterr().err, name


def test_sources_of_weights_are_those_that_have_a_table():
  assert published.SOURCES == tuple(sorted(tables.TABLES))


def test_all_commands_are_listed_with_one_line_each(capsys):
  with pytest.raises(SystemExit) as end:
    overview.main([])
  assert not end.value.code
  first, *lines = capsys.readouterr().out.splitlines()
  assert first.startswith("usage: python -m deeplax.NAME")
  assert [line.split()[0] for line in lines] == sorted(overview.commands())
  assert "  predict         Label pictures" in lines
  assert all(10 < len(line) <= 80 for line in lines)


def test_what_is_listed_is_a_command():
  for name in overview.commands():
    door = importlib.import_module(f"deeplax.{name}")
    assert callable(door.main) and door.__file__, name
    tree = ast.parse(pathlib.Path(door.__file__).read_text())
    # __name__ == "__main__"
    assert isinstance(tree.body[-1], ast.If), name


def test_the_list_takes_no_command(capsys):
  with pytest.raises(SystemExit) as end:
    overview.main(["train"])
  assert end.value.code == 2
  assert "'train'" in capsys.readouterr().err
