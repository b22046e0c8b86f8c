"""Several processes make one run: they must see the same workdir and data."""

import hashlib
import random
import time

from etils import epath

from deeplax import atomic
from deeplax import parallel
from deeplax.data import files
from deeplax.data import views
from deeplax.workdir import layout

# Seconds for which a network file system may show a folder as it was before.
OUT_OF_DATE = 30.0
COMPARED = 100  # images whose names are compared


def refuse_apart(workdir: epath.PathLike) -> None:
  """Refuse a workdir that is another folder on some process; all call this.

  The first process writes a number there that all others must read.

  Raises:
    InputError: Naming the processes that do not see it.
  """
  if parallel.processes() == 1:
    return
  folder = epath.Path(workdir)
  number = parallel.gathered(random.randrange(2**31))[0]  # the first one's
  path = folder / layout.TOKEN
  rank = parallel.rank()
  if rank == 0:
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, str(number))
  parallel.gathered(0)  # written
  end = time.monotonic() + OUT_OF_DATE
  while not (seen := _reads(path, number)) and time.monotonic() < end:
    time.sleep(0.2)
  without = [r for r, sees in enumerate(parallel.gathered(seen)) if not sees]
  if rank == 0:
    path.unlink()
  if without:
    raise parallel.Told(
      f"--workdir={workdir} is not one folder for all processes: "
      f"{', '.join(map(str, without))} of 0 to {parallel.processes() - 1} do "
      "not see what the first one writes there. Name a folder on a file system "
      "that all hosts share"
    )


def _reads(path: epath.Path, number: int) -> bool:
  try:
    return path.read_text() == str(number)
  except OSError:
    return False


def refuse_other_images(source: files.Source) -> None:
  """Refuse a split that some process has other images of; all call this.

  Raises:
    InputError: Naming the first such process.
  """
  if parallel.processes() == 1:
    return
  names = []
  if isinstance(source, files.Decoded):
    names = [source.name(i) for i in views.evenly(len(source), COMPARED)]
  digest = hashlib.sha256(f"{len(source)} {names}".encode()).digest()
  found = parallel.gathered(int.from_bytes(digest[:7]))
  counts = parallel.gathered(len(source))
  others = [r for r, other in enumerate(found) if other != found[0]]
  if others:
    raise parallel.Told(
      f"the split {source.split}: process {others[0]} has "
      f"{counts[others[0]]} images and the first one {counts[0]}"
      f"{', of other names' if counts[others[0]] == counts[0] else ''}. Give "
      "all hosts the same files"
    )
