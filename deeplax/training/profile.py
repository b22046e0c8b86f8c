"""A profiler trace of three steps: written to the workdir, told as a table."""

import collections
from collections.abc import Callable, Iterable, Sequence
import re
import shutil
from typing import Any, NamedTuple

from etils import epath
import jax

from deeplax import clocks

STEPS = 3
SHOWN = 10  # kernels in the table

LIBRARY = "convolution or matrix product of a library"
# What cuBLAS, cuDNN and CUTLASS call their kernels.
_LIBRARY = re.compile(r"gemm|cutlass|xmma|nvjet|convolve|cudnn|sm\d\d_")
_ACCELERATOR = re.compile(r"/device:(GPU|TPU):")
_HOST = "/host:CPU"


class Event(NamedTuple):
  """A kernel that ran: its name, the instruction it belongs to, how long.

  The time is its own: that of kernels that ran inside it, as in a loop, is not
  in it.
  """

  kernel: str
  instruction: str
  seconds: float


def kind(kernel: str) -> str:
  """Return what kernels of the same work share of their names."""
  if _LIBRARY.search(kernel):
    return LIBRARY
  return re.sub(r"[_.]*\d+", "", kernel).rstrip("_.") or kernel


def grouped(events: Iterable[Event]) -> dict[str, list[Event]]:
  """Return the events by kind, the one that took longest first."""
  kinds = collections.defaultdict(list)
  for event in events:
    kinds[kind(event.kernel)].append(event)
  return dict(sorted(kinds.items(), key=lambda kind: -seconds(kind[1])))


def seconds(events: Iterable[Event]) -> float:
  """Return the time that events took together."""
  return sum((event.seconds for event in events), 0.0)


def events(session: epath.PathLike) -> list[Event]:
  """Return what ran on the first device, by a trace's own folder.

  Without an accelerator that is the first CPU device, with the time of all its
  threads.
  """
  (path,) = epath.Path(session).glob("*.xplane.pb")
  data = jax.profiler.ProfileData.from_serialized_xspace(path.read_bytes())
  return of_planes(data.planes)


def of_planes(planes: Iterable[Any]) -> list[Event]:
  """Return the events of the first device among the profiler's planes."""
  planes = list(planes)
  for plane in planes:
    if _ACCELERATOR.match(plane.name):
      lines = [
        [(event, dict(event.stats)) for event in line.events]
        for line in plane.lines
        if "Stream" in line.name or line.name == "XLA Ops"
      ]
      if any(lines):
        return [event for line in lines for event in _own_times(line)]
  # A CPU's operations stand among all else that its threads did.
  lines = [
    [(e, stats) for e in line.events if "hlo_op" in (stats := dict(e.stats))]
    for plane in planes
    if plane.name == _HOST
    for line in plane.lines
  ]
  numbers = {stats.get("device_ordinal", 0) for x in lines for _, stats in x}
  first = min(numbers, default=None)
  return [
    event
    for line in lines
    for event in _own_times(
      [pair for pair in line if pair[1].get("device_ordinal", 0) == first]
    )
  ]


class _Open(NamedTuple):
  number: int
  end: float


def _own_times(line: Sequence[tuple[Any, dict[str, Any]]]) -> list[Event]:
  """Return the events of a line, less the time of those inside them."""
  ordered = sorted(line, key=lambda e: (e[0].start_ns, -e[0].duration_ns))
  own = [event.duration_ns for event, _ in ordered]
  around: list[_Open] = []
  for number, (event, _) in enumerate(ordered):
    end = event.start_ns + event.duration_ns
    while around and around[-1].end <= event.start_ns:
      around.pop()
    # On a GPU a kernel may begin before the one ahead of it has ended.
    if around and end <= around[-1].end:
      own[around[-1].number] -= event.duration_ns
    around.append(_Open(number, end))
  found = []
  for (event, stats), nanoseconds in zip(ordered, own, strict=True):
    # A TPU's events are named by the text of their instruction.
    kernel = event.name.partition(" = ")[0].lstrip("%")
    instruction = str(stats.get("hlo_op", kernel))
    found.append(Event(kernel, instruction, nanoseconds / 1e9))
  return found


