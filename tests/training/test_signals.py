"""Ctrl-C and SIGTERM are answered while Python cannot run a line."""

import os
import signal
import subprocess
import sys
import threading
import types

import pytest

from deeplax import parallel
from deeplax.training import signals

# A call that neither returns early nor lets Python run: the answer comes from
# the thread all the same, before the line behind the call.
BUSY = """
import ctypes, os, signal, sys, threading
from deeplax.training import signals

def wait(milliseconds):  # select, called again when a signal interrupts it
  libc = ctypes.CDLL(None)
  class Time(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("us", ctypes.c_long)]
  left = Time(0, 1000 * milliseconds)
  while libc.select(0, None, None, None, ctypes.byref(left)):
    pass

with signals.watched(lambda text: print(text, flush=True)) as watch:
  watch.training = sys.argv[1] == "training"
  number = getattr(signal, sys.argv[2])
  for delay in map(float, sys.argv[3:]):
    threading.Timer(delay, os.kill, (os.getpid(), number)).start()
  wait(500)
  print("the call is over", watch.stopped(), flush=True)
  print("went on", flush=True)
"""


def run(*arguments):
  done = subprocess.run(
    [sys.executable, "-c", BUSY, *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(
  ("name", "shown"), [("SIGINT", "Ctrl-C"), ("SIGTERM", "SIGTERM")]
)
def test_a_signal_in_training_is_answered_within_a_call(name, shown):
  code, lines, stderr = run("training", name, "0.05")
  assert code == 0, stderr
  assert lines[0].startswith(f"{shown}: saving after this step")
  assert lines[-2:] == ["the call is over True", "went on"]


def test_the_second_signal_ends_at_once():
  code, lines, _ = run("training", "SIGINT", "0.05", "0.35")
  assert code == 130
  assert lines[-1] == "Ctrl-C again: ended at once"


@pytest.mark.parametrize(("name", "code"), [("SIGINT", -2), ("SIGTERM", 143)])
def test_before_training_a_signal_ends_the_command(name, code):
  found, lines, _ = run("starting", name, "0.05")
  assert found == code and "went on" not in lines
  assert "ending as soon as the compiler is done" in lines[0]


def test_signals_at_once_are_one():
  code, lines, _ = run("training", "SIGINT", "0.05", "0.06", "0.07")
  assert code == 0 and "Ctrl-C again: ended at once" not in lines


def test_what_is_sent_again_is_no_second_signal(monkeypatch):
  now, said = [0.0], []
  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(signals, "time", clock)
  monkeypatch.setattr(os, "_exit", lambda code: said.append(f"exit {code}"))
  watch = signals.Watch(said.append)
  watch.arrive(signal.SIGINT)
  now[0] = 60.0  # the compiler is done
  with pytest.raises(KeyboardInterrupt):
    watch.handle(signal.SIGINT, None)
  now[0] += 0.05  # of `errors.command`
  watch.arrive(signal.SIGINT)
  assert len(said) == 1
  now[0] += 1.0
  watch.arrive(signal.SIGINT)
  assert said[1:3] == ["Ctrl-C again: ended at once", "exit 130"]


def test_several_processes_ask_by_number_until_they_agree(monkeypatch):
  asked = []

  def stop_together(call):
    asked.append(call)
    return call == 3

  monkeypatch.setattr(parallel, "stop_together", stop_together)
  watch = signals.Watch(print, together=True)
  assert [watch.stopped() for _ in range(5)] == [False] * 2 + [True] * 3
  assert asked == [1, 2, 3]  # JAX would deny a later call


def test_ctrl_c_to_one_of_several_processes_becomes_the_notice(monkeypatch):
  said, sent = [], []
  monkeypatch.setattr(os, "kill", lambda process, number: sent.append(number))
  monkeypatch.setattr(os, "_exit", lambda code: said.append(f"exit {code}"))
  monkeypatch.setattr(signals, "TOGETHER", 0)
  watch = signals.Watch(said.append, together=True)
  watch.training = True
  watch.arrive(signal.SIGINT)
  assert sent == [signal.SIGTERM] and "all processes are told" in said[0]
  watch.arrive(signal.SIGINT)
  assert said[1:3] == ["Ctrl-C again: ended at once", "exit 130"]


def test_what_ignores_ctrl_c_in_the_background_goes_on_doing_so():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with signals.watched(print) as watch:
      os.kill(os.getpid(), signal.SIGINT)
      assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
      assert not watch.stopped()
  finally:
    signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_signals_keep_their_meaning():
  before, seen = signal.getsignal(signal.SIGINT), []

  def elsewhere():
    with signals.watched(seen.append) as watch:
      seen.append(watch.stopped())

  thread = threading.Thread(target=elsewhere)
  thread.start()
  thread.join()
  assert seen == [False] and signal.getsignal(signal.SIGINT) is before


def test_handlers_and_pipe_are_given_back():
  before = signal.getsignal(signal.SIGTERM)
  open_before = len(os.listdir("/dev/fd"))
  for _ in range(3):
    with signals.watched(print):
      assert signal.getsignal(signal.SIGTERM) is not before
  assert signal.getsignal(signal.SIGTERM) is before
  assert len(os.listdir("/dev/fd")) == open_before
