"""Run a command and count its compilations: python -m tests.counted NAME ...

A process of its own, because what JAX has compiled in this one is not compiled
again. The last line of its standard error is the count, as JSON.
"""

import collections
import json
import runpy
import subprocess
import sys
from typing import NamedTuple

from tests import commands

EVENTS = "/jax/compilation_cache/"


class Counted(NamedTuple):
  """What a command compiled.

  Attributes:
    programs: Number of programs that it asked for.
    compiled: Number of these that no cache held.
  """

  programs: int
  compiled: int


def command(name: str, *arguments: object, **changes: str) -> Counted:
  """Run `deeplax.<name>` of short networks, with JAX's own cache settings."""
  environment = {
    key: value
    for key, value in commands.environment(**changes).items()
    if "COMPILATION_CACHE" not in key and "PERSISTENT_CACHE" not in key
  }
  done = subprocess.run(
    [sys.executable, "-m", "tests.counted", name, *map(str, arguments)],
    cwd=commands.ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return Counted(**json.loads(done.stderr.splitlines()[-1]))


def main() -> int:
  import jax

  from tests.models import networks

  counts: collections.Counter[str] = collections.Counter()
  jax.monitoring.register_event_listener(
    lambda event, **_: counts.update([event])
  )
  name, *arguments = sys.argv[1:]
  sys.argv = [f"deeplax.{name}", *arguments]
  code = 0
  with networks.shorten():
    try:
      runpy.run_module(f"deeplax.{name}", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
      code = stop.code
  requests = counts[f"{EVENTS}compile_requests_use_cache"]
  compiled = requests - counts[f"{EVENTS}cache_hits"]
  print(
    json.dumps({"programs": requests, "compiled": compiled}), file=sys.stderr
  )
  return code if isinstance(code, int) else 0


if __name__ == "__main__":
  sys.exit(main())
