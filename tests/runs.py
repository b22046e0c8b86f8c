"""The one way to make a small run, and the one that all tests share.

A few layers of the debug configuration: commands that read such a workdir have
to be `short=True` as well.
"""

import fcntl
import json
import os
import pathlib
import shutil
from typing import NamedTuple

import jax
import numpy as np
import pytest

from deeplax.workdir import checkpoint
from tests import commands

TOTAL_STEPS = 4  # checkpoints at 2 and 4
SMALL = (
  commands.DEBUG,
  "--config.model.depth_multiplier=0.1",
  "--config.model.channels=8",
  "--config.model.decoder.channels=8",
)


class Trained(NamedTuple):
  """A finished run.

  Attributes:
    workdir: Of the run.
    done: What the command left.
  """

  workdir: pathlib.Path
  done: commands.Done


def train(workdir: pathlib.Path, *arguments: object) -> Trained:
  """Train a small network in `workdir`, or go on there, to the end."""
  done = commands.command(
    "main", *SMALL, *arguments, f"--workdir={workdir}", short=True
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return Trained(workdir, done)


def assert_same_parameters(one: pathlib.Path, other: pathlib.Path) -> None:
  """Assert that two runs ended at the same step, with the same bits."""
  found, step = checkpoint.restore_variables(one)
  others, other_step = checkpoint.restore_variables(other)
  assert step == other_step
  jax.tree.map(np.testing.assert_array_equal, found, others)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
  """The run of SMALL, for reading only; made once for all of pytest's workers.

  Who has to write in it takes `trained_copy`.
  """
  folder = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    folder = folder.parent  # of the session; without workers, of all sessions
  workdir, record = folder / "trained", folder / "trained.json"
  with open(folder / "trained.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not record.exists():
      done = train(workdir).done
      fields = done._asdict() | {"modules": sorted(done.modules)}
      record.write_text(json.dumps(fields))
  fields = json.loads(record.read_text())
  fields["modules"] = frozenset(fields["modules"])
  return Trained(workdir, commands.Done(**fields))


@pytest.fixture
def trained_copy(trained, tmp_path) -> pathlib.Path:
  """A workdir of its own with the run of `trained`."""
  return shutil.copytree(trained.workdir, tmp_path / "trained")
