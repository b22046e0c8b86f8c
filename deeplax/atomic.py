"""Files that are written whole or not at all, and JSON lines read back."""

from collections.abc import Iterator
import json
from typing import Any

from etils import epath


def write_json(path: epath.PathLike, value: Any) -> None:
  """Write JSON so that a reader sees the old file or the new, never a half."""
  write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: epath.PathLike, text: str) -> None:
  """Write a file so that a reader sees the old one or the new, never a half."""
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  replace(path, text)


def replace(path: epath.Path, text: str) -> None:
  """Write a file as `write_text` does, in a folder that exists."""
  partial = path.parent / f".{path.name}.partial"
  partial.write_text(text)
  partial.replace(path)


def read_jsonl(path: epath.PathLike) -> Iterator[dict[str, Any]]:
  """Yield the lines of a JSON lines file; a torn last line is left out."""
  for line in epath.Path(path).read_text().splitlines():
    try:
      yield json.loads(line)
    except json.JSONDecodeError:
      return
