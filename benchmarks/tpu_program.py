"""What a TPU's compiler says of a compiled program: cycles, collectives.

The text of such a program has the compiler's own estimate on most
instructions of its schedule, `"estimated_cycles":"N"`. It is no measurement,
but tells which of two forms costs more and where the time goes. The body of a
loop has it for one trip. Copies that run beside the arithmetic, collectives and
kernels written in Pallas have none.
"""

from collections import Counter
from collections.abc import Iterator
import math
import re
from typing import NamedTuple

COLLECTIVES = (
  *("all-reduce", "all-gather", "all-to-all", "reduce-scatter"),
  "collective-permute",
)
# What only moves values, and what the compiler's own fusions of it are named.
MOVES = ("copy", "transpose", "reshape", "slice", "concatenate", "bitcast")
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (.*)")
_ARRAY = re.compile(r"\b(pred|bf16|[fsu]\d+)\[([\d,]*)\]")


class Instruction(NamedTuple):
  """One line of a program.

  Attributes:
    name: Without its %.
    shape: Type of the result, with its layout.
    operation: copy, fusion, all-reduce, ...
    rest: What follows.
  """

  name: str
  shape: str
  operation: str
  rest: str

  @property
  def cycles(self) -> int:
    """The compiler's estimate, 0 without one."""
    found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
    return int(found[1]) if found else 0

  @property
  def path(self) -> str:
    """Where it was traced: jit(step)/.../backbone/conv/add, or ""."""
    found = re.search(r'op_name="([^"]*)"', self.rest)
    return found[1] if found else ""

  @property
  def operands(self) -> list[str]:
    """Names of what it takes."""
    return re.findall(r"%([\w.-]+)", _inside(self.rest))

  @property
  def chips(self) -> tuple[int, ...]:
    """The first group of chips that a collective joins; (): all of them."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", self.rest)
    return tuple(map(int, listed[1].split(","))) if listed else ()

  @property
  def algorithm(self) -> str:
    """The compiler's name for how a collective goes about it, or ""."""
    found = re.search(r'"emitter":"(\w+)"', self.rest)
    return found[1] if found else ""

  def named(self, attribute: str) -> str:
    """Return the computation behind an attribute such as `calls`, or ""."""
    found = re.search(rf"\b{attribute}=%?([\w.-]+)", self.rest)
    return found[1] if found else ""

  @property
  def size(self) -> int:
    """Bytes of the result, without padding."""
    return sum(
      math.prod(int(n) for n in sides.split(",") if n) * _bytes(kind)
      for kind, sides in _ARRAY.findall(self.shape)
    )


