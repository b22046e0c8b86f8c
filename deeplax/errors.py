"""The one way a command ends on wrong input: a message and exit status 2."""

from collections.abc import Callable, Iterator
import contextlib
import errno
import functools
import os
import signal
import sys
import threading
from typing import Any

INTERRUPTED = 130  # what a shell makes of SIGINT: 128 + 2
# Of a disk or of its rights, wherever a command meets them.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class InputError(Exception):
  """Wrong input. The message names the value, the file and the fix."""


def command(main: Callable[..., int | None]) -> Callable[..., None]:
  """Wrap a command's main so that it ends with a message, not a traceback.

  Exit status 2: wrong input, devices that JAX does not have, a disk that is
  full or may not be written. 130: Ctrl-C.
  """

  @functools.wraps(main)
  def wrapped(*args, **kwargs):
    _print_any_text()
    before = sys.unraisablehook
    sys.unraisablehook = functools.partial(_interrupt_again, before)
    try:
      sys.exit(main(*args, **kwargs) or 0)
    except InputError as error:
      _end(str(error))
    except KeyboardInterrupt:
      _tell_interrupt()
      sys.exit(INTERRUPTED)
    except BrokenPipeError:
      # The reader of the output, `head` for example, has seen enough.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)
    except OSError as error:
      if error.errno == errno.ENAMETOOLONG:
        _end(
          f"{error.filename}: no file can have a name as long as this. Give "
          "the right one"
        )
      if error.errno not in _DISK:
        raise
      _end(f"{error.filename or 'writing'}: {error.strerror}")
    except (AssertionError, RuntimeError) as error:
      if not _no_devices():
        raise
      _end(devices_text(error))
    except ImportError as error:
      # An extension that Ctrl-C met while it loaded.
      if not isinstance(
        error.__cause__ or error.__context__, KeyboardInterrupt
      ):
        raise
      _tell_interrupt()
      sys.exit(INTERRUPTED)
    finally:
      sys.unraisablehook = before

  return wrapped


def _interrupt_again(before: Callable[[Any], object], found: Any) -> None:
  """Send Ctrl-C anew where Python could not raise it, and would forget it.

  So it does in what runs between two lines: JAX's callback of the garbage
  collector meets most that arrive while a program is compiled.
  """
  if found.exc_type is KeyboardInterrupt:
    again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
  else:
    before(found)


def _end(message: str) -> None:
  print(f"deeplax: {message}", file=sys.stderr)
  sys.exit(2)


def _print_any_text() -> None:
  """Have output that cannot hold a class's name print it as \\u escapes."""
  if getattr(sys.stdout, "errors", "") == "strict":
    sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore


def _tell_interrupt() -> None:
  """Say that Ctrl-C has come; another ends the process where it is."""
  if threading.current_thread() is threading.main_thread():
    # Python waits for its threads at the end, and would show where.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  print("\ndeeplax: stopped by Ctrl-C", file=sys.stderr)


def tell_interrupts() -> None:
  """Let Ctrl-C end this process with a line while it still imports."""
  before = sys.excepthook

  def hook(kind, error, trace):
    if issubclass(kind, KeyboardInterrupt):
      _tell_interrupt()
    else:
      before(kind, error, trace)

  sys.excepthook = hook


def _no_devices() -> bool:
  """Whether JAX is loaded and cannot start its devices."""
  jax = sys.modules.get("jax")
  try:
    # JAX fails by an assertion where it has no plugin for the platform.
    return jax is not None and not jax.devices()
  except (AssertionError, RuntimeError):
    return True


def devices_text(error: BaseException) -> str:
  """Say which devices JAX does not have, and what to do."""
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
