"""Images and masks in NumPy's files: .npy, or .npz with one array."""

from collections.abc import Iterator, Sequence
import contextlib
import io
import math
import tokenize
from typing import Any
import zipfile

import numpy as np

from deeplax.data.formats import pictures

_NPY, _NPZ = b"\x93NUM", b"PK\x03\x04"
# Exceptions of zipfile, and of NumPy about a spoiled header.
_BROKEN = (*pictures.BROKEN, zipfile.BadZipFile, tokenize.TokenError)
_NAMES = {2: "[height, width]", 3: "[height, width, bands]"}


def is_array(data: bytes) -> bool:
  """Return whether a file that starts with these bytes is .npy or .npz."""
  return data.startswith((_NPY, _NPZ))


def read(data: bytes, dimensions: Sequence[int] = (3,)) -> np.ndarray:
  """Return the array of a file, in this machine's byte order.

  Args:
    data: The bytes of the file.
    dimensions: How many dimensions the array may have.

  Raises:
    ValueError: The file is not whole, or holds another array.
  """
  with _array(io.BytesIO(data)) as file:
    # The header is read twice, because NumPy takes all the memory that it asks
    # for, and a false one may ask for too much.
    shape, dtype = _header(file, dimensions)
    declared = math.prod(shape) * dtype.itemsize
    most = pictures.DEFLATED if data.startswith(_NPZ) else 1
    if declared > len(data) * most:
      raise ValueError(f"{len(data)} bytes cannot hold {shape} of {dtype}")
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
  return array.astype(array.dtype.newbyteorder("="), copy=False)


def size(file: pictures.Stream) -> tuple[int, int]:
  """Return (height, width) from the header.

  Raises:
    ValueError: The file is not whole, or holds another array.
  """
  with _array(file) as array:
    shape, _ = _header(array, (3,))
  return shape[0], shape[1]


def _header(
  file: Any, dimensions: Sequence[int]
) -> tuple[tuple[int, ...], np.dtype]:
  """Return shape and type of an array from its first bytes."""
  version = np.lib.format.read_magic(file)
  if version == (1, 0):
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
  else:
    shape, _, dtype = np.lib.format.read_array_header_2_0(file)
  if len(shape) not in dimensions or min(shape) < 1:
    wanted = " or ".join(_NAMES[n] for n in dimensions)
    raise ValueError(f"it is an array of shape {shape}, not {wanted}")
  return shape, dtype


@contextlib.contextmanager
def _array(file: pictures.Stream) -> Iterator[Any]:
  """Yield an open .npy: the file itself, or the one array of an .npz."""
  start = file.read(4)
  file.seek(0)
  try:
    if start != _NPZ:
      yield file
      return
    with zipfile.ZipFile(file) as archive:  # pyright: ignore
      names = archive.namelist()
      if len(names) != 1:
        raise ValueError(f"it holds {len(names)} arrays {names[:4]}, not one")
      with archive.open(names[0]) as array:
        yield array
  except ValueError:
    raise
  except _BROKEN as error:
    raise ValueError(f"it is not whole ({error})") from error
