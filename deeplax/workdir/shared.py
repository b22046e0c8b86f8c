"""Several processes write one run: they must see the same workdir."""

import random
import time

from etils import epath

from deeplax import atomic
from deeplax import errors
from deeplax import parallel
from deeplax.workdir import layout

# Seconds for which a network file system may show a folder as it was before.
OUT_OF_DATE = 30.0


def refuse_apart(workdir: epath.PathLike) -> None:
  """Refuse a workdir that is another folder on some process; all call this.

  The first process writes a number there that all others must read.

  Raises:
    InputError: Naming the processes that do not see it.
  """
  folder = epath.Path(workdir)
  number, *others = parallel.gathered(random.randrange(2**31))
  if not others:
    return
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
    raise errors.InputError(
      f"--workdir={workdir} is not one folder for all processes: "
      f"{', '.join(map(str, without))} of 0 to {len(others)} do not see what "
      "the first one writes there. Name a folder on a file system that all "
      "hosts share"
    )


def _reads(path: epath.Path, number: int) -> bool:
  try:
    return path.read_text() == str(number)
  except OSError:
    return False
