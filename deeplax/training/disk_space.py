"""Do the checkpoints of a run fit on its disk? Asked before step 0."""

import os
import shutil

from etils import epath
import ml_collections

from deeplax import errors
from deeplax.training import limits
from deeplax.workdir import layout

SMALL = 2**20  # bytes of a checkpoint's other files, at most


def refuse_full(
  config: ml_collections.ConfigDict,
  workdir: epath.PathLike,
  *,
  state_bytes: int,
) -> None:
  """Refuse a run whose checkpoints will not fit, saying how many would.

  The newest `checkpoint.keep`, and the best where there are evaluations on the
  way, lie beside the one that is being written; those that a resumed run has
  already take no more.

  Args:
    config: Of the run.
    workdir: Of the run; elsewhere than on this computer nothing is known.
    state_bytes: Of what is saved.

  Raises:
    InputError: With the number to keep that fits, if there is one.
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
  """Return a path, or the first folder above it that exists."""
  folder = os.path.abspath(os.fspath(path))
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  return folder
