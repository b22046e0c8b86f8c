"""Sections of PyTorch's networks, which run in a process of their own."""

from collections.abc import Iterator
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

from benchmarks.accelerator import bench as bench_lib
from benchmarks.accelerator import networks

# segmentation_models.pytorch's names of the backbones.
ENCODERS = {
  "xception": "tu-xception65",
  "mobilenet": "mobilenet_v2",
  "resnet": "resnet101",
}
NEEDED = ("torch", "segmentation_models_pytorch")


def torch(bench: bench_lib.Bench, name: str) -> Iterator[bench_lib.Row]:
  """Time the same network in PyTorch, eager and compiled."""
  title = networks.NETWORKS[name].title.partition(",")[0]
  for module in NEEDED:
    if importlib.util.find_spec(module) is None:
      yield {"what": title, "remark": f"skipped: {module} is not installed"}
      return
  # It takes sides that its output stride divides.
  side = bench.sizes.side - 1
  command = [sys.executable, "-m", "benchmarks.accelerator.torch_step"]
  command += [ENCODERS[name], f"--side={side}", f"--batch={bench.sizes.batch}"]
  command += [f"--rounds={bench.sizes.rounds}"]
  for row in lines(command, bench.left):
    row["what"] = f"{title} {side}x{side}, {row['what']}"
    yield row
  if bench.late:
    yield {"what": title, **bench.late}


def lines(command: list[str], seconds: float) -> Iterator[dict[str, Any]]:
  """Yield the lines of JSON that a command prints in so many seconds.

  Raises:
    RuntimeError: It fails; the end of what it complained of.
  """
  complaints: list[str] = []
  ended = threading.Event()
  with subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,  # with those it starts to compile
  ) as process:
    assert process.stdout is not None and process.stderr is not None

    def end() -> None:
      ended.set()
      os.killpg(process.pid, signal.SIGKILL)

    # Read beside the results: a full pipe would stop it.
    reader = threading.Thread(target=complaints.extend, args=(process.stderr,))
    timer = threading.Timer(seconds, end)
    reader.start()
    timer.start()
    try:
      for line in process.stdout:
        if line.startswith("{"):
          yield json.loads(line)
      process.wait()
    finally:
      timer.cancel()
      if process.poll() is None:
        end()
      reader.join()
  if process.returncode and not ended.is_set():
    raise RuntimeError("".join(complaints)[-500:].strip())
