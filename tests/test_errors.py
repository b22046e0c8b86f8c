"""How commands end: with a message and a status, never with a traceback."""

import errno
import io
import os
import signal
import subprocess
import sys
import time

import pytest

from deeplax import errors
from tests import commands


def status(main, *arguments: object) -> object:
  """Run a command's main and return its exit status."""
  with pytest.raises(SystemExit) as end:
    errors.command(main)(*arguments)
  return end.value.code


def test_ctrl_c_is_one_line_and_130(capsys):
  def main():
    signal.raise_signal(signal.SIGINT)

  assert status(main) == 130
  assert capsys.readouterr() == ("", "\ndeeplax: stopped by Ctrl-C\n")
  # The next one ends the process, whatever it still waits for.
  assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_ctrl_c_between_two_lines_is_not_forgotten(capsys):
  class Gone:
    def __del__(self):  # Python cannot raise from here
      signal.raise_signal(signal.SIGINT)

  def main():
    Gone()
    time.sleep(5)
    return 0

  hook = sys.unraisablehook
  assert status(main) == 130
  assert capsys.readouterr().err == "\ndeeplax: stopped by Ctrl-C\n"
  assert sys.unraisablehook is hook


def test_ctrl_c_while_an_extension_loads_is_one_line(capsys):
  def main():
    raise ImportError("in the extension") from KeyboardInterrupt()

  assert status(main) == 130
  assert capsys.readouterr().err == "\ndeeplax: stopped by Ctrl-C\n"


