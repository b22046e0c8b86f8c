"""How commands end on wrong input: with a message and exit status 2."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import functools
import gc
import os
import re
import signal
import sys
import threading
from typing import Any

INTERRUPTED = 130  # what a shell makes of SIGINT: 128 + 2
# Errors of a full disk or missing rights, wherever a command meets them.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
# What XLA's allocators and compilers write behind RESOURCE_EXHAUSTED, which
# alone may also mean a kernel's registers or a message's size.
_NO_MEMORY = re.compile(
  r"out of memory (?:on HBM|(?:while trying to )?allocat|in memory space hbm)"
  r"|failed to allocate|could not allocate|attempting to (?:allocate|reserve)",
  re.IGNORECASE,
)


# For gc.set_threshold. Tracing a network makes and drops millions of objects: a
# third of its time goes into the search for rings among them at Python's 700.
COLLECTED_AT = (50_000, 10, 10)


class InputError(Exception):
  """Wrong input. The message names the value, the file and the fix."""


def command(main: Callable[..., int | None]) -> Callable[..., None]:
  """Wrap a command's main so that it ends with a message, not a traceback.

  Exit status 2: wrong input, devices that JAX does not have, a disk that is
  full or write-protected. 130: Ctrl-C.
  """

  @functools.wraps(main)
  def wrapped(*args, **kwargs):
    _print_any_text()
    try:
      with long_work():
        sys.exit(main(*args, **kwargs) or 0)
    except InputError as error:
      _end(str(error))
    except KeyboardInterrupt:
      _tell_interrupt()
      sys.exit(INTERRUPTED)
    except BrokenPipeError:
      # The reader of the output, `head` for example, has closed it.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)
    except OSError as error:
      if error.errno == errno.ENAMETOOLONG:
        _end(
          f"{error.filename}: the name is too long for a file. Give the right "
          "one"
        )
      if error.errno not in _DISK:
        raise
      _end(f"{error.filename or 'writing'}: {error.strerror}")
    except (AssertionError, RuntimeError) as error:
      if out_of_memory(error):
        _end(
          f"a device's memory does not suffice ({str(error).splitlines()[0]}). "
          "End other programs on it, or take a smaller batch or smaller images"
        )
      if not _no_devices():
        raise
      _end(devices_text(error))
    except ImportError as error:
      # Ctrl-C while an extension was loading raises an ImportError.
      if not isinstance(
        error.__cause__ or error.__context__, KeyboardInterrupt
      ):
        raise
      _tell_interrupt()
      sys.exit(INTERRUPTED)

  return wrapped


@contextlib.contextmanager
def long_work() -> Iterator[None]:
  """Collect garbage rarely, and lose no Ctrl-C, while the block runs."""
  threshold, before = gc.get_threshold(), sys.unraisablehook
  gc.set_threshold(*COLLECTED_AT)
  sys.unraisablehook = functools.partial(_interrupt_again, before)
  try:
    yield
  finally:
    gc.set_threshold(*threshold)
    sys.unraisablehook = before


def _interrupt_again(before: Callable[[Any], object], found: Any) -> None:
  """Send Ctrl-C again where Python could not raise it and would drop it.

  That happens in callbacks: most that arrive while a program is compiled reach
  JAX's callback of the garbage collector.
  """
  if found.exc_type is KeyboardInterrupt:
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
  else:
    before(found)


def _end(message: str) -> None:
  # Not above: rooms that can be copied elsewhere take this file alone along.
  from deeplax import commands

  print(f"deeplax: {commands.as_typed(message)}", file=sys.stderr)
  sys.exit(2)


def _print_any_text() -> None:
  """Print characters that the output's encoding lacks as \\u escapes."""
  if getattr(sys.stdout, "errors", "") == "strict":
    sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore


def _tell_interrupt() -> None:
  """Report Ctrl-C; a further one ends the process at once."""
  if threading.current_thread() is threading.main_thread():
    # At exit Python waits for its threads, and would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  print("\ndeeplax: stopped by Ctrl-C", file=sys.stderr)


def tell_interrupts() -> None:
  """Make Ctrl-C end this process with a line, even while it imports."""
  before = sys.excepthook

  def hook(kind, error, trace):
    if issubclass(kind, KeyboardInterrupt):
      _tell_interrupt()
    else:
      before(kind, error, trace)

  sys.excepthook = hook


def _no_devices() -> bool:
  """Return whether JAX is loaded and cannot start its devices."""
  jax = sys.modules.get("jax")
  try:
    # Without a plugin for the platform JAX fails by an assertion.
    return jax is not None and not jax.devices()
  except (AssertionError, RuntimeError):
    return True


def out_of_memory(error: BaseException) -> bool:
  """Return whether an error says that a device's memory does not suffice.

  JAX raises such errors while it compiles, when it starts a program, or later,
  where a result is waited for.
  """
  text = str(error)
  return (
    isinstance(error, RuntimeError)  # jax.errors.JaxRuntimeError is one
    and "RESOURCE_EXHAUSTED" in text
    and _NO_MEMORY.search(text) is not None
  )


def devices_text(error: BaseException) -> str:
  """Return the message on devices that JAX cannot start."""
  asked = os.environ.get("JAX_PLATFORMS")
  reason = str(error).partition(" (set JAX_PLATFORMS")[0]
  return (
    (f"JAX_PLATFORMS={asked}: " if asked else "")
    + "JAX cannot start its devices"
    + (f" ({reason})" if reason else ", and was not installed for them")
    + ". Set JAX_PLATFORMS=cpu to go without, or install JAX for this machine"
  )


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
  """Turn a ValueError about a value of the configuration into a message."""
  try:
    yield
  except ValueError as error:
    raise InputError(str(error)) from error


@contextlib.contextmanager
def disk_errors(what: str, fix: str) -> Iterator[None]:
  """Turn an OSError into the message "what (the system's reason): fix"."""
  try:
    yield
  except OSError as error:
    raise InputError(f"{what} ({error.strerror or error}): {fix}") from error
