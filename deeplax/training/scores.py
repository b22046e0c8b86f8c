"""Evaluate saved steps; an evaluation that fails does not end the training."""

from collections.abc import Callable
from typing import Any

import jax

from deeplax import errors
from deeplax import parallel
from deeplax.inference import evaluate
from deeplax.training import log as log_lib
from deeplax.workdir import saves


class Scores:
  """The scores of saved steps, and the evaluations that failed."""

  def __init__(
    self,
    evaluate: Callable[[Any, int], float],
    checkpoints: saves.Checkpoints,
    log: log_lib.MetricLog,
    progress: Callable[[str], None],
  ):
    """Start without scores.

    Args:
      evaluate: (variables, step) -> mIoU; may raise `evaluate.Stopped`.
      checkpoints: Keep the scores beside the steps.
      log: Gets the scores too.
      progress: Receives the errors of evaluations.
    """
    self._evaluate, self._checkpoints = evaluate, checkpoints
    self._log, self._progress = log, progress
    self._failed: dict[int, errors.InputError] = {}  # by step

  def add(self, variables: dict[str, Any], step: int) -> None:
    """Evaluate a step that has no score, and keep the score.

    Args:
      variables: Of the network, replicated as the state is.
      step: Has been saved.

    Raises:
      InputError: The evaluation failed on some of several processes.
    """
    if self._checkpoints.scored(step):
      return
    try:
      miou = self._evaluate(variables, step)
    except evaluate.Stopped:
      return
    except errors.InputError as error:
      if jax.process_count() > 1 and not isinstance(error, parallel.Told):
        raise  # the others know of no error and wait for this one
      self._failed[step] = error
      self._progress(
        f"deeplax: step {step} is saved but not evaluated: {error}\nTraining "
        "goes on; mend that meanwhile"
      )
      return
    self._log.write(step, {"miou": miou})
    self._log.flush()  # a step with a score is not evaluated again
    self._checkpoints.score(step, miou)

  def refuse_missing(self, last: int) -> None:
    """End with an error if the evaluation of the last step failed.

    Raises:
      InputError: With its cause. The checkpoint has been saved.
    """
    if error := self._failed.get(last):
      raise type(error)(
        f"trained to the end and saved, but not evaluated: {error}\n"
        "Mend that; the same command then evaluates"
      ) from error
