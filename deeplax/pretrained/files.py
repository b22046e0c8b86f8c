"""Files of arrays by name: the extension decides how they are read and written.

model.ckpt-30000            TensorFlow checkpoint, by prefix or .index
weights.pth, .pt, any.ckpt  torch's tensors; no code in the file is run
weights.safetensors, .npz   need no optional package
"""

from collections.abc import Callable, Mapping
import contextlib
from functools import partial
import importlib
import importlib.util
import pathlib
import re
from typing import Any
import zipfile

from etils import epath
import numpy as np
import safetensors
import safetensors.numpy

from deeplax import errors
from deeplax import paths
from deeplax.pretrained import archives
from deeplax.pretrained import torch_files
from deeplax.workdir import sealed

Write = Callable[[archives.Weights], None]

_ACCEPTED = (
  "a TensorFlow checkpoint (its prefix, as in model.ckpt-30000), .pth, .pt, "
  ".safetensors or .npz"
)
_EXTRAS = {"tensorflow": "tf", "torch": "torch"}
# Endings of a checkpoint's files, after their common prefix.
_TF_FILES = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
_KERAS = (
  "in Keras, np.savez(FILE, **{w.path: w.numpy() for w in model.weights})"
)
_UNPACK = "unpack it and give the file inside"
_TRAINED = "give the checkpoint that it was made from"
# How other files become an accepted one.
_ELSEWHERE = {
  ".caffemodel": "in Caffe, np.savez(FILE, **{f'{layer}/{i}': blob.data for "
  "layer, blobs in net.params.items() for i, blob in enumerate(blobs)})",
  ".gz": _UNPACK,
  ".h5": _KERAS,
  ".hdf5": _KERAS,
  ".keras": _KERAS,
  ".onnx": _TRAINED,
  ".pb": _TRAINED,
  ".pickle": "reading it would run any code inside",
  ".pkl": "reading it would run any code inside",
  ".tar": _UNPACK,
  ".tflite": _TRAINED,
  ".tgz": _UNPACK,
  ".zip": _UNPACK,
}


def found_at(path: str) -> str:
  """Return the weights at a path, for `reader`: a file or a prefix; "": none.

  Of a folder it is the first TensorFlow checkpoint inside, as in an archive
  that has been unpacked.
  """
  prefix, file = paths.local(_TF_FILES.sub("", path)), paths.local(path)
  if file.is_file() or pathlib.Path(f"{prefix}.index").is_file():
    return path
  inside = sorted(file.glob("*.index")) if file.is_dir() else []
  return str(inside[0].with_suffix("")) if inside else ""


def read(path: str) -> archives.Weights:
  """Return the arrays in a file, by name; for the errors see `reader`."""
  return reader(path)()


def reader(path: str) -> Callable[[], archives.Weights]:
  """Return what reads the arrays in a file, by name.

  Raises:
    InputError: The file does not exist or is of another kind, or needs a
      package that is not installed. Reading raises it for damage.
  """
  prefix, file = paths.local(_TF_FILES.sub("", path)), paths.local(path)
  if pathlib.Path(f"{prefix}.index").is_file():
    _refuse_missing("tensorflow")
    return partial(_read_tensorflow, prefix)
  if file.is_dir():
    raise errors.InputError(f"{path} is a folder; give {_ACCEPTED}{_in(file)}")
  if not file.is_file():
    raise errors.InputError(f"no file {path}{_in(file.parent)}")
  try:
    # Lightning's files end in .ckpt, others in .bin or .pth.tar.
    written_by_torch = file.suffix.lower() not in _READERS and (
      torch_files.is_torch_file(file)
    )
  except OSError as error:
    raise errors.InputError(f"cannot read {path}: {error}") from error
  found = _read_torch if written_by_torch else _by_suffix(file, _READERS)
  if found is _read_torch:
    _refuse_missing("torch")

  def read_file() -> archives.Weights:
    try:
      return found(file)
    except OSError as error:
      raise errors.InputError(f"cannot read {path}: {error}") from error

  return read_file


def write(path: str, arrays: archives.Weights) -> None:
  """Write arrays by name; for the errors see `writer`."""
  writer(path)(arrays)


def writer(path: str) -> Write:
  """Return what writes arrays by name; .ckpt is a TensorFlow checkpoint.

  Raises:
    InputError: There is no such kind of file, or it needs a package that is not
      installed. Writing raises it if the disk refuses.
  """
  file = paths.local(path)
  found = _by_suffix(file, _WRITERS)
  needed = {_write_tensorflow: "tensorflow", _write_torch: "torch"}
  if found in needed:
    _refuse_missing(needed[found])

  def write_file(arrays: archives.Weights) -> None:
    try:
      file.parent.mkdir(parents=True, exist_ok=True)
      found(file, dict(arrays))
    except OSError as error:
      raise errors.InputError(f"cannot write {path}: {error}") from error

  return write_file


