"""A profile of what ran on the device, by kind of kernel."""

import collections
from collections.abc import Callable, Iterable, Mapping
import pathlib
import re
import tempfile
from typing import Any, NamedTuple

import jax

LIBRARY = "convolution or matrix product of a library"
# What cuBLAS, cuDNN and CUTLASS call their kernels.
_LIBRARY = re.compile(r"gemm|cutlass|xmma|nvjet|convolve|cudnn|sm\d\d_")
_INSTRUCTION = re.compile(
  r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) [\w-]+\((.*)$", re.MULTILINE
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")


class Event(NamedTuple):
  """A kernel that ran: its name, the instruction it belongs to, how long."""

  kernel: str
  instruction: str
  seconds: float


class Kind(NamedTuple):
  """All kernels of a kind.

  Attributes:
    name: What their names share.
    seconds: Of all of them.
    calls: How many ran.
    speed: Bytes a second where it is known: every operand and result of an
      instruction once, though it may read less.
  """

  name: str
  seconds: float
  calls: int
  speed: float | None

  def row(self) -> dict[str, Any]:
    known = "unknown" if self.speed is None else self.speed / 1e9
    return {
      "milliseconds": 1e3 * self.seconds,
      "calls": self.calls,
      "gb_per_second": known,
    }


def events(run: Callable[[], Any]) -> list[Event]:
  """Return what ran on the first accelerator; nothing where there is none."""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(run())
    (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(path))
    return _of_planes(data.planes)


def _of_planes(planes: Iterable[Any]) -> list[Event]:
  found = []
  for plane in planes:
    if found or not re.match(r"/device:(GPU|TPU):", plane.name):
      continue
    for line in plane.lines:
      if "Stream" not in line.name and line.name != "XLA Ops":
        continue
      for event in line.events:
        # A TPU's events are named by the text of their instruction.
        kernel = event.name.partition(" = ")[0].lstrip("%")
        name = str(dict(event.stats).get("hlo_op", kernel))
        found.append(Event(kernel, name, event.duration_ns / 1e9))
  return found


def kind(kernel: str) -> str:
  """Return what kernels of the same work share of their names."""
  if _LIBRARY.search(kernel):
    return LIBRARY
  return re.sub(r"[_.]*\d+", "", kernel).rstrip("_.") or kernel


def kinds(events: Iterable[Event], moved: Mapping[str, float]) -> list[Kind]:
  """Return the kinds of kernels, the one that took longest first.

  Args:
    events: What ran.
    moved: Bytes of instructions.
  """
  of_kind = collections.defaultdict(list)
  for event in events:
    of_kind[kind(event.kernel)].append(event)
  found = []
  for name, members in of_kind.items():
    sizes = [
      (moved.get(_plain(e.instruction), moved.get(_plain(e.kernel))), e.seconds)
      for e in members
    ]
    known = [(size, seconds) for size, seconds in sizes if size is not None]
    timed = sum(seconds for _, seconds in known)
    speed = sum(size for size, _ in known) / timed if timed else None
    total = sum(event.seconds for event in members)
    found.append(Kind(name, total, len(members), speed))
  return sorted(found, key=lambda kind: -kind.seconds)


def bytes_of(program: str) -> dict[str, int]:
  """Return the bytes of operands and results of each instruction.

  Args:
    program: Text of a compiled module.
  """
  results, operands = {}, {}
  for name, result, rest in _INSTRUCTION.findall(program):
    results[name] = sum(map(_bytes, _ARRAY.findall(result)))
    operands[name] = re.findall(r"%([\w.-]+)", rest.partition("), ")[0])
  return {
    _plain(name): size + sum(results.get(o, 0) for o in operands[name])
    for name, size in results.items()
  }


def _bytes(array: tuple[str, str]) -> int:
  kind, shape = array
  size = 1
  for side in filter(None, shape.split(",")):
    size *= int(side)
  bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
  return size * bits // 8


def _plain(name: str) -> str:
  """Return an instruction's name as its kernel has it."""
  return re.sub(r"\W", "_", name)
