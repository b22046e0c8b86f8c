"""Checkpoints of a run: written, sealed, read.

Orbax restores flipped bits silently, so each finished checkpoint is sealed, and
`sealed` finds a sound one. A checkpoint is written before its step is
evaluated, and the score added afterwards. Older ones are deleted only once the
new one is sealed.
"""

from collections.abc import Mapping
import dataclasses
import errno
import logging
import os
import re
import shutil
from typing import Any
import warnings

from etils import epath
import jax
import orbax.checkpoint as ocp

from deeplax import errors
from deeplax.workdir import layout
from deeplax.workdir import sealed

TRAINED = ("params", "batch_stats")


def _unexpected(record: logging.LogRecord) -> bool:
  """Return whether to show a message of Orbax: all but two are shown."""
  text = record.getMessage()
  # Reading the state's folder alone, without the data's position, is meant.
  meant = text.startswith("Metadata file does not exist")
  # The error of a writing thread is raised again, and reported, in `save`.
  return not (meant or "_SignalingThread.run() raised an exception" in text)


logging.getLogger("absl").addFilter(_unexpected)


def _refuse_full(folder: epath.Path, state: Any) -> None:
  """Raise if a state cannot fit: errors of Orbax's threads fill a screen."""
  if "://" in str(folder):
    return
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  # The files beside the arrays are a few kB.
  if shutil.disk_usage(folder).free < size + 2**20:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error: Exception) -> str:
  """Return the cause named in an error of Orbax, whose text fills a screen."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = str(error)
  match = re.search(r"No space left on device|Disk quota exceeded", text)
  if match:
    return match[0]
  return (text.strip() or type(error).__name__).splitlines()[0][:200]


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
  # Below a relative path Orbax silently reads nothing.
  folder = epath.Path(workdir).resolve() / layout.CHECKPOINTS / str(step)
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
  folder = epath.Path(workdir).resolve() / layout.CHECKPOINTS / str(step)
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


def _fields(state: Any) -> dict[str, Any]:
  """Return the fields of a state to save; the average may be missing."""
  fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
  return {name: value for name, value in fields.items() if value is not None}


class _Manager(ocp.CheckpointManager):
  """Does not ask JAX whether to stop: that would count as the run's asking."""

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class Checkpoints:
  """Writes a run's checkpoints and resumes from the newest sound one."""

  def __init__(self, workdir: epath.PathLike, *, keep: int):
    """Open a workdir's checkpoints: the newest `keep` and the best stay."""
    self._folder = epath.Path(workdir).resolve() / layout.CHECKPOINTS
    self._keep = keep
    self._manager = _Manager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        # `_prune` deletes the old ones instead, once the new one is sealed.
        max_to_keep=None,
        # Sums can be made of finished files only.
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
      ),
    )
    self._scores = sealed.scores(self._folder, self._manager.all_steps())

  def save(self, step: int, state: Any, position: dict[str, int]) -> None:
    """Write one checkpoint; when this returns it is whole and sealed.

    Args:
      step: Its number.
      state: The training state.
      position: The state of the training data's iterator.

    Raises:
      InputError: It cannot be written, for lack of space for example. Earlier
        checkpoints are left as they were.
    """
    folder = self._folder / str(step)
    try:
      _refuse_full(self._folder, state)
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(_fields(state)),
          # One number, equal on every process: any number of hosts may resume.
          data=ocp.args.JsonSave(position),
        ),
      )
      self._manager.wait_until_finished()
      if jax.process_index() == 0:
        sealed.seal(folder)
    except (OSError, ValueError) as error:  # TensorStore's are ValueErrors
      raise errors.InputError(
        f"step {step} could not be saved in {self._folder} "
        f"({_reason(error)}). Make room there or mend the disk; the same "
        "command then goes on from the checkpoint before"
      ) from error
    if not saved:
      raise RuntimeError(f"Orbax did not save step {step} in {self._folder}")
    self._prune()

  def scored(self, step: int) -> bool:
    """Return whether a step has a score."""
    return step in self._scores

  def score(self, step: int, miou: float) -> None:
    """Write a saved step's validation mIoU into its checkpoint."""
    folder = self._folder / str(step)
    self._scores[step] = miou
    if jax.process_index() == 0:
      sealed.write_score(folder, miou)
    self._prune()

  def _prune(self) -> None:
    """Delete all but the newest and the best."""
    steps = sorted(self._manager.all_steps())
    stay = set(steps[-self._keep :])
    if scored := [step for step in steps if step in self._scores]:
      stay.add(max(scored, key=lambda step: (self._scores[step], step)))
    for step in steps:
      if step not in stay:
        self._manager.delete(step)

  def restore(
    self,
    step: int,
    state: Any,
    iterator: Any,
    *,
    sharding: jax.sharding.Sharding,
  ) -> Any:
    """Return the state of `step`, and set `iterator` to where it was.

    Args:
      step: The step of a sound checkpoint.
      state: A state of the same shapes.
      iterator: The training data's.
      sharding: Of each array of the state.
    """
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
    )
    with warnings.catch_warnings():
      # Written on another number of devices is fine: the target has shardings.
      warnings.filterwarnings("ignore", message=".*[Ss]harding.*")
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(_fields(target)),
          data=ocp.args.JsonRestore(),
        ),
      )
    iterator.set_state(restored["data"])
    return dataclasses.replace(state, **restored["state"])

  def discard_damaged(self, *, after: int) -> None:
    """Delete the damaged checkpoints after step `after`.

    Orbax saves no step before the newest that it knows.

    Raises:
      InputError: One of them is sound: another process has written it.
    """
    for step in self._manager.all_steps():
      if step <= after:
        continue
      if sealed.damage(self._folder / str(step)) is None:
        raise errors.InputError(
          f"{self._folder / str(step)} has appeared while this run started "
          f"from step {after}: another process trains there. Nothing was "
          "deleted; give this run its own --workdir"
        )
      self._manager.delete(step)
    self._prune()  # a run that was killed may not have got to it

  def close(self) -> None:
    self._manager.close()


def save_start(workdir: epath.PathLike, state: Any, *, step: int = 0) -> None:
  """Write the first checkpoint of a workdir that was made without training."""
  checkpoints = Checkpoints(workdir, keep=2)
  checkpoints.discard_damaged(after=-1)  # its writing was interrupted
  checkpoints.save(step, state, {"next_index": 0})
  checkpoints.close()
