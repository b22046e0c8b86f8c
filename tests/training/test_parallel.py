"""The mapped step: 8 devices, one device and literal jax.pmap agree."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests import conftest


def printed(module, *, devices):
  """Return what a module prints on so many forced CPU devices, by name."""
  environment = os.environ | {
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
  }
  done = subprocess.run(
    [sys.executable, "-m", f"tests.training.{module}"],
    cwd=conftest.ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  pairs = (line.split(": ") for line in done.stdout.splitlines())
  return {name: float(value) for name, value in pairs}


@pytest.fixture(scope="module")
def eight():
  return printed("eight_devices", devices=8)


def test_every_switch_gives_the_same_run_on_one_and_four_devices():
  found = printed("four_devices", devices=4)
  assert set(found) == {"weights", "parts", "average", "dropout", "hard"}
  for name, value in found.items():
    # Rounding of three updates at a rate of 0.5.
    assert value < 1e-5, (name, value)


def test_eight_devices_equal_literal_pmap(eight):
  # The same program in two spellings: sums may be ordered differently.
  assert eight["pmap"] < 1e-5


def test_eight_devices_equal_one_with_uneven_ignored_pixels(eight):
  # Sums over 16 examples against sums of 8 sums, through three updates.
  assert eight["one"] < 1e-5
  assert eight["momentum"] < 1e-5


def test_a_checkpoint_of_eight_devices_opens_on_one(eight):
  assert eight["restored"] == 0


def test_losses_agree(eight):
  losses = [eight[f"loss of {name}"] for name in ("eight", "pmap", "one")]
  np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
