"""The outputs of a training run: checkpoints, scores, log and profile."""

from collections.abc import Callable, Iterator
import contextlib
from functools import partial
from typing import NamedTuple

from etils import epath
import jax
import ml_collections

from deeplax import errors
from deeplax.training import log as log_lib
from deeplax.training import profile as profile_lib
from deeplax.training import scores as scores_lib
from deeplax.training import signals
from deeplax.workdir import layout
from deeplax.workdir import saves


class Written(NamedTuple):
  """The outputs of a run, open."""

  checkpoints: saves.Checkpoints
  log: log_lib.MetricLog
  scores: scores_lib.Scores
  profile: profile_lib.Profile


@contextlib.contextmanager
def opened(
  config: ml_collections.ConfigDict,
  folder: epath.Path,
  *,
  resume: int | None,
  measure: Callable[..., float],
  watch: signals.Watch,
  progress: Callable[..., None],
) -> Iterator[Written]:
  """Open the outputs as they were at step `resume`; close them after the block.

  Args:
    config: Of the run.
    folder: The workdir.
    resume: Step of the checkpoint to resume from; None: a new run.
    measure: Evaluates, as `validation.evaluator` returns it.
    watch: Tells whether a signal asked for a stop.
    progress: Receives the errors of evaluations, and the profile.

  Raises:
    InputError: The workdir cannot be written (any more).
  """
  try:
    checkpoints = saves.Checkpoints(
      folder, keep=config.checkpoint.keep, progress=progress
    )
    checkpoints.discard_damaged(after=-1 if resume is None else resume)
    log = log_lib.MetricLog(
      folder / layout.METRICS,
      resume_step=resume or 0,
      write=jax.process_index() == 0,
      tensorboard=config.log.tensorboard,
    )
    with checkpoints, contextlib.closing(log):
      miou = partial(measure, log=log, stopped=watch.stopped)
      yield Written(
        checkpoints,
        log,
        scores_lib.Scores(miou, checkpoints, log, progress),
        profile_lib.of_run(
          config.train.profile,
          folder / layout.PROFILE,
          resume=resume or 0,
          progress=progress,
        ),
      )
      checkpoints.settle()
  except OSError as error:
    raise errors.InputError(
      f"--workdir={folder} cannot be written: {error}. Make room there or mend "
      "the disk; the same command then goes on from the last checkpoint"
    ) from error
