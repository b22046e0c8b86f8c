"""Several processes of a command on this machine, as hosts of a pod.

Run as a script it is one of them: python -m tests.pod RECORD MODULE ARGUMENT...
Each line of the file RECORD is a file that Python opened for writing, or
"image NAME", one that was evaluated.
"""

from collections.abc import Callable, Mapping, Sequence
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
  """A command that runs in several processes.

  Attributes:
    processes: The processes.
    outputs: The files of what each prints, standard error included.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    count: int,
    module: str,
    *arguments: object,
    devices: int = 1,
    own: Callable[[int], Sequence[str]] = lambda rank: (),
    known: Callable[[int, int], Mapping[str, str]] | None = None,
    **changes: str,
  ):
    """Start `count` processes, whose output goes to `folder`.

    Args:
      folder: Made if necessary.
      count: Number of processes.
      module: Of deeplax.
      *arguments: Of all processes.
      devices: Of each process.
      own: Arguments of one process.
      known: (process, port) -> the environment that tells a process who it is,
        in place of flags.
      **changes: Of the environment of all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      port = free.getsockname()[1]
    self.outputs = [folder / f"{rank}.txt" for rank in range(count)]
    self._records = [folder / f"{rank}.record" for rank in range(count)]
    self.processes = []
    changes = {
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "--xla_backend_optimization_level=0 "
      f"--xla_force_host_platform_device_count={devices}",
      **changes,
    }
    for rank, path in enumerate(self.outputs):
      words = [*map(str, arguments), *own(rank)]
      environment = commands.environment(**changes)
      if known:
        words.append("--multihost")
        environment |= known(rank, port)
      elif count > 1:
        words += [
          f"--coordinator_address=127.0.0.1:{port}",
          f"--num_processes={count}",
          f"--process_id={rank}",
        ]
      self._records[rank].touch()
      program = ("-m", "tests.pod", str(self._records[rank]), module)
      with path.open("w") as output:
        self.processes.append(
          subprocess.Popen(
            [sys.executable, "-u", *program, *words],
            cwd=commands.ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
          )
        )

  def wait_for(self, text: str, rank: int = 0, seconds: float = 300) -> None:
    """Wait until a process has printed a text."""
    self.wait_until(lambda: text in self.said(rank), rank, seconds)

  def wait_until(
    self, come: Callable[[], bool], rank: int = 0, seconds: float = 300
  ) -> None:
    """Wait until something has come to be; the process must go on till then."""
    end = time.monotonic() + seconds
    while not come():
      if self.processes[rank].poll() is not None or time.monotonic() > end:
        raise AssertionError(f"did not come:\n{self.said(rank)[-3000:]}")
      time.sleep(0.02)

  def send(self, rank: int, number: signal.Signals) -> None:
    """Send a process a signal."""
    self.processes[rank].send_signal(number)

  def said(self, rank: int) -> str:
    """Return what a process has printed so far."""
    return self.outputs[rank].read_text()

  def evaluated(self, rank: int) -> list[str]:
    """Return the names of the images that a process has evaluated."""
    return self._recorded(rank, "image ")

  def written(self, rank: int, below: pathlib.Path) -> list[str]:
    """Return the files below a folder that a process opened for writing."""
    return self._recorded(rank, f"{below}/")

  def _recorded(self, rank: int, start: str) -> list[str]:
    lines = self._records[rank].read_text().splitlines()
    return [x.removeprefix(start) for x in lines if x.startswith(start)]

  def ended(self, seconds: float = 300) -> list[int]:
    """Wait for all processes, and return their exit statuses."""
    end = time.monotonic() + seconds
    try:
      return [
        process.wait(max(0.1, end - time.monotonic()))
        for process in self.processes
      ]
    finally:
      self.kill()

  def kill(self) -> None:
    """End all processes that have not."""
    for process in self.processes:
      process.kill()
      process.wait()


def record(path: str) -> None:
  """Record what this process evaluates, and opens for writing, in a file."""
  from deeplax.inference import evaluate

  file = os.open(path, os.O_WRONLY | os.O_APPEND)
  seconds = float(os.environ.get("POD_IMAGE_SECONDS", 0))
  count = evaluate._count

  def counted(k, measured, prediction):
    os.write(file, f"image {prediction[2]['name']}\n".encode())
    time.sleep(seconds)
    return count(k, measured, prediction)

  def heard(event, arguments):
    changes = event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir")
    if event == "open":
      changes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if changes and not isinstance(arguments[0], int):
      os.write(file, f"{os.fsdecode(arguments[0])}\n".encode())

  evaluate._count = counted
  sys.addaudithook(heard)


if __name__ == "__main__":
  module = sys.argv[2]
  record(sys.argv[1])
  sys.argv = [module, *sys.argv[3:]]
  os.environ.setdefault("PYTHONWARNINGS", "ignore")
  held.by_environment()
  with networks.shorten():
    runpy.run_module(f"deeplax.{module}", run_name="__main__", alter_sys=True)
