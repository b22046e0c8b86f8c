"""A part of a source."""

import numpy as np

from deeplax.data import files


class Subset:
  """Some examples of a source, spread evenly over it.

  The first ones would be one street or one class of a sorted data set.
  """

  def __init__(self, source: files.Source, images: int):
    self.spec, self.split, self._source = source.spec, source.split, source
    count = min(images, len(source)) if images > 0 else len(source)
    self._indices = np.arange(count) * len(source) // max(count, 1)

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> files.Example:
    return self._source[self.index(index)]

  def index(self, index: int) -> int:
    """Return where an example stands in the source."""
    return int(self._indices[index])
