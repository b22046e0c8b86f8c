"""Start commands in no time: import what they share once, then fork for each.

Run by tests/commands.py. A request is a line of JSON on standard input; the
answer, once the command has ended, a line of JSON on standard output.
"""

import atexit
import contextlib
import faulthandler
import functools
import gc
import importlib
import itertools
import json
import os
import pathlib
import pkgutil
import runpy
import sys
import threading
import time
import traceback
from typing import Any
import warnings

import deeplax
from tests import commands
from tests.models import networks

# Seconds after which a command counts as hung. The longest takes two minutes on
# a quiet machine.
LIMIT = 600


def preload() -> None:
  """Import the rooms and what they stand on; the doors are what is run."""
  for found in pkgutil.walk_packages(deeplax.__path__, "deeplax."):
    if found.name.count(".") > 1 and "configs" not in found.name:
      importlib.import_module(found.name)


def next_command() -> dict[str, Any]:
  """Return a request, in a child of its own; the server never returns."""
  for line in sys.stdin:
    started = time.perf_counter()
    child = os.fork()
    if not child:
      return json.loads(line)
    _, status, usage = os.wait4(child, 0)
    answer = {
      "returncode": os.waitstatus_to_exitcode(status),
      "cpu": usage.ru_utime + usage.ru_stime,
      "wall": time.perf_counter() - started,
    }
    print(json.dumps(answer), flush=True)
  sys.exit()


def make_fatal(path: str, number: int, call: int, after: float) -> None:
  """Let one call of a function, "module:name", bring a signal."""
  module, _, name = path.partition(":")
  *owners, name = name.split(".")
  owner = functools.reduce(getattr, owners, importlib.import_module(module))
  original, calls = getattr(owner, name), itertools.count(1)

  def fatal(*args, **kwargs):
    if next(calls) != call:
      return original(*args, **kwargs)
    timer = threading.Timer(after, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
    return original(*args, **kwargs)

  setattr(owner, name, fatal)


def become(request: dict[str, Any]) -> None:
  """Take the streams, environment and arguments that a shell would give."""
  folder = pathlib.Path(request["folder"])
  for number, name in enumerate((os.devnull, folder / "out", folder / "err")):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
  # Its standard error then tells where each thread waits; exit status 1.
  faulthandler.dump_traceback_later(LIMIT, exit=True, file=2)
  sys.stdin = open(0)
  if request["killed_in"]:
    make_fatal(
      request["killed_in"], request["signal"], request["call"], request["after"]
    )
  os.environ.clear()
  os.environ.update(request["environment"])
  sys.argv = ["deeplax", *request["arguments"]]
  modules = folder / "modules"
  atexit.register(lambda: modules.write_text("\n".join(sys.modules)))


def run(module: str, *, short: bool) -> int:
  """Run a command and return the exit status that Python would give."""
  with networks.shorten() if short else contextlib.nullcontext():
    return _run(module)


def _run(module: str) -> int:
  # Some commands are files of a room as well, imported by others already.
  warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except SystemExit as stop:
    if stop.code is None or isinstance(stop.code, int):
      return stop.code or 0
    print(stop.code, file=sys.stderr)
    return 1
  except BaseException:
    traceback.print_exc()
    return 1
  return 0


if __name__ == "__main__":
  preload()
  gc.freeze()  # a child's collections would copy all these pages
  gc.set_threshold(*commands.COLLECTED_AT)
  command = next_command()
  become(command)
  code = run(command["module"], short=command["short"])
  # What Python does at its end, without tearing down each of the modules.
  threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
  atexit._run_exitfuncs()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