def sums(path: str) -> dict[str, str]:
  """Return the SHA-256 of the files that `read` reads, by file name."""
  file = paths.local(_TF_FILES.sub("", path))
  parts = (
    [file]
    if file.is_file()
    else sorted(
      p for p in file.parent.glob(f"{file.name}.*") if _TF_FILES.search(p.name)
    )
  )
  return sealed.sums({part.name: epath.Path(part) for part in parts})


def _by_suffix(
  file: pathlib.Path, table: Mapping[str, Callable[..., Any]]
) -> Callable[..., Any]:
  suffix = file.suffix.lower()
  if suffix in table:
    return table[suffix]
  advice = f" ({_ELSEWHERE[suffix]})" if suffix in _ELSEWHERE else ""
  raise errors.InputError(f"{file} is not {_ACCEPTED}{advice}")


def _in(folder: pathlib.Path) -> str:
  """Return a sentence with the first accepted files of a folder, or nothing."""
  names = []
  if folder.is_dir():
    for file in sorted(folder.iterdir()):
      if file.name.endswith(".index"):
        names.append(_TF_FILES.sub("", str(file)))
      elif file.suffix in _READERS:
        names.append(str(file))
  return f". There is {', '.join(names[:5])}" if names else ""


def _refuse_missing(name: str) -> None:
  """Refuse a file whose optional package is missing; nothing is imported.

  Raises:
    InputError: The package is not installed.
  """
  if importlib.util.find_spec(name) is None:
    raise _missing(name, f"No module named {name!r}")


def _missing(name: str, reason: str) -> errors.InputError:
  return errors.InputError(
    f"this kind of file needs {name}, which does not import ({reason}): pip "
    f'install -e ".[{_EXTRAS[name]}]". .npz and .safetensors need nothing'
  )


def _module(name: str) -> Any:
  """Import an optional package.

  Raises:
    InputError: It is not installed.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise _missing(name, str(error)) from error


def _tensorflow() -> Any:
  tf = _module("tensorflow")
  # TensorFlow takes all memory of every GPU that it sees. It cannot be hidden
  # from one any more once something has used it.
  with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], "GPU")
  return tf


def _read_tensorflow(prefix: pathlib.Path) -> archives.Weights:
  tf = _tensorflow()
  try:
    reader = tf.train.load_checkpoint(str(prefix))
    names = reader.get_variable_to_shape_map()
    return {name: np.asarray(reader.get_tensor(name)) for name in sorted(names)}
  except tf.errors.OpError as error:
    raise errors.InputError(
      f"{prefix} is not a complete TensorFlow checkpoint: {error.message}"
    ) from error


def _write_tensorflow(prefix: pathlib.Path, arrays: archives.Weights) -> None:
  tf = _tensorflow()
  tf.raw_ops.SaveV2(
    prefix=str(prefix),
    tensor_names=list(arrays),
    shape_and_slices=[""] * len(arrays),
    tensors=list(arrays.values()),
  )


def _read_torch(path: pathlib.Path) -> archives.Weights:
  return torch_files.read(path, _module("torch"))


def _write_torch(path: pathlib.Path, arrays: archives.Weights) -> None:
  torch_files.write(path, arrays, _module("torch"))


def _read_npz(path: pathlib.Path) -> archives.Weights:
  try:
    return archives.read_npz(path)
  except OSError:
    raise
  except Exception as error:  # damaged bytes make NumPy raise any kind
    reason = archives.first_line(error)
    raise errors.InputError(
      f"{path} is not a complete .npz of plain arrays ({reason}): fetch it "
      "again, or write it by np.savez(FILE, **arrays)"
    ) from error


def _write_npz(path: pathlib.Path, arrays: archives.Weights) -> None:
  # Not by keyword: an array may be called "file".
  with zipfile.ZipFile(path, "w") as file:
    for name, array in arrays.items():
      with file.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _read_safetensors(path: pathlib.Path) -> archives.Weights:
  try:
    # Opened first: safetensors reports any failure to open as "no such file".
    # It reads bfloat16 through NumPy, which has the type once JAX is imported.
    with path.open("rb"):
      return safetensors.numpy.load_file(path)
  except OSError:
    raise
  except Exception as error:  # a type that NumPy lacks, or any damage
    reason = archives.first_line(error)
    raise errors.InputError(
      f"{path} is not a complete safetensors file ({reason}): download it again"
    ) from error


def _write_safetensors(path: pathlib.Path, arrays: archives.Weights) -> None:
  # safetensors writes the memory as it is, so it has to be in C order.
  arrays = {name: np.asarray(a, order="C") for name, a in arrays.items()}
  path.write_bytes(safetensors.numpy.save(arrays))


_READERS: dict[str, Callable[[pathlib.Path], archives.Weights]] = {
  ".npz": _read_npz,
  ".pt": _read_torch,
  ".pth": _read_torch,
  ".safetensors": _read_safetensors,
}
_WRITERS: dict[str, Callable[[pathlib.Path, archives.Weights], None]] = {
  ".ckpt": _write_tensorflow,
  ".npz": _write_npz,
  ".pt": _write_torch,
  ".pth": _write_torch,
  ".safetensors": _write_safetensors,
}
