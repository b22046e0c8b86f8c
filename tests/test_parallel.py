"""The mapped step: 8 devices, one device and literal jax.pmap agree."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax import parallel
from tests import conftest

# Values are tested there, not speed: this halves the time to compile.
COMPILER = (
  "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)


@pytest.fixture(scope="module")
def printed():
  """Return what eight_devices prints on so many CPU devices, by name."""
  flags = f"--xla_force_host_platform_device_count=8 {COMPILER}"
  done = subprocess.run(
    [sys.executable, "-m", "tests.training.eight_devices"],
    cwd=conftest.ROOT,
    env=os.environ | {"XLA_FLAGS": flags},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  pairs = (line.split(": ") for line in done.stdout.splitlines())
  return {name: float(value) for name, value in pairs}


def test_every_switch_gives_the_same_run_on_one_and_four_devices(printed):
  for name in ("weights, average and dropout", "parts", "hard"):
    # Rounding of three updates at a rate of 0.5.
    assert printed[name] < 1e-5, name


def test_eight_devices_equal_literal_pmap(printed):
  # The same program in two spellings: sums may be ordered differently.
  assert printed["pmap"] < 1e-5


def test_eight_devices_equal_one_with_uneven_ignored_pixels(printed):
  # Sums over 16 examples against sums of 8 sums, through three updates.
  assert printed["one"] < 1e-5
  assert printed["momentum"] < 1e-5


def test_a_checkpoint_of_eight_devices_opens_on_one(printed):
  assert printed["restored"] == 0


def test_losses_agree(printed):
  losses = [printed[f"loss of {name}"] for name in ("eight", "pmap", "one")]
  np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_the_first_process_finds_for_all():
  assert parallel.of_first(lambda: 7) == 7
  assert parallel.of_first(lambda: 0) == 0
  assert parallel.of_first(lambda: None) is None


def test_a_process_that_knows_too_little_is_told_what_to_give(monkeypatch):
  for key in ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID"):
    monkeypatch.delenv(f"JAX_{key}", raising=False)

  def initialize(**known):
    assert known == {"process_id": 1, "heartbeat_timeout_seconds": 30}
    raise ValueError("coordinator_address should be defined.")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  with pytest.raises(errors.InputError, match="--coordinator_address=HOST"):
    parallel.join_hosts(process_id=1)
  monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
  with pytest.raises(errors.InputError, match="JAX_NUM_PROCESSES=two"):
    parallel.join_hosts()
