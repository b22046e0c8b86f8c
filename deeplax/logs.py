"""What a run writes beside its checkpoints: JSON, JSON lines, progress."""

from collections.abc import Iterator
import json
import math
import time
from typing import Any

from etils import epath


def write_json(path: epath.PathLike, value: Any) -> None:
  """Write JSON so that a reader sees the old file or the new, never a half."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  _replace(path, json.dumps(value, indent=2) + "\n")


def _replace(path: epath.Path, text: str) -> None:
  partial = path.parent / f".{path.name}.partial"
  partial.write_text(text)
  partial.replace(path)


def duration(seconds: float) -> str:
  """Return seconds as 45 s, 12:05 or 3:12:05."""
  if not math.isfinite(seconds):
    return "?"
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02d}:{rest:02d}"
  return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


class MetricLog:
  """metrics.jsonl: one line each time something was measured."""

  def __init__(self, path: epath.PathLike, *, resume_step: int, write: bool):
    """Open the log and cut it back to `resume_step`.

    Steps after the restored checkpoint will run again; their lines would stand
    there twice.
    """
    self._path = epath.Path(path)
    self._write = write
    if write and self._path.exists():
      kept = [
        line for line in read_jsonl(self._path) if line["step"] <= resume_step
      ]
      # Also where only a torn last line goes: the next one would join it.
      _replace(self._path, "".join(json.dumps(line) + "\n" for line in kept))

  def write(self, step: int, values: dict[str, Any]) -> None:
    """Append one line."""
    if self._write:
      with self._path.open("a") as file:
        file.write(json.dumps({"step": step, **values}) + "\n")


def read_jsonl(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yield the lines of a metrics.jsonl; a torn last line is left out."""
  for line in epath.Path(path).read_text().splitlines():
    try:
      yield json.loads(line)
    except json.JSONDecodeError:
      return


class Stopwatch:
  """Time since the last lap, and the part of it spent waiting for data."""

  def __init__(self):
    self.lap()

  def lap(self) -> tuple[float, float]:
    """Return (seconds, share spent waiting) and start anew."""
    now = time.perf_counter()
    seconds = now - getattr(self, "_start", now)
    share = getattr(self, "_waited", 0.0) / seconds if seconds else 0.0
    self._start, self._waited = now, 0.0
    return seconds, share

  def wait(self, iterator: Iterator) -> Any:
    """Take the next element and count the time it took as waiting."""
    start = time.perf_counter()
    element = next(iterator)
    self._waited += time.perf_counter() - start
    return element

  def pause(self, since: float) -> None:
    """Leave the time from `since` (perf_counter) until now out of this lap."""
    self._start += time.perf_counter() - since
