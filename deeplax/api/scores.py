"""`deeplax.scores`: the scores of label maps in memory."""

from collections.abc import Iterable, Sequence
import itertools
from typing import Any

from jaxtyping import Integer
import numpy as np

from deeplax import errors
from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import confusion
from deeplax.metrics import measures

Labels = Integer[np.ndarray, "_ _"]


def scores(
  predictions: Iterable[np.ndarray],
  labels: Iterable[np.ndarray],
  classes: int | Sequence[str],
  *,
  ignore_label: int | None = IGNORE_LABEL,
  boundary: bool = False,
) -> dict[str, Any]:
  """Return the scores of predictions, counted over all images, as fractions.

      scores = deeplax.scores(run(images), labels, run.classes)
      print(scores["miou"], scores["iou"]["person"])

  The numbers are those of `deeplax evaluate`, by the same functions: one
  confusion matrix over all images, and the mean IoU over the classes that are
  true or predicted somewhere.

  Args:
    predictions: Class indices [h, w] of each image, integers of any type; an
      array [n, h, w] or a generator will do.
    labels: The truth of each, of the same size.
    classes: The number of classes, background included, or their names.
    ignore_label: Of pixels in `labels` that do not count; None: all count.
    boundary: Also compute boundary F1 and boundary IoU.

  Returns:
    "miou", "pixel_accuracy", "mean_accuracy"; "iou", "precision", "recall" and
    "pixel_share" by class name (its number as text if there are no names);
    "confusions", "confusion_matrix" (rows are true classes), "images"; with
    `boundary` "boundary_f", "boundary_iou" and both by class name,
    "boundary_f_class", "boundary_iou_class". None: nothing to divide by.

  Raises:
    InputError: Sizes or numbers of images differ, a value is not a class, or
      no pixel counts.
  """
  if isinstance(classes, int | np.integer):
    classes = [str(label) for label in range(classes)]
  count, names = len(classes), classes
  measured = measures.Measures(boundary=boundary)
  matrix = np.zeros((count, count), np.int64)
  counts = measures.empty(count, measured)
  images = 0
  for images, (predicted, truth) in enumerate(
    itertools.zip_longest(predictions, labels), start=1
  ):
    if predicted is None or truth is None:
      longer = "labels" if predicted is None else "predictions"
      raise errors.InputError(
        f"there are more {longer} than {images - 1}: give one for each image"
      )
    pair = _map(truth, images), _map(predicted, images)
    if pair[0].shape != pair[1].shape:
      shapes = " and ".join(f"{list(part.shape)}" for part in pair)
      raise errors.InputError(
        f"image {images}: labels and predictions are {shapes}, and must have "
        "one size"
      )
    try:
      matrix += confusion.count(*pair, count, ignore_label)
      new = measures.count(*pair, count, measured, ignore_label)
    except ValueError as error:
      raise errors.InputError(f"image {images}: {error}") from error
    counts = measures.add(counts, new)
  with errors.input_errors():
    result = confusion.scores(matrix, names)
  result |= measures.scores(counts, names, measured)
  return result | {"images": images}


def _map(values: Any, number: int) -> Labels:
  """Return a label map as a NumPy array.

  Raises:
    InputError: It is none; a single map given as it is comes here by its rows.
  """
  array = np.asarray(values)
  if array.ndim != 2 or array.dtype.kind not in "iu":
    raise errors.InputError(
      f"image {number} is {array.dtype} {list(array.shape)}: give integers "
      "[h, w] for each image, of a single one [labels]"
    )
  return array
