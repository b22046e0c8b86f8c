"""Read pairs of image and mask files as a source of training examples.

A source has `spec`, `len()` and `source[i] -> {"image", "label", "name"}`:
image uint8 RGB, or what `bands` reads, label uint8 with classes 0 to k-1 and
255 = ignored. Reading is thread-safe. `decoding` has how files are decoded.
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
  """What training and evaluation read."""

  @property
  def spec(self) -> spec_lib.Spec: ...

  @property
  def split(self) -> str: ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...


class Encoded(NamedTuple):
  """One example as it is stored, for the label check."""

  image: bytes
  label: bytes
  image_file: str
  label_file: str


class Pair(NamedTuple):
  """The name of an example and its two files."""

  name: str
  image: pathlib.Path
  label: pathlib.Path


class Decoded(abc.ABC):
  """Turns encoded examples into arrays; subclasses say where they lie.

  Attributes:
    left_out: Files of other kinds beside the examples, by suffix, for people.
    prepared: Whether `contents` are files of many examples each.
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
    """Return how many examples there are."""

  @abc.abstractmethod
  def name(self, index: int) -> str:
    """Return what an example is called."""

  @abc.abstractmethod
  def encoded(self, index: int) -> Encoded:
    """Return the bytes of an example, as they lie on disk."""

  def mask(self, index: int) -> tuple[bytes, str]:
    """Return the bytes and the file of a mask alone."""
    item = self.encoded(index)
    return item.label, item.label_file

  def stamp(self) -> str:
    """Return a text that changes when the masks do, without reading them."""
    return ""

  def contents(self) -> Iterator[tuple[str, int]]:
    """Yield (name, bytes) of what it is made of, without reading it.

    Names do not say where the data set lies: a copy has the same.
    """
    yield from ()

  def __getitem__(self, index: int) -> Example:
    return {**self.decoded(self.encoded(index)), "name": self.name(index)}

  def decoded(self, item: Encoded) -> Example:
    """Return image and label as arrays."""
    image = self.reader(item.image, item.image_file)
    raw = decoding.decode_label(item.label, item.label_file)
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
  except OSError:  # told when it is read
    return -1


def read_bytes(path: pathlib.Path) -> bytes:
  """Return a file of a data set.

  Raises:
    InputError: It cannot be read.
  """
  with opened(path) as file:
    return file.read()


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[io.BufferedReader]:
  """Open a file of a data set.

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
  """Refuse a mask that does not cover its image.

  Raises:
    InputError: The sizes differ.
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
