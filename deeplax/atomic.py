"""Write files whole or not at all, and read JSON lines."""

from collections.abc import Iterator
import contextlib
import hashlib
import io
import json
import os
from typing import IO, Any

from etils import epath

NAME_BYTES = 255  # longest file name of all common file systems


@contextlib.contextmanager
def replacing(path: epath.PathLike) -> Iterator[epath.Path]:
  """Give a path beside `path`, whose file takes its place after the block.

  A reader sees the old file or the new one, never a half; a block that fails
  leaves the old one.
  """
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  name = f".{path.name}.partial"
  if len(os.fsencode(name)) > NAME_BYTES:
    name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.partial"
  partial = path.parent / name
  try:
    yield partial
    partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[IO[bytes]]:
  """Open a file that is written whole or not at all."""
  with replacing(path) as partial, partial.open("wb") as file:
    yield file


def write_text(path: epath.PathLike, text: str) -> None:
  """Write a text file whole or not at all, even if the power fails."""
  if "://" in os.fspath(path):
    # A bucket replaces files whole by itself, and takes long to rename them.
    epath.Path(path).write_text(text)
    return
  with writing(path) as file:
    file.write(text.encode())
    file.flush()
    with contextlib.suppress(AttributeError, io.UnsupportedOperation):
      os.fsync(file.fileno())  # files of an object store have no number


def write_json(path: epath.PathLike, value: Any) -> None:
  """Write a JSON file, whole or not at all."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def read_jsonl(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yield the lines of a JSON lines file up to the first broken one."""
  for line in epath.Path(path).read_text().splitlines():
    try:
      yield json.loads(line)
    except json.JSONDecodeError:
      return
