"""Threads that stand for processes: they have numbers and exchange arrays."""

from collections.abc import Callable
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from deeplax import errors


class Processes:
  """So many processes, in whose place threads of this one run."""

  def __init__(self, monkeypatch: Any, count: int):
    self._count, self._local = count, threading.local()
    self._barrier = threading.Barrier(count, timeout=60)
    self._given: list[Any] = [None] * count
    monkeypatch.setattr(jax, "process_count", lambda: count)
    monkeypatch.setattr(jax, "process_index", self.rank)
    monkeypatch.setattr(multihost_utils, "process_allgather", self._gathered)
    monkeypatch.setattr(
      multihost_utils,
      "broadcast_one_to_all",
      lambda array, is_source: self._gathered(array).sum(0, array.dtype),
    )

  def rank(self) -> int:
    """Return the number of this thread's process; other threads: 0."""
    return getattr(self._local, "rank", 0)

  def _gathered(self, array: np.ndarray) -> np.ndarray:
    self._given[self._local.rank] = array
    self._barrier.wait()
    found = np.stack(self._given)  # raises unless all are alike
    self._barrier.wait()
    return found

  def run(self, function: Callable[[int], Any]) -> list[Any]:
    """Return function(rank) of each process, or the InputError it raised."""
    found: list[Any] = [None] * self._count

    def one(rank: int) -> None:
      self._local.rank = rank
      try:
        found[rank] = function(rank)
      except errors.InputError as error:
        found[rank] = error
      except BaseException as error:
        found[rank] = error
        self._barrier.abort()

    threads = [
      threading.Thread(target=one, args=(rank,)) for rank in range(self._count)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    for result in found:
      if isinstance(result, BaseException) and not isinstance(
        result, errors.InputError
      ):
        raise result
    return found
