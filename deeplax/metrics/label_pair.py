"""A truth and a prediction as comparable maps: void in both where ignored."""

from jaxtyping import Integer
import numpy as np

from deeplax.labels import IGNORE_LABEL

# Of any size: `pair` checks that both maps of a pair have the same.
Labels = Integer[np.ndarray, "_ _"]


def void(num_classes: int) -> int:
  """Return the number of "no class", which is above every class."""
  return 255 if num_classes <= 255 else 65535


def pair(
  labels: Integer[np.ndarray, "..."],
  predictions: Integer[np.ndarray, "..."],
  num_classes: int,
  ignore_label: int | None = IGNORE_LABEL,
) -> tuple[Integer[np.ndarray, "..."], Integer[np.ndarray, "..."]]:
  """Return truth and prediction as uint8 (or 16), `void` in ignored pixels.

  Predictions in ignored pixels are overwritten, so that they can change no
  measure.

  Args:
    labels: True classes, and `ignore_label`.
    predictions: Predicted classes.
    num_classes: Background included.
    ignore_label: None: no pixel is ignored.

  Raises:
    ValueError: The sizes differ, or a pixel that is not ignored has no class.
  """
  if labels.shape != predictions.shape:
    raise ValueError(
      f"labels are {labels.shape} and predictions {predictions.shape}: both "
      "must have the same height and width"
    )
  empty = void(num_classes)
  kind = np.uint8 if empty == 255 else np.uint16
  ignored = np.zeros(labels.shape, bool)
  if ignore_label is not None:
    ignored = labels == ignore_label
  result = []
  for name, values in (("labels", labels), ("predictions", predictions)):
    wrong = ((values < 0) | (values >= num_classes)) & ~ignored
    if wrong.any():
      raise ValueError(
        f"{name} have values {np.unique(values[wrong])[:8].tolist()} but "
        f"num_classes={num_classes} allows 0..{num_classes - 1} "
        f"(and {ignore_label} = ignore in labels)"
      )
    result.append(np.where(ignored, kind(empty), values.astype(kind)))
  return result[0], result[1]
