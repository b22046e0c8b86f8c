"""Validation during training: scores, pictures, log."""

from collections.abc import Callable

from etils import epath
import jax
import ml_collections
import numpy as np

from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.inference import evaluate
from deeplax.inference import open_run
from deeplax.inference import settings as asked
from deeplax.reports import gallery
from deeplax.reports import picture_sheet
from deeplax.training import log as log_lib
from deeplax.training import parallel
from deeplax.training import state as state_lib
from deeplax.workdir import results
from deeplax.workdir import settings


def evaluator(
  config: ml_collections.ConfigDict,
  source: files.Source,
  folder: epath.Path,
  say: Callable[..., None],
) -> Callable[..., float]:
  """Return (state, step, log=) -> mIoU on the validation split.

  The scores go to eval/, the same few images to pictures/ and the log.
  """
  channels = data_build.channels(config.data)
  opened = open_run.Run(config, source.spec, channels)
  predictor = opened.predictor(
    opened.network(),
    {},
    scales=config.eval.scales,
    flip=config.eval.flip,
    **asked.sizing(config),
  )
  count = min(config.eval.pictures, len(source))
  sheet = None
  if count and jax.process_index() == 0:
    sheet = picture_sheet.PictureSheet(source, count)

  def measure(
    state: state_lib.State, step: int, *, log: log_lib.MetricLog
  ) -> float:
    predictor.variables = parallel.local(state.variables)
    result = evaluate.evaluate(
      predictor,
      source,
      max_images=config.eval.max_images,
      progress=say,
      threads=config.data.threads,
      keep=sheet.keep if sheet else None,
      step=step,
      output_stride=opened.output_stride,
      scales=list(config.eval.scales),
      flip=config.eval.flip,
      init=settings.init_text(config, folder),
    )
    if jax.process_index() == 0:
      results.write_result(folder, config.data.eval_split, result)
      if sheet:
        picture = sheet.draw(predictor)
        gallery.add(folder, config.data.eval_split, step, picture)
        log.picture(step, config.data.eval_split, np.asarray(picture))
    say(f"step {step}: mIoU {result['miou']:.4f} on {result['images']} images")
    return result["miou"]

  return measure
