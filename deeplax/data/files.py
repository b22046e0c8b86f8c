"""Sources of examples, and the one that reads pairs of files.

A source has `spec`, `len()` and `source[i] -> {"image", "label", "name"}`: the
image is uint8 RGB or what `bands` reads, the label uint8 with classes 0 to k-1
and 255 = ignored. Several threads may read at once. `decoding` decodes files.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
import contextlib
import io
import pathlib
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from deeplax import errors
from deeplax.data import decoding
from deeplax.data import label_tables
from deeplax.data import spec as spec_lib

Example = dict[str, Any]  # image and label: np.ndarray; name: str
# (bytes, file name) -> image [h, w, c].
Reader = Callable[[bytes, str], np.ndarray]


@runtime_checkable
class Source(Protocol):
  """A split as training and evaluation read it."""

  spec: spec_lib.Spec
  split: str

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...


class Encoded(NamedTuple):
  """One example as it is stored: the bytes and names of its two files."""

  image: bytes
  label: bytes
  image_file: str
  label_file: str


class Pair(NamedTuple):
  """The name of an example, and its two files."""

  name: str
  image: pathlib.Path
  label: pathlib.Path


class Decoded(abc.ABC):
  """A source that decodes examples; its subclasses know where they lie.

  Attributes:
    left_out: Text on the files of other kinds that lie beside the examples.
    prepared: Whether each file of `contents` holds many examples.
  """

  left_out = ""
  prepared = False

  def __init__(
    self,
    spec: spec_lib.Spec,
    split: str,
    table: label_tables.Table,
    reader: Reader | None = None,
  ):
    self.spec = spec
    self.split = split
    self.table = table
    self.reader = reader or decoding.decode_image

  @abc.abstractmethod
  def __len__(self) -> int:
    """Return the number of examples."""

  @abc.abstractmethod
  def name(self, index: int) -> str:
    """Return the name of an example."""

  @abc.abstractmethod
  def encoded(self, index: int) -> Encoded:
    """Return the bytes of an example, as they lie on disk."""

  def mask(self, index: int) -> tuple[bytes, str]:
    """Return the bytes and the file name of a mask, without its image."""
    item = self.encoded(index)
    return item.label, item.label_file

  def stamp(self) -> str:
    """Return a text that changes when masks do, found without reading them."""
    return ""

  def contents(self) -> Iterator[tuple[str, int]]:
    """Yield the name and size in bytes of each file, without reading it.

    The names do not depend on where the data set lies: a copy has the same.
    """
    yield from ()

  def __getitem__(self, index: int) -> Example:
    return {**self.decoded(self.encoded(index)), "name": self.name(index)}

  def decoded(self, item: Encoded) -> Example:
    """Return image and label as arrays."""
    image = self.reader(item.image, item.image_file)
    raw = decoding.decode_label(item.label, item.label_file, self.table.colors)
    check_sizes(item, image.shape[:2], raw.shape)
    return {"image": image, "label": label_tables.apply(raw, self.table)}


class Files(Decoded):
  """Pairs of files on disk."""

  def __init__(
    self,
    spec: spec_lib.Spec,
    split: str,
    table: label_tables.Table,
    pairs: Sequence[Pair],
    reader: Reader | None = None,
  ):
    super().__init__(spec, split, table, reader)
    self.pairs = pairs

  def __len__(self) -> int:
    return len(self.pairs)

  def name(self, index: int) -> str:
    return self.pairs[index].name

  def encoded(self, index: int) -> Encoded:
    image = self.pairs[index].image
    data = read_bytes(image)
    label, label_file = self.mask(index)
    return Encoded(data, label, str(image), label_file)

  def stamp(self) -> str:
    return "".join(
      f"{pair.name} {state.st_size} {state.st_mtime_ns}\n"
      for pair in self.pairs
      for state in [pair.label.stat()]
    )

  def contents(self) -> Iterator[tuple[str, int]]:
    for pair in self.pairs:
      yield pair.name, sum(_bytes(path) for path in (pair.image, pair.label))

  def mask(self, index: int) -> tuple[bytes, str]:
    pair = self.pairs[index]
    return read_bytes(pair.label), str(pair.label)


def _bytes(path: pathlib.Path) -> int:
  try:
    return path.stat().st_size
  except OSError:  # the message comes when the file is read
    return -1


def read_bytes(path: pathlib.Path) -> bytes:
  """Return the bytes of a data set's file.

  Raises:
    InputError: It cannot be read.
  """
  with opened(path) as file:
    return file.read()


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[io.BufferedReader]:
  """Open a data set's file.

  Raises:
    InputError: It cannot be read.
  """
  fix = "restore the file, or take its pair out of the data set"
  with errors.disk_errors(f"{path} cannot be read", fix):
    with path.open("rb") as file:
      yield file


def check_sizes(
  item: Encoded, image: tuple[int, ...], label: tuple[int, ...]
) -> None:
  """Refuse a mask of another size than its image.

  Args:
    item: The example, for its names and its header.
    image: The image's (height, width).
    label: The mask's.

  Raises:
    InputError: The sizes differ: why they probably do, and the fix.
  """
  if tuple(image) == tuple(label):
    return
  text = (
    f"{item.label_file} is {label[0]}x{label[1]} (height x width) but "
    f"{item.image_file} is {image[0]}x{image[1]}"
  )
  if tuple(label) == (image[1], image[0]):
    if decoding.image_header(item.image, item.image_file).exchanges:
      text += (
        ": the photo is stored on its side with an EXIF orientation and shown "
        "upright, the mask was drawn without it. Turn the mask like the photo, "
        "or save the photo upright (PIL.ImageOps.exif_transpose) and label that"
      )
    else:
      text += ": rows and columns are exchanged. Transpose the mask"
  else:
    text += (
      ". Make the mask at the image's size; if it must be resized, then with "
      "the nearest neighbor only"
    )
  raise errors.InputError(text)
