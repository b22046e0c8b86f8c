"""Sources made of other sources: several splits, some or repeated examples."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from deeplax import errors
from deeplax.data import files


def read_splits(
  one: Callable[[str], files.Decoded], split: str
) -> files.Decoded:
  """Return one split, or several as one: "train+val" is train, then val.

  Args:
    one: Reads the split of a name.
    split: The name of a split, or several with + between.

  Raises:
    InputError: A name is empty or repeated.
  """
  names = split.split("+")
  if "" in names or len(set(names)) < len(names):
    raise errors.InputError(
      f"no split {split!r}: write different names with + between, as train+val"
    )
  parts = [one(name) for name in names]
  return Joined(parts) if len(parts) > 1 else parts[0]


class Joined(files.Decoded):
  """Several splits, one after the other."""

  def __init__(self, parts: Sequence[files.Decoded]):
    """Join splits.

    Raises:
      InputError: The numbers in their masks differ in meaning.
    """
    first = parts[0]
    name = "+".join(part.split for part in parts)
    super().__init__(first.spec, name, first.table, first.reader)
    for part in parts:
      if part.table != first.table:
        raise errors.InputError(
          f"{first.split} and {part.split} of {first.spec.name} cannot be read "
          f"as {name}: the numbers in their masks mean different things "
          "(labelTrainIds in one, labelIds in the other?). python -m "
          f"deeplax.data.build {first.spec.name} writes all splits alike"
        )
    self.left_out = "; ".join(p.left_out for p in parts if p.left_out)
    self.prepared = any(part.prepared for part in parts)
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

  def contents(self) -> Iterator[tuple[str, int]]:
    for part in self._parts:
      yield from part.contents()

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


def evenly(total: int, count: int) -> list[int]:
  """Return `count` indices below `total`, spread evenly; all for 0 or less.

  The first ones would be one street or one class of a sorted data set.
  """
  count = min(count, total) if count > 0 else total
  return [i * total // count for i in range(count)]


class Listed:
  """Examples of a source in a given order, some of them more than once."""

  def __init__(self, source: files.Source, indices: Sequence[int] | np.ndarray):
    self.spec, self.split, self.source = source.spec, source.split, source
    self._indices = indices

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> files.Example:
    return self.source[self.index(index)]

  def index(self, index: int) -> int:
    """Return the index of an example in the source."""
    return int(self._indices[index])


def origin(
  source: files.Source, indices: Sequence[int]
) -> tuple[files.Source, list[int]]:
  """Return the source behind lists of examples, and the indices in it.

  Args:
    source: `Listed`, perhaps of another `Listed`, or any other source.
    indices: Indices of examples in `source`.
  """
  places = list(indices)
  while isinstance(source, Listed):
    places = [source.index(index) for index in places]
    source = source.source
  return source, places


class Subset(Listed):
  """Some examples of a source, spread evenly over it; all for 0 images."""

  def __init__(self, source: files.Source, images: int):
    super().__init__(source, evenly(len(source), images))