def table(kernels: Sequence[Event], *, steps: int) -> str:
  """Return the largest kinds as lines: share, ms and calls of a step, name."""
  whole = seconds(kernels)
  lines = [f"  {'share':>6}  {'ms/step':>9}  {'calls/step':>10}  kernel"]
  for name, members in list(grouped(kernels).items())[:SHOWN]:
    took = seconds(members)
    lines.append(
      f"  {took / whole if whole else 0:6.1%}  {1e3 * took / steps:9.3f}  "
      f"{len(members) / steps:10.1f}  {name}"
    )
  return "\n".join(lines)


class Profile:
  """Traces `STEPS` steps and tells what took longest.

  A trace that fails costs a warning, never the training.

  Attributes:
    first: The first step that is traced; 0: none is.
    running: Whether a trace is being taken.
  """

  def __init__(
    self, folder: epath.PathLike, first: int, progress: Callable[[str], None]
  ):
    self.first, self.running = first, False
    self._folder, self._progress = epath.Path(folder), progress
    self._name = f"step_{first}"
    # What jax.profiler writes, where TensorBoard and XProf look for it.
    self._trace = self._folder / f"plugins/profile/{self._name}"

  @property
  def last(self) -> int:
    """The last step that is traced, unless the run stops before."""
    return self.first + STEPS - 1

  def start(self, state: Any, clock: dict[str, float]) -> None:
    """Start the trace once `state` is computed; that alone is timed."""
    with clocks.timed(clock, "train"):
      jax.block_until_ready(state)
    options: Any = jax.profiler.ProfileOptions()
    options.session_id = self._name
    # Each call of a Python function, of the data's threads too, is not wanted.
    options.python_tracer_level = 0
    # One of another start, perhaps on another machine, would stand beside it.
    shutil.rmtree(self._trace, ignore_errors=True)
    try:
      jax.profiler.start_trace(self._folder, profiler_options=options)
    except Exception as error:
      self._warn(error)
    else:
      self.running = True

  def stop(self, step: int, metrics: Any, clock: dict[str, float]) -> None:
    """Write a running trace and print its table; a failure leaves nothing.

    Args:
      step: The last that is in it.
      metrics: Of this step, which are waited for; that alone is timed.
      clock: Of the training.
    """
    if not self.running:
      return
    with clocks.timed(clock, "train"):
      jax.block_until_ready(metrics)
    self.running = False
    try:
      jax.profiler.stop_trace()
      kernels = events(self._trace)
    except Exception as error:  # whatever a profiler writes
      shutil.rmtree(self._trace, ignore_errors=True)
      self._warn(error)
      return
    steps = step - self.first + 1
    self._progress(
      f"profile of steps {self.first} to {step}: "
      f"{1e3 * seconds(kernels) / steps:.1f} ms of kernels a step\n"
      f"{table(kernels, steps=steps)}\n"
      f"the trace is in {self._trace}. Look at it with xprof {self._folder} "
      f"(pip install xprof) or tensorboard --logdir={self._folder}, or open "
      "its trace.json.gz at ui.perfetto.dev"
    )

  def _warn(self, error: Exception) -> None:
    self._progress(
      f"deeplax: train.profile {self.first}: no profile is written "
      f"({str(error).splitlines()[0]}). Training goes on"
    )


NONE = Profile("", 0, print)


def of_run(
  first: int,
  folder: epath.PathLike,
  *,
  resume: int,
  progress: Callable[[str], None],
) -> Profile:
  """Return the profile of a run; only its first process takes one.

  Args:
    first: `train.profile`, 0 for none.
    folder: Where the trace goes.
    resume: The step that the run goes on from; it is behind it.
    progress: Receives the table, or that nothing is profiled.
  """
  if not first or jax.process_index() > 0:
    return NONE
  if first <= resume:
    progress(
      f"train.profile {first}: nothing is profiled, the run goes on from step "
      f"{resume}"
    )
    return NONE
  return Profile(folder, first, progress)
