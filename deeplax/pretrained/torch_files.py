"""PyTorch's files of tensors by name, read without running code in them.

torch is optional: the caller imports it and passes it as an argument.
"""

from collections.abc import Iterator, Mapping
import io
import json
import math
import pathlib
import pickletools
import re
import shlex
import struct
from typing import Any
import zipfile

import numpy as np

from deeplax import errors
from deeplax.pretrained import archives

# torch.save writes a zip archive, and before version 1.6 a file that starts so.
_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLES = 5  # pickles in such an old file
_LONGEST = 500  # letters of a global's name
_DEEPEST = 8  # nested dictionaries; known checkpoints have two
# Keys of a network in checkpoints of Lightning, torchvision, timm and YOLO.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "ema")


def is_torch_file(path: pathlib.Path) -> bool:
  """Return whether torch wrote a file, whatever its name."""
  with path.open("rb") as file:
    if file.read(len(_MAGIC)) == _MAGIC:
      return True
  try:
    return _pickle_in_zip(path) is not None
  except Exception:  # zipfile raises many kinds on a damaged archive
    return False


def read(path: pathlib.Path, torch: Any) -> archives.Weights:
  """Return the tensors in a file, by name.

  Where several dictionaries hold tensors, as of a network and of its average,
  names start with the keys to them: model.conv.weight, ema.conv.weight.

  Raises:
    InputError: The file is damaged, could only be read by running its code,
      or holds no tensors, or tensors that claim more values than it has.
  """
  try:
    stored = _checked_size(path)
    _check_pickles(path)
    # The old kind is read from memory: from a file, its unpickler would ask for
    # as many bytes as a damaged length says.
    file = path if zipfile.is_zipfile(path) else io.BytesIO(path.read_bytes())
    state = torch.load(file, map_location="cpu", weights_only=True)
  except (OSError, errors.InputError):
    raise
  except Exception as error:  # damaged bytes make torch raise any kind
    raise errors.InputError(_refusal(path, str(error))) from error
  groups = [*_dictionaries(state, torch, set())]
  if len(groups) == 1:
    groups = [((), groups[0][1])]
  tensors = {
    ".".join((*keys, name)): tensor
    for keys, values in groups
    for name, tensor in values.items()
  }
  if not tensors:
    raise errors.InputError(
      f"{path} holds no tensors by name. In torch: "
      "torch.save(model.state_dict(), FILE)"
    )
  try:
    _check_sizes(tensors, stored)
    return {name: _numpy(tensor, torch) for name, tensor in tensors.items()}
  except Exception as error:  # sparse, quantized, a type that NumPy lacks
    raise errors.InputError(
      f"{path} holds no plain tensors ({archives.first_line(error)}). In "
      "torch: torch.save({k: v.to_dense().contiguous() for k, v in "
      "model.state_dict().items()}, FILE)"
    ) from error


def write(path: pathlib.Path, arrays: archives.Weights, torch: Any):
  """Write arrays as a dictionary of tensors."""
  torch.save({name: torch.tensor(a) for name, a in arrays.items()}, path)


