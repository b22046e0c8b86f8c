"""Files that are written whole or not at all, and JSON lines read back."""

from collections.abc import Iterator
import contextlib
import json
from typing import IO, Any

from etils import epath


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[IO[bytes]]:
  """Open a file so that a reader sees the old one or the new, never a half."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.parent / f".{path.name}.partial"
  try:
    with partial.open("wb") as file:
      yield file
    partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def write_text(path: epath.PathLike, text: str) -> None:
  """Write a text file, whole or not at all."""
  with writing(path) as file:
    file.write(text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
  """Write a JSON file, whole or not at all."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def read_jsonl(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yield the lines of a JSON lines file; a torn last line is left out."""
  for line in epath.Path(path).read_text().splitlines():
    try:
      yield json.loads(line)
    except json.JSONDecodeError:
      return
