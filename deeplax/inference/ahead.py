"""Hand out one prediction while the device works on the next image."""

import collections
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Num
import numpy as np

from deeplax import clocks


@runtime_checkable
class Submits(Protocol):
  """What predicts for `stream`."""

  def submit(
    self, image: Num[np.ndarray, "h w c"], *, kind: str = "labels"
  ) -> Any:
    """Start a prediction; its `result()` waits for it."""
    ...


def stream(
  predictor: Submits,
  items: Iterable[dict[str, Any]],
  *,
  kind: str = "labels",
  ahead: int = 1,
  clock: dict[str, float] | None = None,
) -> Iterator[tuple[dict[str, Any], Any]]:
  """Yield (item, prediction) in order while the device works on the next.

  Args:
    predictor: Predicts.
    items: Dicts with "image".
    kind: See `Predictor.submit`.
    ahead: Images given to the device beyond the one yielded.
    clock: Receives the seconds waited under "load" and "compute".
  """
  clock = {} if clock is None else clock
  waiting = collections.deque()
  iterator = iter(items)
  while True:
    with clocks.timed(clock, "load"):
      item = next(iterator, None)
    if item is not None:
      with clocks.timed(clock, "compute"):
        waiting.append((item, predictor.submit(item["image"], kind=kind)))
    if not waiting:
      return
    if item is None or len(waiting) > ahead:
      done, pending = waiting.popleft()
      with clocks.timed(clock, "compute"):
        found = pending.result()
      yield done, found
