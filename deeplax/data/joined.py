"""Several splits read as one, as "train+val" or "train+val+train_extra"."""

from collections.abc import Callable, Sequence

import numpy as np

from deeplax import errors
from deeplax.data import files


class Joined(files.Decoded):
  """Several splits, one after the other."""

  def __init__(self, parts: Sequence[files.Decoded]):
    """Join them.

    Raises:
      InputError: Their masks hold different numbers.
    """
    first = parts[0]
    name = "+".join(part.split for part in parts)
    super().__init__(first.spec, name, first.table, first.reader)
    for part in parts:
      if not np.array_equal(part.table, first.table):
        raise errors.InputError(
          f"{first.split} and {part.split} of {first.spec.name} cannot be read "
          f"as {name}: the numbers in their masks mean different things "
          "(labelTrainIds in one, labelIds in the other?). python -m "
          f"deeplax.data.build {first.spec.name} writes all splits alike"
        )
    self._parts = tuple(parts)
    self._ends = np.cumsum([len(part) for part in parts]).tolist()

  def __len__(self) -> int:
    return self._ends[-1]

  def _find(self, index: int) -> tuple[files.Decoded, int]:
    """Return the part that holds an example, and its index there."""
    index = range(len(self))[index]  # IndexError past the end
    part = int(np.searchsorted(self._ends, index, side="right"))
    return self._parts[part], index - (self._ends[part - 1] if part else 0)

  def stamp(self) -> str:
    return "\n".join(part.stamp() for part in self._parts)

  def name(self, index: int) -> str:
    part, index = self._find(index)
    return part.name(index)

  def encoded(self, index: int) -> files.Encoded:
    part, index = self._find(index)
    return part.encoded(index)

  def mask(self, index: int) -> tuple[bytes, str]:
    part, index = self._find(index)
    return part.mask(index)

  def __getitem__(self, index: int) -> files.Example:
    part, index = self._find(index)
    return part[index]


def read(one: Callable[[str], files.Decoded], split: str) -> files.Decoded:
  """Return `split`, or several: "train+val" is train, then val.

  Args:
    one: Reads one split.
    split: Its name, or several with + between.

  Raises:
    InputError: A name is empty or there twice.
  """
  names = split.split("+")
  if "" in names or len(set(names)) < len(names):
    raise errors.InputError(
      f"no split {split!r}: write different names with + between, as train+val"
    )
  parts = [one(name) for name in names]
  return Joined(parts) if len(parts) > 1 else parts[0]
