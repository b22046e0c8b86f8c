"""~ is the home directory in whatever flag or key takes a path."""

import argparse
import importlib
import importlib.util
import os
import pathlib
import pwd
import subprocess
import sys

import pytest

from deeplax import __main__ as overview
from deeplax import errors
from deeplax import paths
from deeplax.data import build
from deeplax.reports import trimap_curves
from deeplax.settings import defaults
from experiments import report
from experiments import run
from experiments import v3plus_table4
from tests import commands
from tests.data import trees
from tests.data.prepare import builds

HOME = "/nowhere/me"


@pytest.fixture
def _home(monkeypatch):
  monkeypatch.setenv("HOME", HOME)


@pytest.fixture
def _nobody(monkeypatch):
  """A container's user: without a home, and in no list of users."""

  def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

  monkeypatch.delenv("HOME")
  monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("_home")
def test_what_a_path_becomes(monkeypatch):
  monkeypatch.chdir("/")
  for text, expanded, absolute in (
    ("~", HOME, HOME),
    ("~/a/b", f"{HOME}/a/b", f"{HOME}/a/b"),
    ("~root/a", f"{pwd.getpwnam('root').pw_dir}/a", None),
    ("a/~/b", "a/~/b", "/a/~/b"),
    ("s3://bucket/~/a", "s3://bucket/~/a", "s3://bucket/~/a"),
  ):
    assert paths.expanded(text) == expanded
    assert paths.local(text) == pathlib.Path(expanded)
    assert absolute in (None, paths.absolute(text))


def test_a_bucket_is_a_path_where_gcsfs_is_installed(bucket):
  assert paths.expanded(f"{bucket}/~/a") == "gs://bucket/~/a"
  assert paths.absolute(f"{bucket}/~/a") == "gs://bucket/~/a"


@pytest.mark.skipif(
  importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed"
)
@pytest.mark.parametrize(
  ("command", "words"),
  [("main", (commands.DEBUG,)), ("predict", ("--out=out", "a.png"))],
)
def test_a_bucket_without_gcsfs_is_told_with_the_extra(command, words):
  done = commands.command(command, *words, "--workdir=gs://bucket/run")
  assert done.returncode == 2
  assert done.stderr == (
    "deeplax: gs://bucket/run needs the package gcsfs: install the extra, "
    'pip install -e ".[gcs]", or name a folder\n'
  )


def test_a_file_may_begin_with_a_tilde(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "~scan.png").touch()
  assert paths.expanded("~scan.png") == "~scan.png"


@pytest.mark.usefixtures("_nobody")
@pytest.mark.parametrize("text", ["~", "~/runs", "~nosuchuser/runs"])
def test_no_home_is_told_with_the_path(text):
  with pytest.raises(errors.InputError, match=f"^{text}: there is no home"):
    paths.expanded(text)
  assert paths.expanded("/whole/path") == "/whole/path"  # what it advises


@pytest.mark.usefixtures("_nobody")
def test_who_has_no_home_is_told_where_data_was_looked_for(monkeypatch):
  for variable in commands.DATA:
    monkeypatch.delenv(variable, raising=False)
  config = defaults.base()
  with pytest.raises(errors.InputError) as told:
    build.source(config.data, "val")
  assert "\n  ~/tensorflow_datasets (not set)\n" in str(told.value)


def test_who_has_no_home_prepares_data_elsewhere(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(os.path, "expanduser", lambda text: text)
  for variable in commands.DATA:
    monkeypatch.delenv(variable, raising=False)
  tree = trees.folder(tmp_path / "mine", images=1)
  words = ["folder", f"--source={tree}"]
  status, _, told = builds.run(capsys, *words)
  assert status == 2 and "give --out=DIR here, and export DEEPLAX_D" in told
  status, _, told = builds.run(capsys, *words, f"--out={tmp_path / 'out'}")
  assert status == 0, told


@pytest.mark.usefixtures("_nobody")
def test_who_is_no_user_cannot_prepare_data_and_is_told(tmp_path, capsys):
  tree = trees.folder(tmp_path / "mine", images=1)
  flags = [f"--source={tree}", f"--out={tmp_path / 'out'}"]
  status, _, told = builds.run(capsys, "folder", *flags)
  assert status == 2
  assert told.startswith(
    "deeplax: TensorFlow Datasets needs a user with a name"
  )


PARSERS = {
  **{
    name: importlib.import_module(f"deeplax.{name}").parser
    for name in overview.commands()
    if name not in ("main", "data.build", "data.shapes")
  },
  "data.build": importlib.import_module("deeplax.data.prepare.command").parser,
  "experiments.run": run.parser,
  "experiments.report": report.parser,
  "experiments.v3plus_table4": v3plus_table4.parser,
}
# Texts that are no paths, or are read as some later.
OTHERS = {
  *("--split", "--result", "--config", "--set", "--new", "--only", "name"),
  *("--group", "--under", "--classes"),
}


@pytest.mark.usefixtures("_home")
def test_every_flag_that_takes_a_path_expands_it():
  seen = 0
  for command, parser in PARSERS.items():
    for action in parser()._actions:
      name = [*action.option_strings, action.dest][0]
      takes_text = action.nargs != 0 and not action.choices
      try:
        value = (action.type or str)("~/x") if takes_text else None  # pyright: ignore
      except (argparse.ArgumentTypeError, ValueError):
        continue  # numbers
      if value is None or name in OTHERS or action.metavar == "SOURCE:FILE":
        continue
      assert str(value) == f"{HOME}/x", (command, name)
      seen += 1
  assert seen > 30


def test_the_paths_of_a_configuration_and_its_workdir_are_expanded(tmp_path):
  (tmp_path / "mine.py").write_text(
    "from deeplax.settings import defaults\nget_config = defaults.base\n"
  )
  code = (
    "import sys\nfrom deeplax import config_flag\nconfig_flag.parse(sys.argv)\n"
    "config = config_flag.CONFIG.value\n"
    "print(config.data.root, config.init.checkpoint, config_flag.WORKDIR.value)"
  )
  words = [
    *("--config=~/mine.py", "--config.data.root=~/data", "--workdir=~/runs/b"),
    "--config.init.checkpoint=~/runs/a",
  ]
  done = subprocess.run(
    [sys.executable, "-c", code, *words],
    env=commands.environment(HOME=str(tmp_path), PYTHONPATH=str(commands.ROOT)),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout.split() == [
    f"{tmp_path}/{name}" for name in ("data", "runs/a", "runs/b")
  ], done.stderr[-2000:]


def test_groups_of_curves_are_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "runs" / "one").mkdir(parents=True)
  args = argparse.Namespace(runs=[], group=["a=~/runs/*", "b=~/runs/one"])
  one = str(tmp_path / "runs" / "one")
  assert trimap_curves.groups(args) == {"a": [one], "b": [one]}
