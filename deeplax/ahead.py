"""Work on the next items while the result of the first one is used."""

import collections
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent import futures
import dataclasses
import functools
from typing import Generic, TypeVar

from deeplax import clocks

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Result(Generic[Value]):
  """Work in progress whose value `get` waits for, or computes."""

  get: Callable[[], Value]

  def result(self) -> Value:
    """Return the value, or raise the exception of the work."""
    return self.get()


def ahead(
  items: Iterable[Item],
  submit: Callable[[Item], Result[Value] | futures.Future[Value]],
  n: int | Callable[[], int],
  *,
  clock: dict[str, float] | None = None,
  name: str = "wait",
) -> Iterator[tuple[Item, Value]]:
  """Yield (item, value) in order, each once `n` later items are submitted.

  Args:
    items: Taken one by one, as they are submitted.
    submit: Starts the work on an item. An exception of the work ends the pass.
    n: 0 waits for an item before the next one is taken. A function is asked
      after each item.
    clock: Receives the seconds spent waiting for values under `name`.
    name: Key of `clock`.
  """
  waiting = collections.deque()

  def first() -> tuple[Item, Value]:
    item, pending = waiting.popleft()
    with clocks.timed(clock, name):
      return item, pending.result()

  for item in items:
    waiting.append((item, submit(item)))
    while len(waiting) > (n if isinstance(n, int) else n()):
      yield first()
  while waiting:
    yield first()


def in_threads(
  function: Callable[[Item], Value],
  items: Iterable[Item],
  *,
  threads: int,
  n: int,
  clock: dict[str, float] | None = None,
  name: str = "wait",
) -> Generator[tuple[Item, Value], None, None]:
  """Yield (item, function(item)) in order; see `ahead`.

  After an exception, or when the caller stops, items that no thread has begun
  are dropped.

  Args:
    function: Is called in a thread.
    items: Taken in the caller's thread.
    threads: That call `function`; 0 counts as 1.
    n: See `ahead`.
    clock: See `ahead`.
    name: See `ahead`.
  """
  pool = futures.ThreadPoolExecutor(max(threads, 1))
  try:
    submit = functools.partial(pool.submit, function)
    yield from ahead(items, submit, n, clock=clock, name=name)
  finally:
    pool.shutdown(cancel_futures=True)
