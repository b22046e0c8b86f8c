"""Evaluate a predictor on a split: confusion matrices, counted image by image.

Predictions are compared with the labels at the labels' own size, and mIoU is
computed from the counts of the whole data set.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import functools
from typing import Any

import jax
import numpy as np

from deeplax import ahead
from deeplax import clocks
from deeplax import commands
from deeplax import errors
from deeplax import parallel
from deeplax.data import files
from deeplax.data import loader
from deeplax.data import spec as spec_lib
from deeplax.data import views
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import sweep as sweep_lib
from deeplax.metrics import confusion
from deeplax.metrics import measures

# If one class has more than this share of the predicted pixels, but not of the
# true ones, the network has learned nothing else.
COLLAPSED = 0.99

# So many images may wait to be counted while the device predicts the next.
COUNTING = 2

# (Number of the image in the pass, number of the mode, example, prediction).
Prediction = tuple[int, int, files.Example, np.ndarray]


class Stopped(Exception):
  """An evaluation ended early because the run is to stop."""


def evaluate(
  predictor: predictor_lib.Predictor,
  source: files.Source,
  *,
  progress: Callable[[str], None] = print,
  keep: Callable[[int, np.ndarray], None] | None = None,
  stopped: Callable[[], bool] = bool,
  **keywords: Any,
) -> dict[str, Any]:
  """Return the scores of a predictor on a source.

  Args:
    predictor: Predicts in its own mode.
    source: See `evaluate_rows`.
    progress: Receives progress lines and the warning of a collapsed output.
    keep: Receives (index in `source`, predicted labels) of each image.
    stopped: See `sweep.Sweep`.
    **keywords: See `evaluate_rows`.

  Raises:
    InputError: See `evaluate_rows`.
    Stopped: `stopped` returned True.
  """

  def keep_one(row: int, index: int, labels: np.ndarray, _: Any) -> None:
    if keep:
      keep(index, labels)

  (result,) = evaluate_rows(
    sweep_lib.Sweep(predictor, timed=False, stopped=stopped),
    source,
    progress=progress,
    keep=keep_one,
    **keywords,
  )
  if warning := collapse_warning([result]):
    progress(f"deeplax: {warning}")
  return result


def evaluate_rows(
  sweep: sweep_lib.Sweep,
  source: files.Source,
  *,
  max_images: int = 0,
  progress: Callable[[str], None] = print,
  threads: int = 4,
  keep: Callable[[int, int, np.ndarray, np.ndarray], None] | None = None,
  measured: measures.Measures = measures.CONFUSION_ONLY,
  clock: dict[str, float] | None = None,
  **fields: Any,
) -> list[dict[str, Any]]:
  """Return the scores of each mode of a sweep, all from one pass.

  Args:
    sweep: Predicts in several modes.
    source: Examples with "image", "label" (255 is ignored) and "name", and the
      spec that names the classes.
    max_images: Evaluate only so many images, spread evenly; 0: all.
    progress: Receives progress lines.
    threads: Threads that read ahead, and as many that count, while the device
      computes.
    keep: Receives (number of the mode, index in `source`, predicted labels,
      confusion matrix) of each image and mode, in order.
    measured: What to measure besides the confusion matrix.
    clock: See `predictor.stream`; also the seconds waited under "count".
    **fields: Added to each result: step, output_stride, ...

  Several processes share the images among them; all return the same results.

  Returns:
    For each mode the fields of `confusion.scores` and `measures.scores`,
    "images" (counted), "split_images" (in the source) and `fields`.

  Raises:
    InputError: There is no image or no labeled pixel, or a label is not a
      class.
  """
  names = source.spec.class_names
  subset = views.Subset(source, max_images)
  if not len(subset):
    raise parallel.Told(f"no image to evaluate in {source.spec.name}")
  matrix = np.zeros((len(names), len(names)), np.int64)
  empty = {"matrix": matrix, **measures.empty(len(names), measured)}
  rank, ranks = jax.process_index(), jax.process_count()
  mine = len(range(rank, len(subset), ranks))
  sweep.predictor.expect_images(mine)
  report = clocks.Progress(
    mine, progress, name="evaluated", now=sweep.predictor.clock
  )
  examples = loader.examples(
    subset, threads=threads, process_index=rank, process_count=ranks
  )

  def count_share() -> list[measures.Counts]:
    rows = [empty for _ in sweep.modes]
    with _stopping(sweep.stopped, len(subset) // ranks) as refuse_stop:
      for (place, row, _, labels), counts in ahead.in_threads(
        functools.partial(_count, len(names), measured),
        _predicted(sweep, examples, clock),
        threads=threads,
        n=COUNTING * len(rows),
        clock=clock,
        name="count",
      ):
        rows[row] = measures.add(rows[row], counts)
        if keep:
          index = subset.index(rank + place * ranks)
          keep(row, index, labels, counts["matrix"])
        if row + 1 == len(rows):
          report.step()
          refuse_stop()
    return rows

  rows = parallel.agreed(count_share)
  fields = {"images": len(subset), "split_images": len(source), **fields}
  fields |= sweep.predictor.sizing.fields
  return [_result(counts, source.spec, measured, fields) for counts in rows]


def _predicted(
  sweep: sweep_lib.Sweep,
  examples: Iterable[files.Example],
  clock: dict[str, float] | None,
) -> Iterator[Prediction]:
  """Yield the predictions of all modes, image by image."""
  stream = predictor_lib.stream(
    sweep.submit, examples, n=sweep.predictor.look_ahead, clock=clock
  )
  for place, (example, labels_of_rows) in enumerate(stream):
    for row, labels in enumerate(labels_of_rows):
      yield place, row, example, labels


@contextlib.contextmanager
def _stopping(
  stopped: Callable[[], bool], times: int
) -> Iterator[Callable[[], None]]:
  """Give a function to call after each image, which may raise Stopped.

  Args:
    stopped: Asked so many `times`, the rest of them where the block fails:
      every process asks as often, though some have an image more.
    times: Number of images that every process has.
  """
  left = iter(range(times))

  def refuse_stop() -> None:
    if next(left, None) is not None and stopped():
      raise Stopped

  try:
    yield refuse_stop
  except errors.InputError:
    if any(stopped() for _ in left):
      raise Stopped from None
    raise


def _count(
  k: int, measured: measures.Measures, prediction: Prediction
) -> measures.Counts:
  """Return the counts of an image: "matrix", its confusion, and `measured`."""
  _, _, example, labels = prediction
  truth = example["label"]
  if truth.shape != labels.shape:
    raise errors.InputError(
      f"{example['name']}: the label is {truth.shape} and the image "
      f"{labels.shape}; both must have the same height and width"
    )
  try:
    matrix = confusion.count(truth, labels, k)
    return {"matrix": matrix, **measures.count(truth, labels, k, measured)}
  except ValueError as error:
    raise errors.InputError(f"{example['name']}: {error}") from error


def _result(
  counts: measures.Counts,
  spec: spec_lib.Spec,
  measured: measures.Measures,
  fields: dict[str, Any],
) -> dict[str, Any]:
  """Return a row's scores, from its counts of all processes."""
  # Sorted: each process must take part in the same order.
  counts = {key: parallel.summed(counts[key]) for key in sorted(counts)}
  try:
    result = confusion.scores(counts["matrix"], spec.class_names)
  except ValueError as error:
    raise parallel.Told(f"evaluating {spec.name}: {error}") from error
  result |= measures.scores(counts, spec.class_names, measured)
  result |= fields
  return result


def collapse_warning(results: Sequence[dict[str, Any]]) -> str | None:
  """Return a warning if nearly all pixels are predicted as one class."""
  texts = [
    f"{predicted:.1%} of predicted pixels are {name!r} (truth {true:.0%})"
    for result in results
    for name, (true, predicted) in result["pixel_share"].items()
    if predicted > COLLAPSED >= true
  ]
  if not texts:
    return None
  step = f" step {results[0]['step']}" if "step" in results[0] else ""
  where = f", in {len(texts)} of {len(results)} rows"
  return commands.as_typed(
    f"eval{step}: {texts[0]}{where if len(results) > 1 else ''}. Usual causes: "
    "too few steps, optim.base_lr too high, norm statistics not adapted yet "
    "(model.batch_norm.decay too near 1 for so few steps), masks almost empty. "
    "Next: python -m deeplax.overfit_check --config=... tells which"
  )
