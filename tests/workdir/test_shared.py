"""Several processes must see one workdir."""

import threading
from typing import Any

import pytest

from deeplax import errors
from deeplax import parallel
from deeplax.workdir import shared


class Processes:
  """Threads that stand for processes: each has a number and gathers."""

  def __init__(self, monkeypatch, count):
    self.count, self.local = count, threading.local()
    self.given, self.barrier = [0] * count, threading.Barrier(count, timeout=60)
    monkeypatch.setattr(parallel, "rank", lambda: self.local.rank)
    monkeypatch.setattr(parallel, "gathered", self.gathered)
    monkeypatch.setattr(shared, "OUT_OF_DATE", 0.3)

  def gathered(self, number):
    self.given[self.local.rank] = number
    self.barrier.wait()
    found = [*self.given]
    self.barrier.wait()
    return found

  def refused(self, *workdirs):
    """Return what each process is told; None: it goes on."""
    said: list[Any] = [None] * self.count

    def run(rank):
      self.local.rank = rank
      try:
        shared.refuse_apart(workdirs[rank])
      except errors.InputError as error:
        said[rank] = str(error)

    threads = [
      threading.Thread(target=run, args=(rank,)) for rank in range(self.count)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    return said


def test_one_folder_is_seen_by_all_and_left_as_it_was(tmp_path, monkeypatch):
  workdir = tmp_path / "run"
  assert Processes(monkeypatch, 3).refused(*[workdir] * 3) == [None] * 3
  assert not [*workdir.iterdir()]


def test_another_folder_on_one_host_is_refused_by_all(tmp_path, monkeypatch):
  own = tmp_path / "own"
  workdirs = (tmp_path / "run", own, tmp_path / "run")
  said = Processes(monkeypatch, 3).refused(*workdirs)
  for text in said:
    assert "1 of 0 to 2 do not see" in text
  assert not [*(tmp_path / "run").iterdir()]


def test_a_token_of_an_earlier_start_does_not_count(tmp_path, monkeypatch):
  own = tmp_path / "own"
  own.mkdir()
  (own / "token.txt").write_text("7")
  said = Processes(monkeypatch, 2).refused(tmp_path / "run", own)
  assert all("1 of 0 to 1 do not see" in text for text in said)


@pytest.mark.parametrize("number", [0, 7, 2**31, 2**40 + 3])
def test_a_number_of_one_process_is_itself(number):
  assert parallel.gathered(number) == [number]
