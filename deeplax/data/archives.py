"""Pack predicted masks for a test server, and check the archive as it reads it.

`evaluation_servers` has what each server reads.
"""

from collections.abc import Iterator, Mapping
import io
import pathlib
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

from deeplax import atomic
from deeplax import clocks
from deeplax import errors
from deeplax.data import decoding
from deeplax.data import evaluation_servers
from deeplax.data import files
from deeplax.data.formats import pictures

# {path in the archive: (predicted mask, image)}
Members = Mapping[str, tuple[pathlib.Path, pathlib.Path]]

# Exceptions about a spoiled archive.
BROKEN = (
  *(EOFError, OSError, ValueError, zlib.error),
  *(tarfile.TarError, zipfile.BadZipFile),
)


def labels(
  server: evaluation_servers.Server, mask: pathlib.Path, image: pathlib.Path
) -> np.ndarray:
  """Return a predicted mask, uint8 classes at the size of its image.

  Raises:
    InputError: The mask has another size, or numbers that are no class.
  """
  raw = decoding.decode_label(files.read_bytes(mask), str(mask))
  size = decoding.image_header(files.read_bytes(image), str(image)).size
  if raw.shape != size:
    raise errors.InputError(
      f"{mask} is {raw.shape[0]}x{raw.shape[1]} (height x width) but "
      f"{image} is {size[0]}x{size[1]}: predict at the image's own size"
    )
  k = server.spec.num_classes
  wrong = (raw < 0) | (raw >= k)
  if wrong.any():
    raise errors.InputError(
      f"{mask} has values {np.unique(raw[wrong])[:8].tolist()}; the classes "
      f"of {server.spec.name} are 0 to {k - 1}. Give masks of class indices, "
      "as deeplax.predict writes them"
    )
  return raw.astype(np.uint8)


def encode(server: evaluation_servers.Server, classes: np.ndarray) -> bytes:
  """Return a predicted mask as the PNG that the server reads."""
  numbers = np.array(server.ids, np.uint8)[classes]
  picture = Image.fromarray(numbers)
  if server.palette:
    picture.putpalette([v for color in server.palette for v in color])
  return pictures.png(picture)


def write(
  server: evaluation_servers.Server,
  path: pathlib.Path,
  masks: Members,
) -> None:
  """Write an archive of masks for a server."""
  report = clocks.Progress(len(masks), print, name="packed")

  def pngs() -> Iterator[tuple[str, bytes]]:
    for name, (mask, image) in masks.items():
      yield name, encode(server, labels(server, mask, image))
      report.step()

  # PNGs are compressed already, so the archive itself is not, or fast.
  if server.suffixes[0] == ".zip":
    with zipfile.ZipFile(path, "w") as zipped:
      for name, data in pngs():
        zipped.writestr(name, data)
    return
  with tarfile.open(path, "w:gz", compresslevel=1) as tar:
    for name, data in pngs():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))


def members(
  server: evaluation_servers.Server, path: pathlib.Path
) -> Iterator[tuple[str, bytes]]:
  """Yield (path, bytes) of the files in an archive."""
  if server.suffixes[0] == ".zip":
    with zipfile.ZipFile(path) as zipped:
      for info in zipped.infolist():
        yield info.filename, zipped.read(info)
    return
  with tarfile.open(path, "r:gz") as tar:
    for info in tar:
      file = tar.extractfile(info)
      yield info.name, file.read() if file else b""


def check(
  server: evaluation_servers.Server,
  path: pathlib.Path,
  masks: Members,
) -> None:
  """Read an archive as the server will, and compare it with the masks.

  Raises:
    InputError: A file is missing, unexpected, or unlike its mask.
  """
  names: set[str] = set()
  report = clocks.Progress(len(masks), print, name="checked")
  try:
    for name, data in members(server, path):
      if name in names or name not in masks:
        raise ValueError(f"{name} is in it twice, or is no test image")
      names.add(name)
      _check_one(server, name, data, labels(server, *masks[name]))
      report.step()
    if lost := sorted(masks.keys() - names):
      raise ValueError(f"{lost[0]} is missing ({len(lost)} of {len(masks)})")
  except BROKEN as error:
    raise errors.InputError(
      f"{path} does not hold what was to be packed: {error}. Is the disk full? "
      "Write it again"
    ) from error


def _check_one(
  server: evaluation_servers.Server, name: str, data: bytes, classes: np.ndarray
) -> None:
  """Compare a file of an archive with the classes that it must hold."""
  with Image.open(io.BytesIO(data)) as picture:
    mode = "P" if server.palette else "L"
    if (picture.format, picture.mode) != ("PNG", mode):
      raise ValueError(
        f"{name} is {picture.format} of mode {picture.mode}, not PNG of {mode}"
      )
    colors = picture.getpalette() or []
    numbers = np.asarray(picture)
  wanted = np.array(server.ids, np.uint8)[classes]
  if not np.array_equal(numbers, wanted):
    raise ValueError(f"{name} has other numbers or another size than its mask")
  needed = [v for color in server.palette[: len(server.ids)] for v in color]
  if colors[: len(needed)] != needed:
    raise ValueError(f"{name} has not the colors of {server.spec.name}")


def pack(
  server: evaluation_servers.Server,
  out: pathlib.Path,
  masks: Members,
) -> None:
  """Write and check an archive, which gets its name when it is right.

  Raises:
    InputError: A mask is not as the server takes it, or writing fails.
  """
  with errors.disk_errors(f"cannot write {out}", "give another --out"):
    with atomic.replacing(out) as partial:
      write(server, pathlib.Path(partial), masks)
      check(server, pathlib.Path(partial), masks)
