"""One writer at a time: a workdir is locked while a process trains in it.

The lock is the operating system's (flock), so it ends with its process, however
that ends; the contents of the locked file only name that process.
"""

from collections.abc import Iterator
import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import sys
from typing import IO

from etils import epath

from deeplax import errors
from deeplax.workdir import layout

# Errors of a file system without locks.
_WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(workdir: epath.PathLike, flag: str = "--workdir") -> Iterator[None]:
  """Lock a workdir, which is made if necessary, while the block runs.

  A bucket (gs://) has no locks, which is said.

  Args:
    workdir: The folder.
    flag: The flag that named it, for the messages.

  Raises:
    InputError: Another process, named in the message, has locked it, or the
      folder cannot be written.
  """
  if "://" in str(workdir):
    _tell_without(workdir, "a bucket")
    yield
    return
  folder = pathlib.Path(workdir)
  if folder.exists() and not folder.is_dir():
    raise errors.InputError(f"{flag}={folder} is a file; name a folder")
  made = not folder.exists()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = _take(folder, flag)
  except OSError as error:
    raise errors.InputError(
      f"{flag}={folder} cannot be written: {error.strerror}. Name a folder "
      "of your own"
    ) from error
  try:
    yield
  finally:
    # Errors of the disk have been reported, and a file that is left behind
    # without its lock stops nobody. rmdir fails if something was written.
    with contextlib.suppress(OSError):
      (folder / layout.LOCK).unlink(missing_ok=True)
      file.close()
      if made:
        folder.rmdir()


def _tell_without(workdir: epath.PathLike, where: str) -> None:
  print(
    f"deeplax: {workdir} lies in {where}, which has no locks: make sure that "
    "nothing else trains there",
    file=sys.stderr,
  )


def _take(folder: pathlib.Path, flag: str) -> IO[str]:
  """Return the lock file, locked, with this process's data in it."""
  path = folder / layout.LOCK
  while True:
    file = open(path, "a+")  # "w" would erase the holder's data
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      holder = _holder(path)
      file.close()
      raise errors.InputError(
        f"another process is training in {flag}={folder}: {holder}. Wait "
        "until it ends, or stop it with Ctrl-C (what it has done is kept), or "
        f"give this one its own {flag}"
      ) from error
    except OSError as error:
      if error.errno not in _WITHOUT:
        file.close()
        raise
      _tell_without(folder, f"a file system ({error.strerror})")
    # Its last holder may have deleted the file between the two calls.
    if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
      break
    file.close()
  file.truncate(0)
  now = datetime.datetime.now().astimezone()
  holder = {
    "host": socket.gethostname(),
    "process": os.getpid(),
    "since": now.isoformat(timespec="seconds"),
    "command": sys.argv,
  }
  file.write(json.dumps(holder) + "\n")
  file.flush()
  return file


def _holder(path: pathlib.Path) -> str:
  """Return in words which process holds a lock, as its file says."""
  try:
    holder = json.loads(path.read_text())
    return (
      f"process {holder['process']} on {holder['host']}, since "
      f"{holder['since']}"
    )
  except (OSError, ValueError, KeyError, TypeError):
    return f"{path} does not say which"
