"""Durations as they are printed, and the lines of a long pass or call."""

import io
import os
import shutil
import sys
import threading

import jax
import pytest

from deeplax import clocks


def test_durations_are_short():
  assert clocks.duration(45.2) == "45 s"
  assert clocks.duration(725.0) == "12:05"
  assert clocks.duration(11525.0) == "3:12:05"
  assert clocks.duration(float("inf")) == "?"


def lines_of(total, steps, **settings):
  """Return the lines of a pass, from (seconds, count) of its steps."""
  lines, time = [], [0.0]
  report = clocks.Progress(
    total, lines.append, name="fetched", now=lambda: time[0], **settings
  )
  for seconds, count in steps:
    time[0] = seconds
    report.step(count)
  return lines


def test_progress_is_a_line_now_and_then_and_one_at_the_end():
  lines = lines_of(40, [(4, 8), (5, 2), (10, 10), (15, 10), (17, 10)])
  assert lines == [
    "fetched 10/40 images  2.0 images/s  ETA 15 s",
    "fetched 30/40 images  2.0 images/s  ETA 5 s",
    "fetched 40/40 images  2.4 images/s  ETA 0 s",
  ]
  assert len(lines_of(2, [(4, 1), (6, 1)])) == 1
  assert not lines_of(2, [(2, 1), (4, 1)])


def test_what_an_earlier_command_has_done_counts_in_no_speed():
  megabytes = {"unit": "MB", "scale": 1e6, "done": 50_000_000}
  lines = lines_of(100_000_000, [(4, 5_000_000), (20, 15_000_000)], **megabytes)
  assert lines == ["fetched 70/100 MB  1.0 MB/s  ETA 30 s"]


def test_time_spent_inside_is_added_up_by_name():
  clock = {}
  for _ in range(2):
    with clocks.timed(clock, "load"):
      pass
  assert list(clock) == ["load"] and clock["load"] >= 0


class Lines(list):
  """Lines, and an event that the second has come."""

  def __init__(self):
    super().__init__()
    self.second = threading.Event()

  def append(self, line):
    super().append(line)
    if len(self) == 2:
      self.second.set()


class Output(io.StringIO):
  """A terminal, or a pipe, that keeps what it shows in `lines`."""

  def __init__(self, terminal):
    super().__init__()
    self.lines, self._terminal = Lines(), terminal

  def isatty(self):
    return self._terminal

  def write(self, text):
    if text:
      self.lines.append(text)
    return len(text)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_call_tells_how_long_it_takes(monkeypatch, terminal):
  lines, output = Lines(), Output(terminal)
  monkeypatch.setattr(sys, "stdout", output)
  progress = print if terminal else lines.append
  with clocks.ticking("compiling", progress, every=0.01):
    assert (output.lines if terminal else lines).second.wait(60)
  shown, other = (output.lines, lines) if terminal else (lines, output.lines)
  assert not other
  end = [shown.pop()] if terminal else []
  assert end == [clocks.ERASE] * terminal
  erase = clocks.ERASE if terminal else ""
  assert {line.partition(" ... ")[0] for line in shown} == {f"{erase}compiling"}
  assert shown[0].endswith(" ... 0 s")


def test_the_note_on_a_slow_compile_comes_late(monkeypatch):
  lines = Lines()
  monkeypatch.setattr(clocks, "LONG", -1.0)
  with clocks.ticking("compiling", lines.append, every=0.01):
    assert lines.second.wait(60)
  assert lines[0] == f"compiling ... 0 s{clocks.NORMAL}"


def test_a_terminal_has_one_row_and_other_progress_has_none(monkeypatch):
  lines, output = Lines(), Output(True)
  monkeypatch.setattr(sys, "stdout", output)
  monkeypatch.setattr(
    shutil, "get_terminal_size", lambda: os.terminal_size((20, 5))
  )
  with clocks.ticking("compiling the training step", print, every=0.01):
    assert output.lines.second.wait(60)
  assert output.lines[0] == f"{clocks.ERASE}compiling the train"
  del output.lines[:]
  with clocks.ticking("compiling", lines.append, every=0.01):
    assert lines.second.wait(60)
  assert not output.lines


def test_a_short_call_and_other_processes_are_silent(monkeypatch):
  lines, before = [], threading.active_count()
  with clocks.ticking("compiling", lines.append):
    assert threading.active_count() == before + 1
  assert threading.active_count() == before
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  with clocks.ticking("compiling", lines.append, every=0.01):
    assert threading.active_count() == before
  assert not lines


def test_the_line_ends_with_a_call_that_fails():
  before = threading.active_count()
  with pytest.raises(KeyError):
    with clocks.ticking("compiling", print):
      raise KeyError
  assert threading.active_count() == before
