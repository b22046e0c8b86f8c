"""The mapped step: 8 devices, one device and literal jax.pmap agree."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests import conftest


def lines(module, *, devices):
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
  return dict(line.split(" ", 1) for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def printed():
  return lines("eight_devices", devices=8)


def test_every_switch_gives_the_same_run_on_one_and_four_devices():
  found = lines("four_devices", devices=4)
  assert set(found) == {"weights", "parts", "average", "dropout", "hard"}
  for name, value in found.items():
    # Rounding of three updates at a rate of 0.5.
    assert float(value) < 1e-5, (name, value)


def test_eight_devices_equal_literal_pmap(printed):
  # The same program in two spellings: sums may be ordered differently.
  assert float(printed["pmap"]) < 1e-5


def test_eight_devices_equal_one_with_uneven_ignored_pixels(printed):
  # Sums over 16 examples against sums of 8 sums, through three updates.
  assert float(printed["one"]) < 1e-3
  # Gradients of a random start jump where rounding moves a value across a
  # corner of ReLU6.
  assert float(printed["momentum"]) < 0.02


def test_a_checkpoint_of_eight_devices_opens_on_one(printed):
  assert float(printed["restored"]) == 0


def test_losses_agree(printed):
  losses = [float(x) for x in printed["losses"].split()]
  np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
