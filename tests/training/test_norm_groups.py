"""A step whose norms share statistics within groups of devices."""

import os
import subprocess
import sys

from tests import conftest
from tests import test_parallel


def test_groups_of_devices_are_batches_of_their_own_and_the_state_is_one():
  flags = f"--xla_force_host_platform_device_count=4 {test_parallel.COMPILER}"
  done = subprocess.run(
    [sys.executable, "-m", "tests.training.norm_groups"],
    cwd=conftest.ROOT,
    env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert done.stdout == "checked\n"
