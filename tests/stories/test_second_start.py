"""A second start of a command finds all of its programs and compiles none."""

import shutil

import pytest

from deeplax.workdir import layout
from tests import counted
from tests import runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run whose programs lie in its workdir, and what its start compiled."""
  workdir = tmp_path_factory.mktemp("start") / "run"
  return workdir, counted.command("main", *runs.SMALL, f"--workdir={workdir}")


def test_training_compiles_at_the_first_start_alone(run, tmp_path):
  workdir, first = run
  assert first.compiled == first.programs > 2
  # The programs without the steps, as if the run had been stopped at once.
  shutil.copytree(workdir / "compiled", tmp_path / "again" / "compiled")
  second = counted.command(
    "main", *runs.SMALL, f"--workdir={tmp_path / 'again'}"
  )
  assert second == (first.programs, 0)
  assert (tmp_path / "again" / layout.CHECKPOINTS).is_dir()


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_so_does_what_reads_a_run(run, tmp_path, name):
  workdir, _ = run
  picture = workdir / layout.PICTURES / "val-00000004.png"
  assert picture.exists()
  wanted = [f"--out={tmp_path}", picture] if name == "predict" else []
  first, second = (
    counted.command(name, f"--workdir={workdir}", *wanted) for _ in range(2)
  )
  assert second.programs == first.programs > 0
  assert second.compiled == 0
