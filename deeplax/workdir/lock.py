"""One writer at a time: a workdir is held while something trains in it.

The lock is the operating system's (flock), so it ends with its process, however
that ends; the file beside it only says who holds it.
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

# What a file system says that has no locks.
_WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(workdir: epath.PathLike, flag: str = "--workdir") -> Iterator[None]:
  """Hold a workdir, which is made if need be, for as long as the block takes.

  An object store (gs://) has no locks: nothing is held there.

  Args:
    workdir: The folder.
    flag: That named it, for the messages.

  Raises:
    InputError: Another process holds it (the message says which), or the
      folder cannot be written.
  """
  if "://" in str(workdir):
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
    # What went wrong with the disk has been told, and an unlocked file stops
    # nobody; a folder in which something was written stays.
    with contextlib.suppress(OSError):
      (folder / layout.LOCK).unlink(missing_ok=True)
      file.close()
      if made:
        folder.rmdir()


def _take(folder: pathlib.Path, flag: str) -> IO[str]:
  """Return the lock's file, locked and written."""
  path = folder / layout.LOCK
  while True:
    file = open(path, "a+")  # "w" would wipe out the holder's name
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
      print(
        f"deeplax: {folder} lies on a file system without locks "
        f"({error.strerror}): see to it that nothing else trains there",
        file=sys.stderr,
      )
    # Its last holder may have taken the file away between the two calls.
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
  """Say who holds a lock, from its file."""
  try:
    holder = json.loads(path.read_text())
    return (
      f"process {holder['process']} on {holder['host']}, since "
      f"{holder['since']}"
    )
  except (OSError, ValueError, KeyError, TypeError):
    return f"{path} does not say which"
