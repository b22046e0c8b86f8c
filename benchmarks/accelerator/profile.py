"""A profile of what ran on the device, by kind of kernel."""

from collections.abc import Callable, Iterable, Mapping
import pathlib
import re
import tempfile
from typing import Any, NamedTuple

import jax

from deeplax.training import profile as trace

_INSTRUCTION = re.compile(
  r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) [\w-]+\((.*)$", re.MULTILINE
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")


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


def events(run: Callable[[], Any]) -> list[trace.Event]:
  """Return what ran on the first device."""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(run())
    (session,) = pathlib.Path(folder).glob("plugins/profile/*")
    return trace.events(session)


def kinds(
  events: Iterable[trace.Event], moved: Mapping[str, float]
) -> list[Kind]:
  """Return the kinds of kernels, the one that took longest first.

  Args:
    events: What ran.
    moved: Bytes of instructions.
  """
  found = []
  for name, members in trace.grouped(events).items():
    sizes = [
      (moved.get(_plain(e.instruction), moved.get(_plain(e.kernel))), e.seconds)
      for e in members
    ]
    known = [(size, seconds) for size, seconds in sizes if size is not None]
    timed = sum(seconds for _, seconds in known)
    speed = sum(size for size, _ in known) / timed if timed else None
    found.append(Kind(name, trace.seconds(members), len(members), speed))
  return found


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