class Program:
  """The text of a compiled program, read.

  Attributes:
    unknown_loops: Number of loops whose trips are not in the text; their bodies
      count once.
  """

  def __init__(self, text: str):
    self._bodies: dict[str, list[Instruction]] = {}
    self._entry, self.unknown_loops = "", 0
    self._known: dict[str, int] = {}  # trips of a loop, by its name
    body: list[Instruction] = []
    for line in text.splitlines():
      if head := _COMPUTATION.match(line):
        body = self._bodies[head[2]] = []
        self._entry = head[2] if head[1] else self._entry
      elif found := _INSTRUCTION.match(line):
        shape, rest = _shape(found[2])
        operation, _, rest = rest.partition("(")
        body.append(Instruction(found[1], shape, operation, rest))
    if not self._entry:
      raise ValueError("this text is no compiled program: it has no ENTRY")
    self.schedule = list(self._run(self._entry, 1))

  def _run(self, name: str, times: int) -> Iterator[tuple[Instruction, int]]:
    """Yield the instructions that run, and how often."""
    for one in self._bodies[name]:
      if one.operation == "while":
        yield from self._run(one.named("body"), times * self._trips(one))
      elif one.operation in ("call", "async-start"):
        called = one.named("to_apply") or one.named("calls")
        yield from self._run(called, times)
      yield one, times

  def _trips(self, loop: Instruction) -> int:
    if loop.name not in self._known:
      self._known[loop.name] = self._count_trips(loop)
    return self._known[loop.name]

  def _count_trips(self, loop: Instruction) -> int:
    if known := re.search(r'known_trip_count[^\d]*"(\d+)"', loop.rest):
      return int(known[1])
    # Loops of lax.scan count from 0 and end at a constant.
    condition = self._bodies[loop.named("condition")]
    ends = [
      int(one.rest.partition(")")[0])
      for one in condition
      if one.operation == "constant" and one.shape.startswith("s32[]")
    ]
    if len(ends) == 1:
      return ends[0]
    self.unknown_loops += 1
    return 1

  def chain(self) -> int:
    """Return how many collectives at most wait for one another in a run."""
    return self._chain(self._entry)

  def _chain(self, name: str) -> int:
    longest: dict[str, int] = {}
    for one in self._bodies[name]:
      own = int(one.operation.removesuffix("-start") in COLLECTIVES)
      if one.operation == "while":
        own = self._trips(one) * self._chain(one.named("body"))
      elif one.operation in ("call", "async-start"):
        own = self._chain(one.named("to_apply") or one.named("calls"))
      before = [longest[o] for o in one.operands if o in longest]
      longest[one.name] = own + max(before, default=0)
    return max(longest.values(), default=0)

  def _parts(self, one: Instruction) -> Iterator[Instruction]:
    """Yield an instruction and all that is fused into it."""
    yield one
    if one.operation == "fusion":
      for part in self._bodies[one.named("calls")]:
        yield from self._parts(part)

  def cycles(self) -> int:
    """Return the estimated cycles of one run."""
    return sum(one.cycles * times for one, times in self.schedule)

  def by_kind(self) -> Counter[str]:
    """Return the estimated cycles of each kind of work."""
    return self._summed(self.kind)

  def by_layer(self) -> Counter[str]:
    """Return the estimated cycles of each layer, both ways."""
    return self._summed(lambda one: layer(one.path))

  def _summed(self, key) -> Counter[str]:
    total: Counter[str] = Counter()
    for one, times in self.schedule:
      if one.cycles:
        total[key(one)] += one.cycles * times
    return total

  def kind(self, one: Instruction) -> str:
    """Return what an instruction of the schedule does, in words.

    What is fused into a convolution, such as a norm's sums, belongs to it.
    """
    parts = list(self._parts(one))
    convolutions = [p for p in parts if p.operation == "convolution"]
    if "resize" in one.path.split("/"):
      return "resize"
    if convolutions:
      return _convolution(convolutions[-1])
    if "statistics" in one.path.split("/"):
      return "norm statistics"
    if layer(one.path) == "loss":
      return "loss"
    # A computation lists its root last.
    root = parts[-1].operation
    if one.operation in MOVES or root in MOVES or "copy" in one.name:
      return "copies"
    if layer(one.path) == "update":
      return "update"
    if any(p.operation in ("reduce", "reduce-window") for p in parts):
      return "reductions"
    return "elementwise"

  def collectives(self) -> dict[str, dict[str, int]]:
    """Return the number of each collective, and the bytes of its results."""
    found: dict[str, dict[str, int]] = {}
    for one, times in self.schedule:
      # An asynchronous one has two instructions, -start and -done.
      name = one.operation.removesuffix("-start")
      if name in COLLECTIVES:
        row = found.setdefault(name, {"count": 0, "bytes": 0})
        row["count"] += times
        row["bytes"] += times * one.size
    return found


def layer(path: str) -> str:
  """Return the layer of an instruction's path, two names deep.

  What is traced outside of all layers is the "image" (the network's own first
  operations), the "loss", or the "update" of the parameters.
  """
  names = path.split("/")[:-1]
  own = [n for n in names if re.fullmatch(r"[a-z]\w*", n) and n not in LOOPS]
  if own[:1] and own[0] in PARTS:
    return "/".join(own[:2])
  if "DeepLab" in path:
    return "image"
  return "loss" if "jvp(" in path else "update"


# The network's own submodules; how JAX names what surrounds them.
PARTS = ("backbone", "head", "decoder", "logits", "auxiliary")
LOOPS = ("shard_map", "while", "body", "cond", "closed_call", "checkpoint")


def _convolution(one: Instruction) -> str:
  grouped = re.search(r"(?:feature|batch)_group_count=(?!1\b)\d", one.rest)
  name = "depthwise" if grouped else "convolution"
  # The batch is a kernel gradient's channel; an input gradient's kernel is
  # read the other way round.
  labels = re.search(r"dim_labels=(\w+)_(\w+)->", one.rest)
  if labels and labels[1].startswith("f"):
    return f"{name}, kernel gradient"
  back = "transpose(" in one.path
  return f"{name}, input gradient" if back else f"{name}, forward"


def _shape(text: str) -> tuple[str, str]:
  """Split a line behind its "=" into the result's type and the rest."""
  depth = 0
  for place, letter in enumerate(text):
    depth += (letter in "({") - (letter in ")}")
    if letter == " " and not depth:
      return text[:place], text[place + 1 :]
  return text, ""


def _inside(text: str) -> str:
  """Return what stands before the bracket that was opened before the text."""
  depth = 1
  for place, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return text[:place]
  return text


def _bytes(kind: str) -> int:
  return BYTES[kind] if kind in BYTES else max(int(kind[1:]) // 8, 1)