# Python runs such a file at its start; this one presses Ctrl-C at an import.
PRESSED = """\
import signal, sys
class Finder:
  def find_spec(self, name, path=None, target=None):
    if name == {module!r}:
      signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
  ("name", "words", "module"),
  [
    ("doctor", (), "jax"),
    ("evaluate", ("--workdir=none",), "deeplax.inference.asked"),
    ("score", ("a", "b"), "deeplax.data.mask_folders"),
    # Before the command has begun.
    ("main", (commands.DEBUG,), "ml_collections"),
    ("crf.search", ("--workdir=none",), "deeplax.flags"),
  ],
)
def test_ctrl_c_while_a_command_imports_is_one_line(
  tmp_path, name, words, module
):
  (tmp_path / "sitecustomize.py").write_text(PRESSED.format(module=module))
  done = commands.process(name, *words, PYTHONPATH=str(tmp_path))
  assert_ctrl_c(done)


def test_ctrl_c_while_an_experiment_imports_is_one_line(tmp_path):
  text = PRESSED.format(module="deeplax.ablation.experiment")
  (tmp_path / "sitecustomize.py").write_text(text)
  done = subprocess.run(
    [sys.executable, "-m", "experiments.run", "--help"],
    cwd=commands.ROOT,
    env=commands.environment(PYTHONPATH=str(tmp_path)),
    capture_output=True,
    text=True,
    check=False,
  )
  assert_ctrl_c(done)


def assert_ctrl_c(done: subprocess.CompletedProcess[str]):
  assert done.stderr == "\ndeeplax: stopped by Ctrl-C\n", done.stderr[-2000:]
  # To a shell they are the same.
  assert done.returncode in (130, -signal.SIGINT)


@pytest.mark.parametrize(
  "platform",
  [
    "cuda",
    pytest.param("tpu", marks=pytest.mark.slow),
    pytest.param("nonsense", marks=pytest.mark.slow),
  ],
)
def test_devices_that_are_not_there_are_one_line(platform):
  # A process of its own: JAX starts its devices once.
  code = (
    "from deeplax import errors\n"
    "@errors.command\n"
    "def main():\n"
    "  import jax.numpy as jnp\n"
    "  jnp.zeros(1)\n"
    "main()"
  )
  for asked, ends in ((platform, 2), ("cpu", 0)):  # what the message advises
    done = subprocess.run(
      [sys.executable, "-c", code],
      cwd=commands.ROOT,
      env=commands.environment(JAX_PLATFORMS=asked),
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == ends, done.stderr[-2000:]
    if ends:
      (line,) = done.stderr.splitlines()
      assert line.startswith(f"deeplax: JAX_PLATFORMS={asked}: JAX cannot")
      assert "Set JAX_PLATFORMS=cpu" in line


def test_other_errors_of_that_kind_keep_their_traceback():
  def main():
    raise RuntimeError("a fault of deeplax")

  with pytest.raises(RuntimeError, match="a fault"):
    errors.command(main)()


@pytest.mark.parametrize(
  "number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT]
)
def test_a_disk_that_takes_nothing_is_one_line(number, capsys):
  def main():
    raise OSError(number, os.strerror(number), "runs/a/eval")

  assert status(main) == 2
  told = f"deeplax: runs/a/eval: {os.strerror(number)}\n"
  assert capsys.readouterr().err == told


def test_a_file_that_deeplax_should_have_looked_for_keeps_its_traceback():
  def main():
    raise FileNotFoundError(errno.ENOENT, "No such file", "a")

  with pytest.raises(FileNotFoundError):
    errors.command(main)()


@pytest.mark.parametrize(
  ("encoding", "printed"),
  [
    ("ascii", b"Stra\\xdfe \\u2192 caf\\xe9"),
    ("cp1252", b"Stra\xdfe \\u2192 caf\xe9"),
    ("utf-8", "Straße → café".encode()),
  ],
)
def test_what_an_output_cannot_hold_is_escaped(encoding, printed, monkeypatch):
  file = io.BytesIO()
  monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding))

  def main():
    print("Straße → café", end="", flush=True)

  assert status(main) == 0
  assert file.getvalue() == printed


@pytest.mark.parametrize(
  "text",
  [
    # While compiling, by libtpu 0.0.52 and before.
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
    "the total memory required for HLO temporaries (24.74G) exceeds available "
    "HBM (15.75G). HLO module: jit_many.",
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
    "memory space hbm. Used 21.95G of 15.48G hbm.",
    # While running: CPU, GPU and TPU.
    "RESOURCE_EXHAUSTED: Out of memory allocating 16000000000000 bytes.",
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8.01GiB.",
    "RESOURCE_EXHAUSTED: Failed to allocate request for 176.00MiB (184549376B) "
    "on device ordinal 0",
    "RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to "
    "allocate 15.65G. That was not possible. There are 11.08G free.",
    "RESOURCE_EXHAUSTED: Attempting to reserve 10.51G at the bottom of memory.",
  ],
)
def test_errors_of_memory_are_told(text):
  assert errors.out_of_memory(RuntimeError(text))
  # Others may quote it.
  assert not errors.out_of_memory(ValueError(text))


@pytest.mark.parametrize(
  "text",
  [
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 32.42M",
    "RESOURCE_EXHAUSTED: Shared memory size limit exceeded: requested 264192",
    "RESOURCE_EXHAUSTED: run/vm.xplane.pb; No space left on device",
    "INTERNAL: failed to allocate a name",
  ],
)
def test_other_exhausted_resources_are_not_memory(text):
  assert not errors.out_of_memory(RuntimeError(text))


def test_the_cpu_runs_out_of_memory_by_such_an_error():
  import jax.numpy as jnp

  with pytest.raises(RuntimeError) as caught:
    jnp.zeros((2_000_000, 2_000_000))
  assert errors.out_of_memory(caught.value)


def test_a_command_without_memory_ends_with_a_line(capsys):
  @errors.command
  def main():
    raise RuntimeError(
      "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8.01GiB.\n"
      "BufferAssignment report"
    )

  with pytest.raises(SystemExit) as ended:
    main()
  assert ended.value.code == 2
  said = capsys.readouterr().err
  assert said.startswith("deeplax: a device's memory does not suffice (RESOU")
  assert "8.01GiB" in said and "BufferAssignment" not in said
