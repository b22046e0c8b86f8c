"""A trained run whose data lies elsewhere by now, or means something else."""

import json
import os
import re
import shutil

import pytest

from tests import commands
from tests import runs
from tests.data import trees

FLAGS = (
  *("--config.data.name=folder", "--config.eval.pictures=0"),
  *("--config.train.total_steps=1", "--config.optim.slow_start_steps=0"),
)
SHORT = {"evaluate": ("--no-sweep",), "recalibrate": ("--batches=1",)}


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
  """A run's workdir, and where its data lies now."""
  folder = tmp_path_factory.mktemp("moved")
  data = trees.folder(folder / "data")
  relative = os.path.relpath(data, commands.ROOT)  # where commands run
  runs.train(folder / "run", *FLAGS, f"--config.data.root={relative}")
  return folder / "run", data.rename(folder / "now")


def command(name: str, workdir, *flags: object) -> commands.Done:
  return commands.command(
    name, f"--workdir={workdir}", *SHORT.get(name, ()), *flags, short=True
  )


def test_a_workdir_keeps_the_whole_path_of_its_data(moved):
  workdir, data = moved
  config = json.loads((workdir / "config.json").read_text())
  assert config["data"]["root"] == str(data.parent / "data")


@pytest.mark.parametrize("name", ["evaluate", "recalibrate", "crf.search"])
def test_what_a_command_says_of_moved_data_is_a_flag_that_it_has(moved, name):
  workdir, data = moved
  done = command(name, workdir)
  assert done.returncode == 2
  assert f"data.root = {data.parent / 'data'} (no such folder)" in done.stderr
  (line,) = (x for x in done.stderr.splitlines() if "has moved: " in x)
  (flag,) = re.findall(r"(--\w+)=DIR", line)
  # Another wrong folder: the flag is read, and told.
  done = command(name, workdir, f"{flag}={data.parent / 'wrong'}")
  assert done.returncode == 2 and "wrong (no such folder)" in done.stderr
  if name == "evaluate":
    done = command(name, workdir, f"{flag}={data}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "3 images; " in done.stdout


@pytest.mark.slow  # compiles the norms of a training batch
def test_a_recalibrated_run_knows_where_its_data_lies_now(moved, tmp_path):
  workdir, data = moved
  flags = [f"--data_root={data}", f"--out={tmp_path / 'out'}"]
  done = command("recalibrate", workdir, *flags)
  assert done.returncode == 0, done.stderr[-3000:]
  config = json.loads((tmp_path / "out" / "config.json").read_text())
  assert config["data"]["root"] == str(data)


def test_training_goes_on_with_moved_data_by_the_flag_of_training(
  moved, tmp_path
):
  workdir, data = moved
  workdir = shutil.copytree(workdir, tmp_path / "run")
  flags = (*FLAGS, f"--workdir={workdir}")
  done = commands.command("main", *runs.SMALL, *flags, short=True)
  assert done.returncode == 2
  (flag,) = re.findall(r"own folder: (--[\w.]+)=DIR", done.stderr)
  words = (*runs.SMALL, *flags, f"{flag}={data}")
  done = commands.command("main", *words, short=True)
  assert done.returncode == 0 and "finished" in done.stdout, done.stderr


def test_a_changed_label_map_is_not_evaluated(moved, tmp_path):
  workdir, data = moved
  changed = shutil.copytree(data, tmp_path / "data")
  classes = json.loads((data / "classes.json").read_text())
  (changed / "classes.json").write_text(
    json.dumps({**classes, "label_map": {"1": 2}})
  )
  done = command("evaluate", workdir, f"--data_root={changed}")
  assert done.returncode == 2
  assert "masks whose 1 is 'cat', and with" in done.stderr


def test_a_run_does_not_go_on_with_other_images(moved, tmp_path):
  workdir, data = moved
  workdir = shutil.copytree(workdir, tmp_path / "run")
  changed = shutil.copytree(data, tmp_path / "data")
  for path in changed.glob("*/train/00.*"):
    path.unlink()
  flags = (*runs.SMALL, *FLAGS, f"--config.data.root={changed}")
  done = commands.command("main", *flags, f"--workdir={workdir}", short=True)
  assert done.returncode == 2
  assert "trained on 3 images, and the data now has 2" in done.stderr
  (path,) = re.findall(r"or remove (\S+) to resume", done.stderr)
  os.remove(path)
  done = commands.command("main", *flags, f"--workdir={workdir}", short=True)
  assert done.returncode == 0 and "finished" in done.stdout, done.stderr
