"""Checkpoints of a run: written, sealed, passed over when damaged, read.

Orbax restores flipped bits without a word, so each finished checkpoint gets a
`sha256.json` last; one without it, or with another sum, is passed over with a
message and the one before is taken. A checkpoint is written before its step is
evaluated; the score goes in afterwards. Older ones go only once the new one is
sealed.
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
SCORE = "metrics/metrics"  # as Orbax calls it
TRAINED = ("params", "batch_stats")


def _unexpected(record: logging.LogRecord) -> bool:
  """Pass on all but two of Orbax's messages."""
  text = record.getMessage()
  # The state alone, without the data's position, is read from its own folder.
  meant = text.startswith("Metadata file does not exist")
  # What a writing thread raised is raised in `save` too, and told there.
  return not (meant or "_SignalingThread.run() raised an exception" in text)


logging.getLogger("absl").addFilter(_unexpected)


def _sums(folder: epath.Path) -> dict[str, str]:
  """SHA-256 of every file below a checkpoint, by relative name."""
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
  """Raise before Orbax starts what cannot fit: its threads fill a screen."""
  if "://" in str(folder):
    return
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  # Beside the arrays it writes files of a few kB.
  if shutil.disk_usage(folder).free < size + 2**20:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error: Exception) -> str:
  """Return the cause in an error of Orbax, whose texts fill a screen."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = str(error)
  match = re.search(r"No space left on device|Disk quota exceeded", text)
  if match:
    return match[0]
  return (text.strip() or type(error).__name__).splitlines()[0][:200]


def _damage(folder: epath.Path) -> str | None:
  """Say what is wrong with a checkpoint, or None."""
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
  """Return the newest undamaged step (or `step`), None if there is none.

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
  if sealed:  # one whose writing was interrupted is as good as none
    raise errors.InputError(
      f"none of the checkpoints {sealed} in {folder} is whole. Restore that "
      "folder from a copy, or start anew in another --workdir"
    )
  return None


def best_step(workdir: epath.PathLike) -> int:
  """Return the step with the best validation mIoU among those kept.

  Raises:
    InputError: No kept checkpoint has been evaluated.
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
  # A damaged one counts as none here; its checkpoint is not sound.
  scores = {s: results.miou_in(folder / str(s) / SCORE) for s in steps}
  return {step: miou for step, miou in scores.items() if miou is not None}


def restore_variables(
  workdir: epath.PathLike, step: int | str | None = None
) -> tuple[dict[str, Any], int]:
  """Return ({"params", "batch_stats"}, step) of a run.

  Of a run with `optim.ema_decay` these are the moving averages.

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
  # Orbax reads nothing below a relative path, and does not say so.
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
  """Return what of a state is kept: a run without an average has none."""
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
        # It keeps all: the old ones go here, once the new one is sealed.
        max_to_keep=None,
        # The sums are made of finished files.
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,
      ),
    )
    self._scores = _scores(self._folder, self._manager.all_steps())

  def save(self, step: int, state: Any, position: dict[str, int]) -> None:
    """Write one checkpoint; when this returns it is whole and sealed.

    Args:
      step: Its number.
      state: Everything that training changes.
      position: In the training data, the state of their iterator.

    Raises:
      InputError: It cannot be written, for want of space for example. The ones
        before are left as they were.
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
    """Whether a step has a score."""
    return step in self._scores

  def score(self, step: int, miou: float) -> None:
    """Put a saved step's validation mIoU beside it."""
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
      step: Of a sound checkpoint.
      state: Of the same shapes.
      iterator: Of the training data.
      sharding: Where each array of the state goes.
    """
    target = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
    )
    with warnings.catch_warnings():
      # Another device count than the writer's is fine: the target says where.
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
    """Delete the checkpoints after a sound step, which were passed over.

    Orbax saves nothing before the newest step it knows.

    Raises:
      InputError: One of them is sound: something else has written it.
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
    self._prune()  # which a kill may have left undone

  def close(self) -> None:
    self._manager.close()


def save_start(workdir: epath.PathLike, state: Any, *, step: int = 0) -> None:
  """Write the one checkpoint of a workdir that no training run has made."""
  checkpoints = Checkpoints(workdir, keep=2)
  checkpoints.discard_damaged(after=-1)  # its writing was interrupted
  checkpoints.save(step, state, {"next_index": 0})
  checkpoints.close()
