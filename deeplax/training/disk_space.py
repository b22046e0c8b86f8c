"""Refuse, before step 0, a run whose checkpoints do not fit on its disk."""

import os
import shutil

from etils import epath
import ml_collections

from deeplax import errors
from deeplax.training import limits
from deeplax.workdir import layout

SMALL = 2**20  # largest size of a checkpoint's other files, in bytes


def refuse_full(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  *,
  state_bytes: int,
) -> None:
  """Refuse a run whose checkpoints will not fit, and say how many would.

  On disk at once are the newest `checkpoint.keep`, the best one if the run is
  evaluated on the way, and the one that is being written. Those that a resumed
  run already has need no further space.

  Args:
    workdir: Checked only if it lies on this computer.
    state_bytes: Size of the saved arrays.

  Raises:
    InputError: Naming the number of checkpoints that fits, if any does.
  """
  if "://" in os.fspath(workdir):
    return
  steps = layout.checkpoint_steps(workdir)
  total = config.train.total_steps
  saved = {total}.union(
    *(
      range(every, total, every)
      for every in (config.checkpoint.every, config.eval.every)
      if every > 0
    )
  )
  to_come = len([step for step in saved if not steps or step > steps[-1]])
  besides = 2 if config.eval.every > 0 else 1  # the new one, and the best
  each = state_bytes + SMALL
  wanted = min(config.checkpoint.keep + besides - len(steps), to_come)
  free = shutil.disk_usage(_nearest(workdir)).free
  if wanted * each <= free:
    return
  keep = free // each + len(steps) - besides
  fix = "Make room there, or take another --workdir"
  if keep >= limits.LEAST_KEPT:
    fix += f", or keep fewer: --config.checkpoint.keep={keep}"
  raise errors.InputError(
    f"--workdir={workdir}: a checkpoint takes {_text(each)}, "
    f"{wanted} more will lie there at once, and {_text(free)} are "
    f"free on that disk. {fix}"
  )


def _text(count: int) -> str:
  return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _nearest(path: epath.PathLike) -> str:
  """Return the path itself or the nearest folder above it that exists."""
  folder = os.path.abspath(os.fspath(path))
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  return folder
