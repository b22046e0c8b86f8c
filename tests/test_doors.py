"""Commands answer before anything heavy is loaded, and some never load it."""

import ast
import importlib
import pathlib

from etils import epath
import pytest

from deeplax import __main__ as overview
from deeplax import atomic
from deeplax import commands
from deeplax.data import spec as spec_lib
from deeplax.pretrained import tables
from deeplax.settings import defaults
from deeplax.settings import published
from deeplax.workdir import settings
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


NO_DATA = ("--config=own_data", "--config.data.root=nowhere")
PREDICT = ("--workdir=run", "--out=out")
# Of each command what is wrong, and words of the message. "run" is a workdir
# without a checkpoint, "whole" has one; the extras are not installed.
WRONG = (
  ("check_data", ("nowhere",), "no data set in nowhere"),
  ("convert", ("--to=timm", "--workdir=nowhere", "--out=a.npz"), "config.json"),
  ("convert", ("--to=timm", "--workdir=run", "--out=a.pt"), "needs torch"),
  ("convert", ("--to=timm", "--workdir=run", "--out=a.npz"), "no checkpoint"),
  ("crf.search", ("--workdir=nowhere",), "no config.json in nowhere"),
  ("crf.search", ("--workdir=run", "--split=tset"), "'tset'"),
  ("curves", ("--out=out", "nowhere"), "no workdir or result nowhere"),
  ("data.build", ("voc2012", "--source=nowhere"), "nowhere is no folder"),
  ("data.shapes", ("--out=run/spec.json",), "run/spec.json cannot be written"),
  ("evaluate", ("--workdir=nowhere",), "no config.json in nowhere"),
  ("evaluate", ("--workdir=run", "--crf_file=nowhere"), "nowhere"),
  ("evaluate", ("--workdir=run", "--window=8"), "window 8 must be"),
  ("evaluate", ("--workdir=run", "--step=7"), "no step 7"),
  ("evaluate", ("--workdir=run",), "no checkpoint in run"),
  ("main", NO_DATA, "nowhere (no such folder)"),
  ("overfit_check", NO_DATA, "nowhere (no such folder)"),
  ("predict", ("--workdir=nowhere", "--out=out", "a.jpg"), "no config.json"),
  ("predict", (*PREDICT, "--batch=-1", "a.jpg"), "--batch is -1"),
  ("predict", (*PREDICT, "a.jpg"), "no checkpoint in run"),
  ("predict", ("--workdir=whole", "--out=out", "nowhere"), "nowhere"),
  ("predict", ("--workdir=whole", "--out=a.jpg/b", "a.jpg"), "a.jpg/b cannot"),
  (
    "predict",
    ("--workdir=whole", "--out=out", "--list=no"),
    "no no: each line",
  ),
  (
    "predict",
    ("--workdir=whole", "--out=out", "--classes=x", "a"),
    "class 'x'",
  ),
  ("recalibrate", ("--workdir=nowhere",), "no config.json in nowhere"),
  ("recalibrate", ("--workdir=run",), "no checkpoint in run"),
  ("score", ("nowhere", "nowhere", "--dataset=voc2012"), "nowhere"),
  (
    "submit",
    ("--server=voc", "--workdir=run", "--out=a.tgz", "--images=nowhere"),
    "--images=nowhere is not a VOCdevkit",
  ),
)
START = "--config=v3plus_mobilenet_v2:debug"
INTO = ("convert", "--source=torchvision", "--workdir=new", START)
CONFIGURED = (
  ((*INTO, "--checkpoint=nowhere"), "no file nowhere"),
  ((*INTO, "--checkpoint=a.pth"), "needs torch"),
  ((*INTO, "--checkpoint=b.index"), "needs tensorflow"),
  (
    ("convert", "--source=deeplax", "--workdir=new", START, "--checkpoint=run"),
    "no checkpoint in run",
  ),
  (
    (*INTO, "--checkpoint=nowhere", "--source_classes=names.json"),
    "no names.json",
  ),
  (("main", START, "--config.init.checkpoint=run"), "run has no checkpoint"),
  (("main", START, "--config.log.tensorboard=True"), '".[tf]"'),
  (("main", START, "--config.train.batch_size=0"), "train.batch_size 0"),
  (
    ("overfit_check", START, "--config.train.batch_size=0"),
    "train.batch_size 0",
  ),
)
# absl's flags are parsed once in a process: a process for each of these.
ALL_WRONG = [
  *([c for c in WRONG if "--config=own_data" not in c[1]],),
  *([c] for c in WRONG if "--config=own_data" in c[1]),
  *([(name, words, text)] for (name, *words), text in CONFIGURED),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with a workdir and the files of WRONG."""
  folder = tmp_path_factory.mktemp("wrong")
  config = defaults.base()
  config.data.name, config.data.train_split = "shapes", "train"
  for name in ("run", "whole"):
    workdir = epath.Path(folder / name)
    settings.write_config_and_classes(workdir, config, spec_lib.SHAPES)
  atomic.write_json(folder / "whole/checkpoints/1/sha256.json", {})
  for name in ("a.jpg", "a.pth", "b.index"):
    (folder / name).touch()
  return folder


@pytest.mark.parametrize("cases", ALL_WRONG, ids=lambda cases: cases[0][0])
def test_what_needs_no_network_is_told_before_jax_is_loaded(folder, cases):
  have = house.loaded_by(
    "import contextlib, importlib, io, os, sys\n"
    f"sys.path.insert(0, os.getcwd()); os.chdir({str(folder)!r})\n"
    "sys.modules |= dict.fromkeys(('tensorboard', 'tensorflow', 'torch'))\n"
    f"for name, words, text in {cases!r}:\n"
    "  door = importlib.import_module(f'deeplax.{name}')\n"
    "  said = io.StringIO()\n"
    "  sys.argv = [name, *words]\n"
    "  try:\n"
    "    with contextlib.redirect_stderr(said):\n"
    "      door.main()\n"
    "  except SystemExit as end:\n"
    "    assert end.code == 2, (name, words, end.code, said.getvalue())\n"
    "  assert text in said.getvalue(), (name, words, said.getvalue())\n"
    "  assert 'jax' not in sys.modules, (name, words)"
  )
  assert "deeplax.errors" in have and "jax" not in have


def test_each_command_that_can_be_wrong_is_among_them():
  tried = {case[0] for cases in ALL_WRONG for case in cases}
  assert tried == {*overview.commands()} - {"doctor"}


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


def overview_of(*words: str) -> int:
  """Run `python -m deeplax WORDS`; return its status."""
  with pytest.raises(SystemExit) as end:
    overview.main([*words])
  return int(end.value.code or 0)


@pytest.mark.parametrize("program", ["deeplax", "python -m deeplax"])
def test_all_commands_are_listed_with_one_line_each(
  program, capsys, monkeypatch
):
  monkeypatch.setattr("sys.argv", [f"bin/{program.rpartition(' ')[2]}"])
  if " " in program:
    monkeypatch.setattr("sys.argv", ["deeplax/__main__.py"])
  printed = set()
  for words in ((), ("--help",), ("-h",), ("ablation",)):
    assert overview_of(*words) == 0
    printed.add(capsys.readouterr().out)
  first, *lines = printed.pop().splitlines()
  assert not printed
  assert first == f"usage: {program} NAME [--help], where NAME is"
  assert "  predict                 Label pictures" in lines
  assert "  train                   Train a model" in lines
  assert "  ablation run            Run an experiment" in lines
  names = {line.split()[0] for line in lines}
  assert names == {*map(commands.name, overview.commands()), "ablation"}
  assert all(25 < len(line) <= 80 for line in lines)


def test_what_is_listed_is_a_command():
  for name in overview.commands():
    door = importlib.import_module(f"deeplax.{name}")
    assert callable(door.main) and door.__file__, name
    tree = ast.parse(pathlib.Path(door.__file__).read_text())
    # __name__ == "__main__"
    assert isinstance(tree.body[-1], ast.If), name


@pytest.mark.parametrize(
  "words, told",
  [
    (["evalute"], "no command 'evalute': did you mean evaluate?"),
    (["check_dat"], "did you mean check-data?"),
    (["--workdir=a"], "python -m deeplax lists all"),
    (
      ["ablation", "reprot"],
      "no command ablation 'reprot': did you mean report",
    ),
  ],
)
def test_a_name_that_is_no_command_is_told_with_the_nearest(
  words, told, capsys
):
  assert overview_of(*words) == 2
  assert told in capsys.readouterr().err


def test_the_command_runs_others_with_dashes_dots_and_underscores(capsys):
  for name in ("check-data", "check_data"):
    assert overview_of(name, "nowhere") == 2
    assert "no data set in nowhere" in capsys.readouterr().err
  for name in ("train", "main"):
    assert overview_of(name, "--workdir=a", "--workdir=b") == 2
    assert "set the same" in capsys.readouterr().err
  for name in ("build-data", "data.build"):
    assert overview_of(name, "voc2012", "--source=nowhere") == 2
    assert "nowhere is no folder" in capsys.readouterr().err
  assert overview_of("ablation", "report", "v3plus_table9") == 2
  assert "no experiment 'v3plus_table9'" in capsys.readouterr().err


def test_the_console_command_gives_help_in_its_own_words_and_without_jax():
  have = house.loaded_by(
    "import contextlib, io, sys\n"
    "from deeplax import __main__ as overview\n"
    "sys.argv = ['bin/deeplax']\n"
    "for words in (['predict'], ['train'], ['crf-search'],\n"
    "              ['ablation', 'run']):\n"
    "  said = io.StringIO()\n"
    "  try:\n"
    "    with contextlib.redirect_stdout(said):\n"
    "      overview.main([*words, '--help'])\n"
    "  except SystemExit as end:\n"
    "    assert not end.code\n"
    "  name = ' '.join(words)\n"
    "  assert f'usage: deeplax {name} ' in said.getvalue(), said.getvalue()\n"
    "  assert f'xample: deeplax {name} ' in said.getvalue(), said.getvalue()\n"
    "  assert 'python -m' not in said.getvalue(), name"
  )
  assert "deeplax.predict" in have and not have & {"jax", "numpy"}


def test_a_command_is_named_as_it_was_typed(monkeypatch):
  for program, typed in (
    ("/usr/bin/deeplax", "deeplax check-data"),
    ("deeplax.exe", "deeplax check-data"),
    ("deeplax/check_data.py", "python -m deeplax.check_data"),
    ("", "python -m deeplax.check_data"),
  ):
    monkeypatch.setattr("sys.argv", [program])
    assert commands.typed("check_data") == typed


def test_messages_have_the_form_that_was_typed(monkeypatch):
  text = (
    "Next: python -m deeplax.data.build voc2012, or python -m deeplax.main. Or "
    "python -m experiments.run NAME, python -m deeplax.experiments.report NAME"
  )
  assert commands.as_typed(text) == text
  monkeypatch.setattr("sys.argv", ["bin/deeplax"])
  assert commands.as_typed(text) == (
    "Next: deeplax build-data voc2012, or deeplax train. Or deeplax ablation "
    "run NAME, deeplax ablation report NAME"
  )
