"""Two processes never write to one workdir, and a dead one holds nothing."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from deeplax import errors
from deeplax.workdir import lock

HOLD = """
import sys, time
from deeplax.workdir import lock
with lock.held(sys.argv[1]):
  print("held", flush=True)
  time.sleep(600)
"""


@contextlib.contextmanager
def holder(folder):
  """Another process that holds a workdir."""
  command = [sys.executable, "-c", HOLD, str(folder)]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  assert process.stdout.readline() == "held\n"
  try:
    yield process
  finally:
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_and_told_who_is_the_first(tmp_path):
  with holder(tmp_path) as process:
    with pytest.raises(errors.InputError) as refused:
      with lock.held(tmp_path):
        pass
    assert f"process {process.pid} on " in str(refused.value)
    assert str(tmp_path) in str(refused.value)
    # Killed, it holds nothing, though its file still lies there.
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "lock.json").exists()
    with lock.held(tmp_path):
      pass
  assert not (tmp_path / "lock.json").exists()


def test_a_second_writer_in_the_same_process_is_refused(tmp_path):
  with lock.held(tmp_path):
    with pytest.raises(errors.InputError, match=f"process {os.getpid()} on "):
      with lock.held(tmp_path):
        pass
    assert (tmp_path / "lock.json").exists()  # the refused one took nothing


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"host": "a"}'])
def test_a_file_that_does_not_say_who_refuses_all_the_same(tmp_path, text):
  with lock.held(tmp_path):
    (tmp_path / "lock.json").write_text(text)
    with pytest.raises(errors.InputError, match="does not say which"):
      with lock.held(tmp_path):
        pass


def test_a_run_that_wrote_nothing_leaves_no_folder(tmp_path):
  with lock.held(tmp_path / "runs" / "a"):
    pass
  assert not (tmp_path / "runs" / "a").exists()
  with lock.held(tmp_path / "runs" / "b"):
    (tmp_path / "runs" / "b" / "config.json").write_text("{}")
  assert (tmp_path / "runs" / "b" / "config.json").exists()


def test_what_cannot_be_a_workdir_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.InputError, match="file is a file; name a folder"):
    with lock.held(tmp_path / "file"):
      pass
  with pytest.raises(errors.InputError, match="cannot be written: Not a dir"):
    with lock.held(tmp_path / "file" / "below"):
      pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
  def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", flock)
  for workdir in (tmp_path, "gs://bucket/run"):
    with lock.held(workdir):
      pass
    told = capsys.readouterr().err
    assert str(workdir) in told
    assert "make sure that nothing else trains there" in told
