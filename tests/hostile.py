"""Files as chance or malice changes them, for readers that must refuse them.

    hostile.check(reader, path, hostile.mutations(path.read_bytes()))

hands a reader one changed file after the other. It may read it, or raise an
InputError that names the file; all else fails the test, with the number of the
mutation: `mutations` gives the same ones for the same seed.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import hashlib
import os
import pathlib
import random
import re
import tracemalloc
from typing import Any, NamedTuple
import warnings

from deeplax import errors

# Of each kind of file: many before a release, few in `make test`.
COUNT = int(os.environ.get("DEEPLAX_MUTATIONS") or 100)
LONGEST = 3000  # characters of a message that a user will read
# What counters and sizes overflow at.
EXTREMES = (
  0,
  1,
  -1,
  *(2**n - d for n in (7, 8, 15, 16, 31, 32, 40, 63, 64) for d in (0, 1)),
)
_NUMBER = re.compile(rb"\d+")
_WORD = re.compile(rb"[A-Za-z_]{2,}")


def mutations(
  valid: bytes, *, seed: int = 0, count: int = COUNT
) -> Iterator[bytes]:
  """Yield `count` changed copies of a valid file.

  Args:
    valid: The file, or the part of it that is to change (its caller puts the
      rest around it, such as checksums that fit).
    seed: Of the changes.
    count: Of the copies.
  """
  for number in range(count):
    rng = random.Random(f"{seed} {number}")
    data = bytearray(valid)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
      rng.choice(_KINDS)(data, rng)
    yield bytes(data)


class Outcome(NamedTuple):
  """How many mutations were read all the same, and how many refused."""

  read: int
  refused: int


def check(
  read: Callable[[str], Any],
  path: pathlib.Path,
  changed: Iterable[bytes],
  *,
  memory: int | None = None,
) -> Outcome:
  """Read each of the changed files from `path`, alone in its folder.

  Args:
    read: Called with the path. It writes nothing in the folder.
    path: Where the files are put; its folder is made.
    changed: What they hold.
    memory: Most bytes that Python and NumPy may hold at once beyond ten times
      the file; None: any.

  Raises:
    AssertionError: With the number of the first file on which the reader
      raised anything but an InputError with the file's name in a message of
      readable length, left something in the folder, or took more memory.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  counts = [0, 0]
  for number, data in enumerate(changed):
    path.write_bytes(data)
    case = f"mutation {number} ({hashlib.sha256(data).hexdigest()[:12]})"
    with _peak() if memory is not None else contextlib.nullcontext() as peak:
      refused = _refused(read, path, case)
    counts[refused] += 1
    left = [p.name for p in path.parent.iterdir()]
    assert left == [path.name], f"{case} left {left}"
    assert path.read_bytes() == data, f"{case} changed its file"
    if memory is not None and peak is not None:
      most = memory + 10 * len(data)
      if peak[0] > most:  # another thread's, or a module that was imported
        with _peak() as peak:
          _refused(read, path, case)
      assert peak[0] <= most, f"{case} took {peak[0]:,} bytes, may {most:,}"
  return Outcome(*counts)


def _refused(read: Callable[[str], Any], path: pathlib.Path, case: str) -> bool:
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      read(str(path))
  except errors.InputError as error:
    said = str(error)
    assert path.name in said, f"{case} is not named: {said}"
    assert len(said) <= LONGEST, f"{case}: {len(said):,} characters"
    return True
  except Exception as error:
    raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
  return False


@contextlib.contextmanager
def _peak() -> Iterator[list[int]]:
  """Give a list that holds the most bytes Python and NumPy held inside."""
  found: list[int] = []
  tracemalloc.start()
  try:
    yield found
  finally:
    found.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()


def _place(data: bytearray, rng: random.Random) -> int:
  """Draw a place in the file: half of them near its ends, where headers are."""
  edge = min(len(data), 512)
  ends = rng.randrange(edge + 1), len(data) - rng.randrange(edge + 1)
  return rng.choice((*ends, *(rng.randrange(len(data) + 1) for _ in ends)))


def _block(data: bytearray, rng: random.Random) -> slice:
  start = _place(data, rng)
  return slice(start, start + rng.choice((1, 4, 16, 64, 512, 4096)))


def _flip_bits(data: bytearray, rng: random.Random) -> None:
  for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
    data[min(_place(data, rng), len(data) - 1)] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, rng: random.Random) -> None:
  del data[_place(data, rng) :]


def _delete(data: bytearray, rng: random.Random) -> None:
  del data[_block(data, rng)]


def _duplicate(data: bytearray, rng: random.Random) -> None:
  piece = data[_block(data, rng)]
  start = _place(data, rng)
  data[start:start] = piece * rng.choice((1, 1, 2, 20))


def _insert(data: bytearray, rng: random.Random) -> None:
  start, count = _place(data, rng), rng.choice((1, 4, 64))
  data[start:start] = rng.choice(
    (rng.randbytes(count), bytes(count), b"\xff" * count, b"[" * 1000 * count)
  )


def _overwrite(data: bytearray, rng: random.Random) -> None:
  """Copy a block of the file over another one."""
  piece = data[_block(data, rng)]
  start = _place(data, rng)
  data[start : start + len(piece)] = piece


def _binary_number(data: bytearray, rng: random.Random) -> None:
  size, start = rng.choice((1, 2, 4, 8)), _place(data, rng)
  value = rng.choice(EXTREMES) % 2 ** (8 * size)
  order = "little" if rng.random() < 0.5 else "big"
  data[start : start + size] = value.to_bytes(size, order)


def _text(data: bytearray, rng: random.Random, *, what: re.Pattern) -> None:
  """Put another number, or another word of the file, in place of one."""
  found = [*what.finditer(data[:100_000])]
  if not found:
    return _flip_bits(data, rng)
  match = rng.choice(found)
  new = str(rng.choice(EXTREMES)).encode()
  if what is _WORD:
    new = rng.choice(found)[0]
  data[match.start() : match.end()] = new
  return None


def _number(data: bytearray, rng: random.Random) -> None:
  _text(data, rng, what=_NUMBER)


def _word(data: bytearray, rng: random.Random) -> None:
  _text(data, rng, what=_WORD)


_KINDS = (
  *(_flip_bits, _truncate, _delete, _duplicate, _insert, _overwrite),
  *(_binary_number, _number, _number, _word),
)
