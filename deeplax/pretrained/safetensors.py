"""The safetensors format: 8 bytes of length, a JSON header, raw arrays.

Read and written here, in fewer lines than a requirement and its versions would
cost; NumPy alone does not know bfloat16, which JAX's ml_dtypes brings.
"""

import json
import math
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from deeplax import errors

DTYPES = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(jnp.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Return the arrays of a file.

  Raises:
    InputError: It is not of this format, or cut off.
  """
  data = path.read_bytes()
  start = 8 + int.from_bytes(data[:8], "little")
  try:
    header = json.loads(data[8:start])
    return {
      name: _array(entry, memoryview(data)[start:])
      for name, entry in header.items()
      if name != "__metadata__"
    }
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.InputError(
      f"{path} is no whole safetensors file ({error!r}): download it again"
    ) from error


def _array(entry: dict[str, Any], data: memoryview) -> np.ndarray:
  dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
  first, last = entry["data_offsets"]
  if not 0 <= first <= last <= len(data):
    raise ValueError(f"{entry['data_offsets']} outside {len(data)} bytes")
  if last - first != math.prod(shape) * dtype.itemsize:
    raise ValueError(f"{last - first} bytes for {entry['dtype']} {shape}")
  return np.frombuffer(data[first:last], dtype).reshape(shape)


def write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Write arrays, sorted by name."""
  names = {dtype: name for name, dtype in DTYPES.items()}
  header, parts, offset = {}, [], 0
  for name, array in sorted(arrays.items()):
    parts.append(np.ascontiguousarray(array).tobytes())
    header[name] = {
      "dtype": names[array.dtype],
      "shape": list(array.shape),
      "data_offsets": [offset, offset + len(parts[-1])],
    }
    offset += len(parts[-1])
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # the arrays start at a multiple of 8
  length = len(text).to_bytes(8, "little")
  path.write_bytes(b"".join([length, text, *parts]))
