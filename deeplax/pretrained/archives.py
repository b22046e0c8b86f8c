"""Zip archives of arrays, .npz and torch's, of which none is trusted."""

import collections
from collections.abc import Mapping
import math
import pathlib
from typing import Any
import zipfile

import numpy as np
import psutil

# The arrays of a file by name, in the layout of the program that wrote it.
Weights = Mapping[str, np.ndarray]
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


def first_line(error: Exception) -> str:
  """Return the first line of an error's text, cut to a readable length."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]


def unpacked_size(path: pathlib.Path) -> int:
  """Return the number of bytes that an archive declares to hold, unpacked.

  Reading it never gives more.

  Raises:
    ValueError: That is more than the free memory, or two members have one name.
    zipfile.BadZipFile: The file is no archive.
  """
  with zipfile.ZipFile(path) as file:
    members = file.infolist()
  names = [member.filename for member in members]
  if twice := [n for n, k in collections.Counter(names).items() if k > 1]:
    raise ValueError(f"it holds {twice[0][:200]!r} twice")
  size = sum(member.file_size for member in members)
  free = psutil.virtual_memory().available
  if size > free:
    raise ValueError(f"it unpacks to {size:,} bytes, and {free:,} are free")
  return size


def read_npz(path: pathlib.Path) -> Weights:
  """Return the arrays of an .npz, by name; objects are not unpickled.

  Raises:
    ValueError: The file holds anything but arrays of numbers, or an array that
      claims another size than it has. Damage raises many other kinds of errors.
  """
  unpacked_size(path)
  arrays = {}
  with zipfile.ZipFile(path) as file:
    for member in file.infolist():
      name = member.filename
      if not name.endswith(".npy"):
        raise ValueError(f"{name[:200]!r} in it is no array")
      with file.open(member) as data:
        _check_size(data, member)
      with file.open(member) as data:
        arrays[name.removesuffix(".npy")] = np.lib.format.read_array(
          data, allow_pickle=False
        )
  return arrays


def _check_size(data: Any, member: zipfile.ZipInfo) -> None:
  """Refuse an array that is not as large as its header says.

  NumPy allocates memory by the header before it reads.
  """
  version = np.lib.format.read_magic(data)
  if version not in _HEADERS:
    raise ValueError(f"{member.filename[:200]!r} is of version {version}")
  shape, _, dtype = _HEADERS[version](data)
  stored = member.file_size - data.tell()
  claimed = math.prod(shape) * dtype.itemsize
  if not dtype.hasobject and claimed != stored:
    raise ValueError(
      f"{member.filename[:200]!r} claims {claimed:,} bytes and has {stored:,}"
    )
