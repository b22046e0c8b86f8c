"""Scores of saved steps; what goes wrong in an evaluation ends no training."""

from collections.abc import Callable
from typing import Any

import jax

from deeplax import errors
from deeplax.training import log as log_lib
from deeplax.training import validation
from deeplax.workdir import checkpoint


class Scores:
  """Evaluates saved steps; what goes wrong there ends no training."""

  def __init__(
    self,
    evaluate: Callable[[Any, int], float],
    checkpoints: checkpoint.Checkpoints,
    log: log_lib.MetricLog,
    progress: Callable[[str], None],
  ):
    """Score nothing yet.

    Args:
      evaluate: (variables, step) -> mIoU; may raise `validation.Stopped`.
      checkpoints: Where the scores go.
      log: metrics.jsonl.
      progress: Receives what went wrong.
    """
    self._evaluate, self._checkpoints = evaluate, checkpoints
    self._log, self._progress = log, progress
    self._failed: dict[int, errors.InputError] = {}  # by step

  def add(self, variables: dict[str, Any], step: int) -> None:
    """Evaluate a step that has no score, and keep its score.

    Args:
      variables: On one device.
      step: Saved.

    Raises:
      InputError: With several processes, if it cannot be evaluated.
    """
    if self._checkpoints.scored(step):
      return
    try:
      miou = self._evaluate(variables, step)
    except validation.Stopped:
      return
    except errors.InputError as error:
      # The others wait for this one's counts, and know of no error.
      if jax.process_count() > 1:
        raise
      self._failed[step] = error
      self._progress(
        f"deeplax: step {step} is saved but not evaluated: {error}\nTraining "
        "goes on; mend that meanwhile"
      )
      return
    self._log.write(step, {"miou": miou})
    self._checkpoints.score(step, miou)

  def refuse_missing(self, last: int) -> None:
    """End with an error if the evaluation of the last step failed.

    Raises:
      InputError: With its cause. The checkpoint is there.
    """
    if error := self._failed.get(last):
      raise errors.InputError(
        f"trained to the end and saved, but not evaluated: {error}\n"
        "Mend that; the same command then evaluates"
      ) from error
