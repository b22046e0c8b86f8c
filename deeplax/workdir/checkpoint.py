"""Checkpoints of a run, read; `saves` writes them, `sealed` finds one."""

from collections.abc import Mapping
import logging
import os
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp

from deeplax import errors
from deeplax import paths
from deeplax.workdir import layout
from deeplax.workdir import sealed

TRAINED = ("params", "batch_stats")
_NOT_SHOWN = (
  # Reading the state's folder alone, without the data's position, is meant.
  "Metadata file does not exist",
  # Errors of its threads are raised again, and told as one message.
  "_SignalingThread.run() raised an exception",
  "Handler Commit operations or the Commit callback",
)


def _unexpected(record: logging.LogRecord) -> bool:
  return not any(text in record.getMessage() for text in _NOT_SHOWN)


logging.getLogger("absl").addFilter(_unexpected)


def folder_of(workdir: epath.PathLike) -> epath.Path:
  """Return the whole path of a run's checkpoints.

  Below a relative one Orbax reads nothing, without a word; `resolve` of epath
  makes a local path of a bucket's.
  """
  return epath.Path(paths.absolute(os.fspath(workdir))) / layout.CHECKPOINTS


def restore_variables(
  workdir: epath.PathLike, step: int | str | None = None
) -> tuple[dict[str, Any], int]:
  """Return the variables of a run as `read`, and the step they are of.

  For the arguments see `sealed.wanted_step`.

  Raises:
    InputError: There is no such checkpoint; the message lists the nearest.
  """
  found = sealed.wanted_step(workdir, step)
  return read(workdir, found), found


def read(workdir: epath.PathLike, step: int) -> dict[str, Any]:
  """Return {"params", "batch_stats"} of a run at a sound step.

  With `optim.ema_decay` these are the moving averages.
  """
  folder = folder_of(workdir) / str(step)
  # Any device count may have written it: restore whole arrays to the host's
  # first device, and of the state only what a model takes.
  one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  with ocp.PyTreeCheckpointer() as reader:
    tree = reader.metadata(folder / "state").item_metadata.tree
    wanted_tree = {
      key: jax.tree.map(
        lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=one),
        tree[key],
      )
      # The moving average where one was kept, else what was trained.
      for key in (("average",) if tree.get("average") else TRAINED)
      if key in tree
    }
    restored = reader.restore(
      folder / "state",
      args=ocp.args.PyTreeRestore(
        item=wanted_tree,
        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted_tree),
        partial_restore=True,
      ),
    )
  return {"batch_stats": {}, **restored.get("average", restored)}


def refuse_other_shapes(
  workdir: epath.PathLike,
  step: int,
  shapes: Mapping[tuple[str, ...], tuple[int, ...]],
) -> None:
  """Refuse a network whose parameters are not those of a checkpoint.

  Args:
    workdir: Of the run.
    step: Of a sound checkpoint.
    shapes: Of the network's parameters and statistics, by path.

  Raises:
    InputError: Naming the first path that differs.
  """
  folder = folder_of(workdir) / str(step)
  with ocp.PyTreeCheckpointer() as reader:
    tree = reader.metadata(folder / "state").item_metadata.tree
  kept: dict[tuple[str, ...], Any] = {
    (part, *(key.key for key in path)): leaf.shape
    for part in TRAINED
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree.get(part, {}))
  }
  paths = {*kept, *shapes}
  for path in sorted(paths, key=lambda p: (TRAINED.index(p[0]), p)):
    if kept.get(path) != shapes.get(path):
      raise errors.InputError(
        f"{workdir} step {step} holds another network: {'/'.join(path[1:])} "
        f"is {kept.get(path, 'missing')} there and "
        f"{shapes.get(path, 'missing')} now. Give the run the network that it "
        "was trained with, or train in another workdir"
      )
