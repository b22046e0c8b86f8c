"""Fetch the archives of data sets and unpack them.

A broken transfer continues where it stopped, by HTTP ranges. The download
manager of TensorFlow Datasets starts again at the first byte, and unpacks only
with TensorFlow.
"""

from collections.abc import Callable, Iterable
from functools import partial
import hashlib
import http
import http.client
import pathlib
import tarfile
import time
from typing import NamedTuple
import urllib.error
import urllib.request
import zipfile
import zlib

from deeplax import clocks
from deeplax import errors
from deeplax.data.prepare import write

_CHUNK = 2**20
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError)
_Bytes = partial(clocks.Progress, unit="MB", scale=1e6)


class Archive(NamedTuple):
  """A published archive.

  Attributes:
    url: Its address.
    digest: "<algorithm>:<hexadecimal>" of the file.
    size: Its size in bytes; None: the server tells it.
  """

  url: str
  digest: str
  size: int | None = None

  @property
  def name(self) -> str:
    return self.url.rsplit("/", 1)[-1]


VOC = Archive(
  "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
  # TensorFlow Datasets 4.9.10, url_checksums/voc.txt.
  "sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
  1999639040,
)
SBD = Archive(
  "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
  "semantic_contours/benchmark.tgz",
  # torchvision, prototype/datasets/_builtin/sbd.py.
  "sha256:6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
)
ADE20K = Archive(
  "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
  # GluonCV, scripts/datasets/ade20k.py; no stronger one is published.
  "sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",
)
# TensorFlow Datasets 4.9.10, url_checksums/coco.txt.
COCO = (
  Archive(
    "http://images.cocodataset.org/zips/train2017.zip",
    "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    19336861798,
  ),
  Archive(
    "http://images.cocodataset.org/zips/val2017.zip",
    "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    815585330,
  ),
  Archive(
    "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    252907541,
  ),
)
# By data set: the archives, and the folder that they are unpacked to.
ARCHIVES = {
  "voc2012": {"voc2012": (VOC,), "sbd": (SBD,)},
  "ade20k": {"ade20k": (ADE20K,)},
  "coco": {"coco": COCO},
}


def fetch(
  archive: Archive,
  folder: pathlib.Path,
  *,
  progress: Callable[[str], None] = print,
  attempts: int = 5,
  pause: float = 3.0,
  timeout: float = 60.0,
) -> pathlib.Path:
  """Return the path of an archive, fetched if the folder does not have it.

  Args:
    archive: The archive.
    folder: The folder, in which an unfinished file is called <name>.part.
    progress: Receives lines of progress.
    attempts: How many transfers may break before the last.
    pause: Seconds before the second attempt, twice as many before each next.
    timeout: Seconds without a byte after which a transfer counts as broken.

  Raises:
    InputError: The transfer broke, the disk is too small, or the file is not
      the published one.
  """
  target, part = folder / archive.name, folder / f"{archive.name}.part"
  if target.exists():
    if not _is_published(target, archive, progress):
      raise errors.InputError(
        f"{target} is not the published archive (its digest is not "
        f"{archive.digest}): delete it, and the same command fetches it"
      )
    return target
  write.make_folder(folder)
  progress(f"fetching {archive.url} to {folder}")
  for attempt in range(attempts):
    if attempt:  # twice as long before each further attempt
      time.sleep(pause * 2 ** (attempt - 1))
    try:
      _transfer(archive, part, progress, timeout)
      break
    except (OSError, http.client.HTTPException) as error:
      reason = f"{type(error).__name__}: {error}"
      if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code < 500:  # the next attempt would not find it either
          raise errors.InputError(
            f"{archive.url}: {error}. Fetch {archive.name} by other means to "
            f"{target}, and run the same command"
          ) from error
  else:
    have = part.stat().st_size if part.exists() else 0
    raise errors.InputError(
      f"{archive.url}: the transfer broke after {have / 1e6:.1f} MB "
      f"({reason}). The same command continues from there; or fetch "
      f"{archive.name} by other means to {target}"
    )
  if not _is_published(part, archive, progress):
    part.unlink()
    raise errors.InputError(
      f"what {archive.url} sent is not the published archive (its digest is "
      f"not {archive.digest}) and was deleted. Run the same command again; if "
      f"this stays, fetch {archive.name} by other means to {target}"
    )
  return part.replace(target)


