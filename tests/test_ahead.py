"""Work ahead: the order, how far ahead, exceptions, and what is dropped."""

import time

import pytest

from deeplax import ahead


def _squares(events, n):
  """Squares of 0 to 4; `events` receives what happens, in order."""

  def submit(item):
    events.append(f"submit {item}")

    def get():
      events.append(f"wait {item}")
      return item**2

    return ahead.Result(get)

  return ahead.ahead(range(5), submit, n)


@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_values_come_in_order_with_their_items(n):
  assert list(_squares([], n)) == [(i, i**2) for i in range(5)]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_so_many_later_items_are_submitted_before_one_is_waited_for(n):
  events = []
  for item, _ in _squares(events, n):
    submitted = [e for e in events if e.startswith("submit")]
    assert len(submitted) == min(item + 1 + n, 5)
    assert events[-1] == f"wait {item}"


def test_no_items_are_no_values():
  assert list(ahead.ahead([], lambda _: ahead.Result(int), 3)) == []


def test_the_clock_receives_what_is_waited_for_values():
  clock = {}

  def submit(_):
    return ahead.Result(lambda: time.sleep(0.02))

  def slow():
    for i in range(3):
      time.sleep(0.1)  # is not waiting for a value
      yield i

  list(ahead.ahead(slow(), submit, 1, clock=clock, name="save"))
  assert set(clock) == {"save"} and 0.06 <= clock["save"] < 0.3


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_keep_the_order(threads):
  def slow_first(item):
    time.sleep(0.03 if item == 0 else 0)
    return -item

  values = ahead.in_threads(slow_first, range(9), threads=threads, n=3)
  assert list(values) == [(i, -i) for i in range(9)]


def test_an_exception_ends_the_pass_and_drops_what_is_not_begun():
  begun = []

  def function(item):
    begun.append(item)
    time.sleep(0.02)
    if item == 0:
      raise ValueError("item 0")

  with pytest.raises(ValueError, match="item 0"):
    list(ahead.in_threads(function, range(50), threads=1, n=20))
  taken = len(begun)
  time.sleep(0.1)
  assert len(begun) == taken < 20


def test_a_caller_that_stops_drops_what_is_not_begun():
  begun = []

  def function(item):
    begun.append(item)
    time.sleep(0.02)

  values = ahead.in_threads(function, range(50), threads=1, n=20)
  next(values)
  values.close()
  taken = len(begun)
  time.sleep(0.1)
  assert len(begun) == taken < 20
