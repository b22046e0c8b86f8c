"""Run `python -m deeplax.NAME`, as a user does, without waiting for imports.

`command` forks a server that has imported them already (command_server.py):
streams, exit status and environment are a process's own. `process` is the
command itself, for what the way of starting may change.
"""

import atexit
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
# For gc.set_threshold. Tracing makes and drops objects by the million, and at
# Python's own 700 it looks for rings among them over and over; much rarer, and
# arrays pile up.
COLLECTED_AT = (50_000, 10, 10)
DEBUG = "--config=configs/quickstart.py:debug"
# For XLA where values are tested and not speed: half the time to compile.
COMPILER = (
  "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)


class Done(NamedTuple):
  """What a command left.

  Attributes:
    returncode: Its exit status.
    stdout: What it printed.
    stderr: What it complained of.
    cpu: Seconds of processor time, its children's included.
    modules: Names of all that was imported when it ended.
  """

  returncode: int
  stdout: str
  stderr: str
  cpu: float
  modules: frozenset[str]


DATA = ("DEEPLAX_DATA", "TFDS_DATA_DIR")


def environment(**changes: str) -> dict[str, str]:
  """Return this environment without any data set."""
  kept = {k: v for k, v in os.environ.items() if k not in DATA}
  return kept | changes


def command(
  name: str,
  *arguments: object,
  short: bool = False,
  killed_in: str = "",
  call: int = 1,
  after: float = 0.0,
  signal_sent: int = signal.SIGKILL,
  **changes: str,
) -> Done:
  """Run python -m deeplax.<name> with no data set but the one it is given.

  Args:
    name: main, data.build and so on.
    *arguments: Of the command.
    short: Leave few layers of the backbones (networks.shorten), for time.
    killed_in: Send it a signal inside this function, "module:name".
    call: In this of the function's calls.
    after: So many seconds after that call was entered.
    signal_sent: Which signal.
    **changes: Environment variables, such as HOME.
  """
  server = _server()
  assert server.stdin is not None and server.stdout is not None
  with tempfile.TemporaryDirectory() as folder:
    request = {
      "module": f"deeplax.{name}",
      "arguments": [str(a) for a in arguments],
      "short": short,
      "killed_in": killed_in,
      "call": call,
      "after": after,
      "signal": int(signal_sent),
      "environment": environment(**changes),
      "folder": folder,
    }
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    out, err, modules = (
      path.read_text() if path.exists() else ""
      for path in (pathlib.Path(folder) / n for n in ("out", "err", "modules"))
    )
  return Done(
    answer["returncode"], out, err, answer["cpu"], frozenset(modules.split())
  )


@functools.cache
def _server() -> subprocess.Popen:
  """Return the server of this process; it ends when its input does."""
  server = subprocess.Popen(
    [sys.executable, "-m", "tests.command_server"],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  atexit.register(_end, server)
  return server


def _end(server: subprocess.Popen) -> None:
  server.communicate()


def process(
  name: str, *arguments: object, **changes: str
) -> subprocess.CompletedProcess[str]:
  """Run the command itself, from its first import on."""
  return subprocess.run(
    [sys.executable, "-m", f"deeplax.{name}", *map(str, arguments)],
    cwd=ROOT,
    env=environment(**changes),
    capture_output=True,
    text=True,
    check=False,
  )


def on_devices(module: str, devices: int, *, flags: str) -> str:
  """Return what a module of tests prints on so many devices of the CPU.

  Args:
    module: Such as tests.training.eight_devices.
    devices: How many.
    flags: More of XLA's.
  """
  flags = f"--xla_force_host_platform_device_count={devices} {flags}"
  done = subprocess.run(
    [sys.executable, "-m", module],
    cwd=ROOT,
    env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout
