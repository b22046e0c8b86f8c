"""Several processes of a command on this machine, as hosts of a pod.

Run as a script it is one of them: python -m tests.pod MODULE ARGUMENT...
"""

import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import time

from tests import commands
from tests import held
from tests.models import networks


class Pod:
  """A command that runs in several processes, of one device each.

  Attributes:
    processes: The processes.
    outputs: The files of what each prints, standard error included.
  """

  def __init__(
    self, folder: pathlib.Path, count: int, module: str, *arguments: object
  ):
    """Start `count` processes, whose output goes to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{free.getsockname()[1]}"
    self.outputs = [folder / f"{rank}.txt" for rank in range(count)]
    self.processes = []
    for rank, path in enumerate(self.outputs):
      words = [*map(str, arguments)]
      changes = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
      if count > 1:
        words += [
          f"--coordinator_address={address}",
          f"--num_processes={count}",
          f"--process_id={rank}",
        ]
      with path.open("w") as output:
        self.processes.append(
          subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.pod", module, *words],
            cwd=commands.ROOT,
            env=commands.environment(JAX_PLATFORMS="cpu", **changes),
            stdout=output,
            stderr=subprocess.STDOUT,
          )
        )

  def wait_for(self, text: str, rank: int = 0, seconds: float = 300) -> None:
    """Wait until a process has printed a text."""
    end = time.monotonic() + seconds
    while text not in self.said(rank):
      if self.processes[rank].poll() is not None or time.monotonic() > end:
        raise AssertionError(f"no {text!r} in:\n{self.said(rank)[-3000:]}")
      time.sleep(0.02)

  def send(self, rank: int, number: signal.Signals) -> None:
    """Send a process a signal."""
    self.processes[rank].send_signal(number)

  def said(self, rank: int) -> str:
    """Return what a process has printed so far."""
    return self.outputs[rank].read_text()

  def ended(self, seconds: float = 300) -> list[int]:
    """Wait for all processes, and return their exit statuses."""
    end = time.monotonic() + seconds
    try:
      return [
        process.wait(max(0.1, end - time.monotonic()))
        for process in self.processes
      ]
    finally:
      for process in self.processes:
        process.kill()


if __name__ == "__main__":
  module = sys.argv[1]
  sys.argv = [module, *sys.argv[2:]]
  os.environ.setdefault("PYTHONWARNINGS", "ignore")
  held.by_environment()
  with networks.shorten():
    runpy.run_module(f"deeplax.{module}", run_name="__main__", alter_sys=True)
