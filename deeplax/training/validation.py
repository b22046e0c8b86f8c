"""Validation during training: scores, picture sheets and log."""

from collections.abc import Callable
from typing import Any

from etils import epath
import flax.linen as nn
import ml_collections
import numpy as np

from deeplax import parallel
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.inference import evaluate
from deeplax.inference import mode as mode_lib
from deeplax.inference import open_run
from deeplax.inference import settings as inference_settings
from deeplax.metrics import printed
from deeplax.reports import gallery
from deeplax.reports import picture_sheet
from deeplax.training import log as log_lib
from deeplax.workdir import results
from deeplax.workdir import settings


def evaluator(
  config: ml_collections.ConfigDict,
  source: files.Source,
  folder: epath.Path,
  progress: Callable[..., None],
  model: nn.Module | None = None,
) -> Callable[..., float]:
  """Return (variables, step, log=, stopped=) -> mIoU on the validation split.

  The scores go to eval/, and predictions of the same few images to pictures/
  and the log. The function asks `stopped` after each image and raises
  `evaluate.Stopped` if it returns True. `model` is the network, if it was given
  as an object.
  """
  channels = data_build.channels(config.data)
  opened = open_run.Run(config, source.spec, channels, model=model)
  predictor = opened.predictor(
    opened.network(),
    {},
    mode=mode_lib.Mode(config.eval.scales, config.eval.flip),
    sizing=inference_settings.sizing(config),
    batch=inference_settings.batch(config),
    progress=progress,
  )
  count = min(config.eval.pictures, len(source))
  sheet = None
  if count and parallel.rank() == 0:
    sheet = picture_sheet.PictureSheet(source, count)

  def measure(
    variables: dict[str, Any],
    step: int,
    *,
    log: log_lib.MetricLog,
    stopped: Callable[[], bool],
  ) -> float:
    predictor.variables = variables

    def keep(index: int, labels: np.ndarray) -> None:
      if sheet:
        sheet.keep(index, labels)

    result = evaluate.evaluate(
      predictor,
      source,
      max_images=config.eval.max_images,
      progress=progress,
      threads=config.data.threads,
      keep=keep,
      stopped=stopped,
      step=step,
      output_stride=inference_settings.output_stride(config),
      scales=list(config.eval.scales),
      flip=config.eval.flip,
      init=settings.init_text(config, folder),
    )

    def write() -> None:
      results.write_result(folder, config.data.eval_split, result)
      if sheet:
        picture = sheet.draw(predictor)
        gallery.add(folder, config.data.eval_split, step, picture)
        log.picture(step, config.data.eval_split, np.asarray(picture))

    parallel.of_first(write)
    score = printed.score(result["miou"])
    progress(f"step {step}: mIoU {score} on {result['images']} images")
    return result["miou"]

  return measure