def _is_published(
  path: pathlib.Path, archive: Archive, progress: Callable[[str], None]
) -> bool:
  progress(f"checking {path}")
  algorithm, _, expected = archive.digest.partition(":")
  with path.open("rb") as file:
    return hashlib.file_digest(file, algorithm).hexdigest() == expected


def _transfer(
  archive: Archive,
  part: pathlib.Path,
  progress: Callable[[str], None],
  timeout: float,
) -> None:
  """Fetch the bytes that `part` lacks; raise OSError if the transfer breaks."""
  done = part.stat().st_size if part.exists() else 0
  if done == archive.size:  # stopped between the last byte and the check
    return
  request = urllib.request.Request(archive.url)
  request.add_header("User-Agent", "deeplax")
  if done:
    request.add_header("Range", f"bytes={done}-")
  try:
    response = urllib.request.urlopen(request, timeout=timeout)
  except urllib.error.HTTPError as error:
    if done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
      error.close()
      return  # all bytes are here, and the digest tells whether rightly
    raise
  with response:
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
      done = 0  # this server always sends the whole file
    length = response.headers.get("Content-Length")
    total = done + int(length) if length else archive.size or 0
    write.refuse_full_disk(
      part.parent, total - done, f"to fetch {archive.name}"
    )
    report = _Bytes(total, progress, name=f"fetched {archive.name}", done=done)
    with part.open("ab" if done else "wb") as file:
      while chunk := response.read(_CHUNK):
        file.write(chunk)
        done += len(chunk)
        report.step(len(chunk))
  if done < total:
    raise ConnectionError(f"the server closed it {total - done} bytes early")


def unpack(
  archives: Iterable[pathlib.Path],
  target: pathlib.Path,
  *,
  progress: Callable[[str], None] = print,
) -> pathlib.Path:
  """Return `target`, into which archives are unpacked if it does not exist.

  Args:
    archives: Zip or tar files, all for one folder.
    target: The folder, which appears only when it is whole.
    progress: Receives lines of progress.

  Raises:
    InputError: An archive is damaged, or the disk too small.
  """
  if target.exists():
    return target
  with write.staged(target.with_name(f"incomplete.{target.name}")) as staging:
    for path in archives:
      progress(f"unpacking {path} to {target}")
      try:
        kind = _unzip if zipfile.is_zipfile(path) else _untar
        kind(path, staging, progress)
      except (OSError, *_DAMAGED) as error:
        raise errors.InputError(
          f"{path} cannot be unpacked to {target} ({type(error).__name__}: "
          f"{error}): fetch it again, or look whether the disk is full"
        ) from error
    return staging.rename(target)


def _unzip(
  path: pathlib.Path, folder: pathlib.Path, progress: Callable[[str], None]
) -> None:
  with zipfile.ZipFile(path) as archive:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    write.refuse_full_disk(folder, total, f"to unpack {path}")
    report = _Bytes(total, progress, name=f"unpacked {path.name}")
    for member in members:
      archive.extract(member, folder)
      report.step(member.file_size)


def _untar(
  path: pathlib.Path, folder: pathlib.Path, progress: Callable[[str], None]
) -> None:
  total = path.stat().st_size  # packing makes pictures no smaller
  write.refuse_full_disk(folder, total, f"to unpack {path}")
  report = _Bytes(total, progress, name=f"unpacked {path.name}")
  with path.open("rb") as file, tarfile.open(fileobj=file) as archive:
    before = 0
    for member in archive:
      archive.extract(member, folder, filter="data")
      report.step(file.tell() - before)
      before = file.tell()
