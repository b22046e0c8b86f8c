"""Images in NumPy's files: .npy, or .npz with one array in it, [h, w, c]."""

from collections.abc import Iterator
import contextlib
import io
from typing import Any
import zipfile
import zlib

import numpy as np

_NPY, _NPZ = b"\x93NUM", b"PK\x03\x04"
_BROKEN = (EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def is_array(data: bytes) -> bool:
  """Return whether a file that starts so is one of these."""
  return data.startswith((_NPY, _NPZ))


def read(data: bytes) -> np.ndarray:
  """Return the array [h, w, c], in this machine's byte order.

  Raises:
    ValueError: It is not whole, or not such an array.
  """
  with _array(io.BytesIO(data)) as file:
    array = np.lib.format.read_array(file, allow_pickle=False)
  _check(array.shape)
  return array.astype(array.dtype.newbyteorder("="), copy=False)


def size(file: io.BytesIO | io.BufferedReader) -> tuple[int, int]:
  """Return (height, width) from the header.

  Raises:
    ValueError: It is not whole, or not such an array.
  """
  with _array(file) as array:
    version = np.lib.format.read_magic(array)
    if version == (1, 0):
      shape = np.lib.format.read_array_header_1_0(array)[0]
    else:
      shape = np.lib.format.read_array_header_2_0(array)[0]
  _check(shape)
  return shape[0], shape[1]


def _check(shape: tuple[int, ...]) -> None:
  if len(shape) != 3 or 0 in shape:
    raise ValueError(
      f"it is an array of shape {shape}, not [height, width, bands]"
    )


@contextlib.contextmanager
def _array(file: io.BytesIO | io.BufferedReader) -> Iterator[Any]:
  """Yield the file as .npy, opening the one array of an .npz."""
  start = file.read(4)
  file.seek(0)
  try:
    if start != _NPZ:
      yield file
      return
    with zipfile.ZipFile(file) as archive:
      names = archive.namelist()
      if len(names) != 1:
        raise ValueError(f"it holds {len(names)} arrays {names[:4]}, not one")
      with archive.open(names[0]) as array:
        yield array
  except _BROKEN as error:
    raise ValueError(f"it is not whole ({error})") from error