def _dictionaries(
  value: Any, torch: Any, visited: set[int], keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
  """Yield each dictionary that holds tensors by name, after the keys to it.

  An optimizer numbers its tensors, so its dictionary is left out.
  """
  done = id(value) in visited or len(keys) > _DEEPEST
  if not isinstance(value, Mapping) or done:
    return
  visited.add(id(value))
  named = {k: v for k, v in value.items() if isinstance(k, str)}
  if tensors := {k: v for k, v in named.items() if torch.is_tensor(v)}:
    yield keys, tensors
  for key, inner in named.items():
    yield from _dictionaries(inner, torch, visited, (*keys, key))


def _numpy(tensor: Any, torch: Any) -> np.ndarray:
  """Return a tensor's values; NumPy has no bfloat16."""
  if tensor.dtype == torch.bfloat16:
    tensor = tensor.float()
  return tensor.detach().numpy()


def _checked_size(path: pathlib.Path) -> int:
  """Return the number of bytes that a file declares to hold, unpacked.

  Raises:
    InputError: A checksum in an archive is wrong; torch does not check them.
  """
  if not zipfile.is_zipfile(path):
    return path.stat().st_size
  size = archives.unpacked_size(path)
  with zipfile.ZipFile(path) as file:
    damaged = file.testzip()
  if damaged is None:
    return size
  name = json.dumps(str(path))
  anew = (
    f"import torch; torch.save(torch.load({name}, weights_only=True), {name})"
  )
  raise errors.InputError(
    f"{path} is damaged: {damaged[:200]} in it does not have the checksum "
    "that it was written with. Fetch it again; or, if it was written without "
    f"checksums, write it anew: python -c {shlex.quote(anew)}"
  )


def _check_sizes(tensors: Mapping[str, Any], stored: int) -> None:
  """Refuse tensors that claim more values than the file holds."""
  storages = {}
  for name, tensor in tensors.items():
    storage = tensor.untyped_storage()
    storages[storage.data_ptr()] = storage.nbytes()
    claimed = math.prod(tensor.shape) * tensor.element_size()
    if claimed > storage.nbytes():
      raise ValueError(
        f"{name} claims {claimed:,} bytes and has {storage.nbytes():,}"
      )
  if (claimed := sum(storages.values())) > stored:
    raise ValueError(f"they claim {claimed:,} bytes and have {stored:,}")


def _check_pickles(path: pathlib.Path) -> None:
  """Refuse pickles that torch cannot have written, without running them.

  torch searches its own message for words in a time that grows with the square
  of a name's length: a name of 64 kB takes minutes.

  Raises:
    ValueError: An operation is damaged, or names a global of excessive length.
  """
  pickled = _pickle_in_zip(path)
  data = io.BytesIO(path.read_bytes() if pickled is None else pickled)
  for _ in range(_PICKLES if pickled is None else 1):
    for operation, argument, _ in pickletools.genops(data):
      if operation.name == "GLOBAL" and len(str(argument)) > _LONGEST:
        raise ValueError(f"it names a global of {len(str(argument)):,} letters")


def _pickle_in_zip(path: pathlib.Path) -> bytes | None:
  """Return the pickle in torch's archive; None for another file."""
  if not zipfile.is_zipfile(path):
    return None
  with zipfile.ZipFile(path) as file:
    for member in file.infolist():
      if pathlib.PurePosixPath(member.filename).name == "data.pkl":
        return file.read(member)
  return None


def _refusal(path: pathlib.Path, text: str) -> str:
  """Return the message about a file that torch refused."""
  if unknown := re.search(r"GLOBAL (\S+)", text):
    return (
      f"{path} is not a torch file with weights only: beside tensors it holds "
      f"{unknown[1][:200]}, and loading that runs code of the file. If you "
      f"trust its maker, write the tensors alone and give {path}.weights.pth "
      f"instead:\n{_alone(path)}"
    )
  # torch's message starts with its own history and ends with the fault.
  fault = text.rpartition("WeightsUnpickler error:")[2].strip().splitlines()
  reason = fault[0][:200] if fault else "it is damaged"
  return (
    f"{path} is not a torch file with weights only: {reason}. Fetch it again, "
    "or in torch: torch.save(model.state_dict(), FILE)"
  )


def _alone(path: pathlib.Path) -> str:
  """Return the command that writes the tensors of a file alone."""
  pickled = _pickle_in_zip(path) or path.read_bytes()
  keys = [key for key in _WRAPPERS if _pickled(key) in pickled]
  at = f'["{keys[0]}"]' if keys else ""
  code = (
    f"import torch; w = torch.load({json.dumps(str(path))}, "
    f'map_location="cpu", weights_only=False){at}; '
    'w = getattr(w, "state_dict", lambda: w)(); '
    "torch.save({k: v for k, v in w.items() if torch.is_tensor(v)}, "
    f"{json.dumps(f'{path}.weights.pth')})"
  )
  return f"python -c {shlex.quote(code)}"


def _pickled(text: str) -> bytes:
  """Return a short string as torch.save pickles it (protocol 2)."""
  return b"X" + struct.pack("<I", len(text)) + text.encode()
