"""Checkpoints of a run: written, sealed, skipped when damaged, read.

Orbax restores flipped bits silently, so each finished checkpoint is sealed by a
`sha256.json`, written last. One without it, or with another sum, is skipped
with a message, and the one before is read. A checkpoint is written before its
step is evaluated, and the score added afterwards. Older ones are deleted only
once the new one is sealed.
"""

from collections.abc import Iterable
import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import shutil
from typing import Any
import warnings

from etils import epath
import jax
import orbax.checkpoint as ocp

from deeplax import atomic
from deeplax import errors
from deeplax.workdir import layout
from deeplax.workdir import results

SUMS = "sha256.json"
SCORE = "metrics/metrics"  # Orbax's name for it
TRAINED = ("params", "batch_stats")


def _unexpected(record: logging.LogRecord) -> bool:
  """Return whether to show a message of Orbax: all but two are shown."""
  text = record.getMessage()
  # Reading the state's folder alone, without the data's position, is meant.
  meant = text.startswith("Metadata file does not exist")
  # The error of a writing thread is raised again, and reported, in `save`.
  return not (meant or "_SignalingThread.run() raised an exception" in text)


logging.getLogger("absl").addFilter(_unexpected)


def _sums(folder: epath.Path) -> dict[str, str]:
  """Return the SHA-256 of every file below a checkpoint, by relative name."""
  sums = {}
  stack = [folder]
  while stack:
    for path in stack.pop().iterdir():
      if path.is_dir():
        stack.append(path)
      elif path.name != SUMS:
        sums[path.relative_to(folder).as_posix()] = _sum(path)
  return sums


def _sum(path: epath.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()


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


def _damage(folder: epath.Path) -> str | None:
  """Return in words how a checkpoint is damaged; None: it is sound."""
  if not (folder / SUMS).exists():
    return f"it has no {SUMS}: writing it was interrupted"
  try:
    expected = dict(json.loads((folder / SUMS).read_bytes()))
  except (ValueError, TypeError):
    return f"its {SUMS} is damaged"
  actual = _sums(folder)
  wrong = [k for k in expected if actual.get(k) != expected[k]]
  return f"{wrong[0]} is missing or changed on disk" if wrong else None


def sound_step(workdir: epath.PathLike, step: int | None = None) -> int | None:
  """Return `step`, or by default the newest undamaged one; None: none exists.

  Raises:
    InputError: `step` was asked for and does not exist or is damaged.
  """
  folder = epath.Path(workdir) / layout.CHECKPOINTS
  steps = layout.checkpoint_steps(workdir)
  if step is not None:
    if step not in steps:
      raise errors.InputError(f"no step {step} in {folder}; steps: {steps}")
    if damage := _damage(folder / str(step)):
      raise errors.InputError(f"checkpoint {folder / str(step)}: {damage}")
    return step
  for candidate in reversed(steps):
    damage = _damage(folder / str(candidate))
    if damage is None:
      return candidate
    print(f"deeplax: skipping checkpoint {folder / str(candidate)}: {damage}")
  sealed = [s for s in steps if (folder / str(s) / SUMS).exists()]
  if sealed:  # one whose writing was interrupted does not count
    raise errors.InputError(
      f"none of the checkpoints {sealed} in {folder} is whole. Restore that "
      "folder from a copy, or start anew in another --workdir"
    )
  return None


def best_step(workdir: epath.PathLike) -> int:
  """Return the step with the best validation mIoU among those on disk.

  Raises:
    InputError: No checkpoint on disk has been evaluated.
  """
  folder = epath.Path(workdir) / layout.CHECKPOINTS
  steps = layout.checkpoint_steps(workdir)
  scores = _scores(folder, steps)
  if not scores:
    raise errors.InputError(
      f"no evaluated checkpoint in {folder}; steps: {steps}"
    )
  return max(scores, key=lambda s: (scores[s], s))


def miou(workdir: epath.PathLike, step: int) -> float | None:
  """Return a checkpoint's validation mIoU; None: it was not evaluated."""
  return _scores(epath.Path(workdir) / layout.CHECKPOINTS, [step]).get(step)


def _scores(folder: epath.Path, steps: Iterable[int]) -> dict[int, float]:
  """Return the validation mIoU of those steps that have one."""
  # A damaged score counts as none: its checkpoint is not sound either.
  scores = {s: results.miou_in(folder / str(s) / SCORE) for s in steps}
  return {step: miou for step, miou in scores.items() if miou is not None}


def restore_variables(
  workdir: epath.PathLike, step: int | str | None = None
) -> tuple[dict[str, Any], int]:
  """Return ({"params", "batch_stats"}, step) of a run.

  With `optim.ema_decay` these are the moving averages.

  Args:
    workdir: Of a training run.
    step: A number, "best" (by validation mIoU) or None for the newest.

  Raises:
    InputError: There is no such checkpoint; the message lists the nearest.
  """
  wanted = best_step(workdir) if step == "best" else step
  assert not isinstance(wanted, str), wanted
  sound = sound_step(workdir, wanted)
  if sound is None:
    raise errors.InputError(
      f"no checkpoint in {epath.Path(workdir) / layout.CHECKPOINTS}. "
      f"{layout.nearest_runs(workdir)}. deeplax never runs on random weights"
    )
  # Below a relative path Orbax silently reads nothing.
  folder = epath.Path(workdir).resolve() / layout.CHECKPOINTS / str(sound)
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
  return {"batch_stats": {}, **restored.get("average", restored)}, sound


def _fields(state: Any) -> dict[str, Any]:
  """Return the fields of a state to save; the average may be missing."""
  fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
  return {name: value for name, value in fields.items() if value is not None}


class Checkpoints:
  """Writes a run's checkpoints and resumes from the newest sound one."""

  def __init__(self, workdir: epath.PathLike, *, keep: int):
    """Open a workdir's checkpoints: the newest `keep` and the best stay."""
    self._folder = epath.Path(workdir).resolve() / layout.CHECKPOINTS
    self._keep = keep
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        # `_prune` deletes the old ones instead, once the new one is sealed.
        max_to_keep=None,
        # Sums can be made of finished files only.
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
      ),
    )
    self._scores = _scores(self._folder, self._manager.all_steps())

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
        atomic.write_json(folder / SUMS, _sums(folder))
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
      atomic.write_json(folder / SCORE, {"miou": miou})
      sums = json.loads((folder / SUMS).read_bytes())
      sums[SCORE] = _sum(folder / SCORE)
      atomic.write_json(folder / SUMS, sums)
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
      if _damage(self._folder / str(step)) is None:
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
