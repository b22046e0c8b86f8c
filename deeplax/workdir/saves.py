"""Checkpoints of a run, written while it goes on.

Orbax restores flipped bits silently, so each finished checkpoint is sealed. A
step is saved before it is evaluated, and its score added afterwards. Older ones
are deleted only once the new one is sealed.
"""

import collections
from collections.abc import Callable
from concurrent import futures
import dataclasses
import errno
from functools import partial
import os
import re
import shutil
from typing import Any
import warnings

from etils import epath
import jax
import orbax.checkpoint as ocp

from deeplax import errors
from deeplax import parallel
from deeplax.workdir import checkpoint
from deeplax.workdir import layout
from deeplax.workdir import sealed

# A wait of more seconds is told; as often several processes look whether all of
# them have written their parts.
PATIENCE = 5.0
# Seconds that the first process gives a checkpoint which all have written, when
# the run fails, to be sealed.
LAST_SEAL = 60.0


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


def _fields(state: Any) -> dict[str, Any]:
  """Return the fields of a state to save; the average may be missing."""
  fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
  return {name: value for name, value in fields.items() if value is not None}


class Checkpoints:
  """Writes a run's checkpoints and resumes from the newest sound one.

  `save` returns once the state is copied to the host, where it takes its own
  size of memory until it is written. A thread then waits for Orbax and, in the
  first process, seals the checkpoint, adds its score and deletes older ones.
  All processes make the same calls in the same order.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    keep: int,
    progress: Callable[[str], None] = print,
  ):
    """Open a workdir's checkpoints: the newest `keep` and the best stay.

    `progress` receives a line when something has to wait for a checkpoint.
    """
    self._folder = checkpoint.folder_of(workdir)
    self._keep, self._progress = keep, progress
    self._first = parallel.rank() == 0
    # The first tells: to another a network's file system may show older scores.
    self._scores = dict(parallel.of_first(self._tidied))
    self._scored = {*self._scores}  # or about to be
    # Otherwise, where no folder can be made, its threads wait for one for five
    # minutes, and so does the end of the process.
    options = ocp.AsyncOptions(create_directories_asynchronously=False)
    self._writer = ocp.AsyncCheckpointer(
      ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(async_options=options)
      ),
      async_options=options,
    )
    # One thread: all is done in the order in which it was asked for.
    self._thread = futures.ThreadPoolExecutor(1)
    self._unfinished = collections.deque[tuple[str, futures.Future[None]]]()
    self._sealing = False
    # Whether some process could not write: the others' parts wait for its own.
    self._failed = False

  def _tidied(self) -> list[tuple[int, float]]:
    """Delete what a killed run was writing; return the scores."""
    self._folder.mkdir(parents=True, exist_ok=True)
    for path in self._folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
      path.rmtree()
    steps = layout.checkpoint_steps(self._folder.parent)
    return list(sealed.scores(self._folder, steps).items())

  def save(self, step: int, state: Any, position: dict[str, int]) -> None:
    """Copy one checkpoint to the host, and write it while the run goes on.

    The one before is waited for.

    Args:
      step: Its number.
      state: The training state, which may be given up or change afterwards.
      position: The state of the training data's iterator.

    Raises:
      InputError: It, or the one before, cannot be written, for lack of space
        for example. Earlier checkpoints are left as they were.
    """
    self.settle()
    try:
      _refuse_full(self._folder, state)
      self._writer.save(
        self._folder / str(step),
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(_fields(state)),
          # One number, equal on every process: any number of hosts may resume.
          data=ocp.args.JsonSave(dict(position)),
        ),
      )
    except (OSError, ValueError) as error:  # TensorStore's are ValueErrors
      self._failed = True
      raise self._not_saved(f"step {step}", error) from error
    self._later(f"step {step}", self._finish, step)

  def _later(self, what: str, function: Callable, *arguments: Any) -> None:
    self._unfinished.append((what, self._thread.submit(function, *arguments)))

  def _finish(self, step: int) -> None:
    """Wait until a checkpoint is written, seal it and delete older ones."""
    self._writer.wait_until_finished()
    if self._first:
      self._sealing = True
      sealed.seal(self._folder / str(step))
      self._sealing = False
      self._prune()

  def scored(self, step: int) -> bool:
    """Return whether a step has a score."""
    return step in self._scored

  def score(self, step: int, miou: float) -> None:
    """Write a saved step's validation mIoU into its checkpoint, once sealed.

    Raises:
      InputError: The checkpoint could not be written.
    """
    self._finished(0.0)
    self._scored.add(step)
    if self._first:
      self._later(f"the score of step {step}", self._add_score, step, miou)

  def _add_score(self, step: int, miou: float) -> None:
    sealed.write_score(self._folder / str(step), miou)
    self._scores[step] = miou
    self._prune()

  def _prune(self) -> None:
    """Delete all but the newest and the best."""
    steps = layout.checkpoint_steps(self._folder.parent)
    stay = set(steps[-self._keep :])
    if scored := [step for step in steps if step in self._scores]:
      stay.add(max(scored, key=lambda step: (self._scores[step], step)))
    for step in steps:
      if step not in stay:
        (self._folder / str(step)).rmtree()

  def _finished(self, seconds: float) -> bool:
    """Wait so long at most; return whether all is written.

    Raises:
      InputError: Something could not be written.
    """
    futures.wait([work for _, work in self._unfinished], seconds)
    while self._unfinished and self._unfinished[0][1].done():
      what, work = self._unfinished.popleft()
      try:
        work.result()
      except BaseException as error:
        self._unfinished.clear()  # what was to come after it
        if isinstance(error, OSError | ValueError):
          raise self._not_saved(what, error) from error
        raise
    return not self._unfinished

  def settle(self) -> None:
    """Wait until all processes have written all that was asked for.

    Raises:
      InputError: Something could not be written, here or by another process.
    """

    def by_all(seconds: float) -> bool:
      here = parallel.agreed(partial(self._finished, seconds))
      return all(parallel.gathered(here))

    try:
      self._wait(by_all)
    except errors.InputError:
      self._failed = True
      raise

  def _wait(self, finished: Callable[[float], bool]) -> None:
    """Wait until `finished`, which waits for so many seconds, returns True."""
    if not finished(PATIENCE):
      self._progress(f"waiting until a checkpoint is in {self._folder}")
      while not finished(PATIENCE):
        pass

  def _not_saved(self, what: str, error: Exception) -> errors.InputError:
    return errors.InputError(
      f"{what} could not be saved in {self._folder} ({_reason(error)}). Make "
      "room there or mend the disk; the same command then goes on from the "
      "checkpoint before"
    )

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
      restored = self._writer.restore(
        self._folder / str(step),
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(_fields(target)),
          data=ocp.args.JsonRestore(),
        ),
      )
    iterator.set_state(restored["data"])
    return dataclasses.replace(state, **restored["state"])

  def discard_damaged(self, *, after: int) -> None:
    """Delete the damaged checkpoints after step `after`.

    Raises:
      InputError: One of them is sound: another process has written it.
    """
    self._scored = {step for step in self._scored if step <= after}
    parallel.of_first(partial(self._discard, after))

  def _discard(self, after: int) -> None:
    for step in layout.checkpoint_steps(self._folder.parent):
      if step <= after:
        continue
      if sealed.damage(self._folder / str(step)) is None:
        raise errors.InputError(
          f"{self._folder / str(step)} has appeared while this run started "
          f"from step {after}: another process trains there. Nothing was "
          "deleted; give this run its own --workdir"
        )
      (self._folder / str(step)).rmtree()
      self._scores.pop(step, None)
    self._prune()  # a run that was killed may not have got to it

  def close(self) -> None:
    """Wait until this process has written all that was asked for.

    Raises:
      InputError: Something could not be written.
    """
    try:
      self._wait(self._finished)
    finally:
      self._thread.shutdown()
      self._writer.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, _, error: BaseException | None, __) -> None:
    if error is None:
      self.close()
    elif jax.process_count() == 1 or (
      isinstance(error, errors.InputError) and not self._failed
    ):
      try:
        self.close()
      except errors.InputError as another:
        self._progress(f"deeplax: {another}")
    elif self._sealing:
      futures.wait([work for _, work in self._unfinished], LAST_SEAL)


def save_start(workdir: epath.PathLike, state: Any, *, step: int = 0) -> None:
  """Write the first checkpoint of a workdir that was made without training."""
  with Checkpoints(workdir, keep=2) as checkpoints:
    checkpoints.discard_damaged(after=-1)  # its writing was interrupted
    checkpoints.save(step, state, {"next_index": 0})
