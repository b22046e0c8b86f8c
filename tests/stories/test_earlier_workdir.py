"""A workdir of an earlier commit still evaluates, resumes and takes a step.

tests/fixtures/earlier_workdir.tar.xz was written by the command, at the commit,
that earlier_workdir.json names, and cut back to its step 400: parameters of
32,000 numbers, the optimizer, the data's position. The JSON has what that
commit made of it: the scores of its table and its step 401.
"""

import json
import shutil
import tarfile

import pytest

from tests import commands
from tests import conftest

FIXTURES = conftest.ROOT / "tests" / "fixtures"
EXPECTED = json.loads((FIXTURES / "earlier_workdir.json").read_text())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "earlier"
  with tarfile.open(FIXTURES / "earlier_workdir.tar.xz") as archive:
    archive.extractall(folder, filter="data")
  return folder


def assert_evaluates(workdir, *flags):
  """Evaluate step 400 and return how many rows had their scores."""
  done = commands.command("evaluate", f"--workdir={workdir}", *flags)
  assert done.returncode == 0, done.stderr[-3000:]
  rows = sorted((workdir / "eval").glob("val-00000400-os*.json"))
  for path in rows:
    result = json.loads(path.read_text())
    for key, value in EXPECTED["evaluations"][path.name].items():
      assert result[key] == pytest.approx(value, abs=1e-6), (path.name, key)
  return len(rows)


@pytest.mark.slow  # compiles a training step of the whole network
def test_it_resumes_and_takes_a_step_and_gives_its_scores(workdir, tmp_path):
  # Its command has another table by now, which the copy's settings get.
  workdir = shutil.copytree(workdir, tmp_path / "run")
  flags = [f for f in EXPECTED["command"][3:] if not f.startswith("--workdir")]
  done = commands.command("main", *flags, f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr[-3000:]
  assert "resuming from step 400 of 401" in done.stdout
  expected = EXPECTED["step_401"]
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  step, evaluation = map(json.loads, lines[-2:])
  assert step["step"] == evaluation["step"] == 401
  for key in ("loss", "pixel_accuracy", "lr"):
    assert step[key] == pytest.approx(expected[key], rel=1e-5), key
  assert evaluation["miou"] == pytest.approx(expected["miou"], abs=1e-6)


def test_it_evaluates(workdir):
  assert assert_evaluates(workdir, "--output_strides=8", "--step=400") == 1


@pytest.mark.slow  # compiles four sizes at two strides
def test_it_gives_its_whole_table(workdir):
  count = assert_evaluates(workdir, "--step=400")
  assert count == len(EXPECTED["evaluations"])
