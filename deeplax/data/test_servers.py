"""What the test servers of VOC and Cityscapes read: archives of PNGs.

voc takes a .tar.gz of index PNGs with VOC's colours, results/VOC2012/
Segmentation/comp6_test_cls/ID.png (the VOC 2012 development kit's document, on
the submission of segmentations); cityscapes a .zip of grey PNGs of labelIds,
CITY_SEQUENCE_FRAME*.png (cityscapesScripts, helpers/labels.py and
evaluation/evalPixelLevelSemanticLabeling.py).
"""

from collections.abc import Iterator, Mapping
import dataclasses
import io
import os
import pathlib
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

from deeplax import errors
from deeplax import progress
from deeplax.data import files
from deeplax.data import published
from deeplax.data import spec as spec_lib

# {path in the archive: (predicted mask, image)}
Found = Mapping[str, tuple[pathlib.Path, pathlib.Path]]

# What reading a spoilt archive raises.
BROKEN = (
  *(EOFError, OSError, ValueError, zlib.error),
  *(tarfile.TarError, zipfile.BadZipFile),
)
# VOC 2012's segmentation images whose truth only the server has.
VOC_TEST = 1456
VOC_FOLDER = "results/VOC2012/Segmentation"


@dataclasses.dataclass(frozen=True)
class Server:
  """What a test server reads.

  Attributes:
    spec: The classes that are predicted.
    ids: By class, the number in the file.
    palette: Colours of the file's numbers; (): grey.
    suffixes: Of the archive; the first names the kind.
    images: In its test split.
  """

  spec: spec_lib.Spec
  ids: tuple[int, ...]
  palette: tuple[spec_lib.Color, ...]
  suffixes: tuple[str, ...]
  images: int


SERVERS = {
  "voc": Server(
    spec=spec_lib.VOC2012,
    ids=tuple(range(21)),
    palette=spec_lib.color_map(256),
    suffixes=(".tar.gz", ".tgz"),
    images=VOC_TEST,
  ),
  "cityscapes": Server(
    spec=spec_lib.CITYSCAPES,
    ids=tuple(published.CITYSCAPES_IDS),
    palette=(),
    suffixes=(".zip",),
    images=dict(spec_lib.CITYSCAPES.splits)["test"],
  ),
}


def labels(
  server: Server, mask: pathlib.Path, image: pathlib.Path
) -> np.ndarray:
  """Return a predicted mask, uint8 classes at the size of its image.

  Raises:
    InputError: It has another size, or numbers that are no class.
  """
  found = files.decode_label(files.read_bytes(mask), str(mask))
  size, _ = files.image_size(files.read_bytes(image), str(image))
  if found.shape != size:
    raise errors.InputError(
      f"{mask} is {found.shape[0]}x{found.shape[1]} (height x width) but "
      f"{image} is {size[0]}x{size[1]}: predict at the image's own size"
    )
  k = server.spec.num_classes
  wrong = (found < 0) | (found >= k)
  if wrong.any():
    raise errors.InputError(
      f"{mask} has values {np.unique(found[wrong])[:8].tolist()}; the classes "
      f"of {server.spec.name} are 0 to {k - 1}. Give masks of class indices, "
      "as deeplax.predict writes them"
    )
  return found.astype(np.uint8)


def encode(server: Server, classes: np.ndarray) -> bytes:
  """Return the PNG of a prediction as the server reads it."""
  numbers = np.array(server.ids, np.uint8)[classes]
  picture = Image.fromarray(numbers)
  if server.palette:
    picture.putpalette([v for color in server.palette for v in color])
  buffer = io.BytesIO()
  picture.save(buffer, format="PNG")
  return buffer.getvalue()


def member(server: Server, name: str, split: str, comp: int) -> str:
  """Return the path of an image's file in the archive."""
  if server.spec is spec_lib.VOC2012:
    return f"{VOC_FOLDER}/comp{comp}_{split}_cls/{name}.png"
  return f"{name}.png"


def write(
  server: Server,
  path: pathlib.Path,
  found: Found,
) -> None:
  """Write an archive.

  Args:
    server: Whose.
    path: The file.
    found: {path in the archive: (mask, image)}.
  """
  report = progress.Progress(len(found), print, name="packed")

  def pngs() -> Iterator[tuple[str, bytes]]:
    for name, (mask, image) in found.items():
      yield name, encode(server, labels(server, mask, image))
      report.step()

  # PNGs are compressed as they are: the archives need not try again.
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


def members(server: Server, path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
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
  server: Server,
  path: pathlib.Path,
  found: Found,
) -> None:
  """Read an archive as the server will, and compare it with the masks.

  Args:
    server: Whose.
    path: The file.
    found: {path in the archive: (mask, image)}.

  Raises:
    InputError: A file is missing, too many, or not what the mask says.
  """
  seen: set[str] = set()
  report = progress.Progress(len(found), print, name="checked")
  try:
    for name, data in members(server, path):
      if name in seen or name not in found:
        raise ValueError(f"{name} is there twice, or is no test image")
      seen.add(name)
      _check_one(server, name, data, labels(server, *found[name]))
      report.step()
    if lost := sorted(found.keys() - seen):
      raise ValueError(f"{lost[0]} is missing ({len(lost)} of {len(found)})")
  except BROKEN as error:
    raise errors.InputError(
      f"{path} does not hold what was to be packed: {error}. Is the disk full? "
      "Write it again"
    ) from error


def _check_one(
  server: Server, name: str, data: bytes, classes: np.ndarray
) -> None:
  """Compare a file of an archive with the classes it must hold."""
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
    raise ValueError(f"{name} has not the colours of {server.spec.name}")


def pack(
  server: Server,
  out: pathlib.Path,
  found: Found,
) -> None:
  """Write and check an archive; it gets its name when it is right.

  Raises:
    InputError: A mask is not what the server takes, or writing fails.
  """
  partial = out.parent / f".{out.name}.partial"
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    write(server, partial, found)
    check(server, partial, found)
    os.replace(partial, out)
  except OSError as error:
    raise errors.InputError(f"cannot write {out}: {error}") from error
  finally:
    partial.unlink(missing_ok=True)
