"""The images of a split on which a network does worst."""

import heapq
from typing import NamedTuple
import zlib

import numpy as np

from deeplax.data import files
from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import confusion
from deeplax.reports import pictures


class BadImage(NamedTuple):
  """An image with a bad prediction.

  Attributes:
    name: Of the example.
    miou: Of this image alone, over the classes that are true or predicted.
    image: As the source reads it.
    truth: Labels.
    labels: Prediction.
    matrix: Pixels by true class (rows) and predicted class.
  """

  name: str
  miou: float
  image: np.ndarray
  truth: np.ndarray
  labels: np.ndarray
  matrix: np.ndarray

  @property
  def pixel_accuracy(self) -> float:
    return float(np.trace(self.matrix) / self.matrix.sum())


class Worst:
  """The worst predictions of a pass, compressed: labels shrink a lot."""

  def __init__(self, images: int):
    """Start without any.

    Args:
      images: At most so many are kept.
    """
    self._images = images
    # The next to be dropped is first: the best, of equals the later image.
    self._heap: list[tuple[float, int, np.dtype, bytes]] = []

  def keep(self, index: int, labels: np.ndarray, matrix: np.ndarray) -> None:
    """Keep a prediction if it is among the worst so far.

    Args:
      index: Of the example in the source.
      labels: Prediction.
      matrix: Its `confusion.count`.
    """
    miou = confusion.miou(matrix)
    if miou is None:
      return
    key = (-miou, -index)
    if len(self._heap) >= self._images and key < self._heap[0][:2]:
      return
    # Level 1 takes half the time of the default, and labels compress well.
    packed = zlib.compress(labels.tobytes(), 1)
    heapq.heappush(self._heap, (*key, labels.dtype, packed))
    if len(self._heap) > self._images:
      heapq.heappop(self._heap)

  def unpack(self, source: files.Source) -> list[BadImage]:
    """Return the predictions with their images, the worst first."""
    images = []
    for miou, index, dtype, packed in sorted(self._heap, reverse=True):
      example = source[-index]
      truth = example["label"]
      labels = np.frombuffer(zlib.decompress(packed), dtype)
      labels = labels.reshape(truth.shape)
      matrix = confusion.count(truth, labels, source.spec.num_classes)
      images.append(
        BadImage(
          example["name"], -miou, example["image"], truth, labels, matrix
        )
      )
    return images


def error_picture(
  image: np.ndarray, truth: np.ndarray, labels: np.ndarray
) -> np.ndarray:
  """Return a picture, uint8 [h, w, 3]: wrong pixels red, right ones pale.

  Args:
    image: RGB, uint8.
    truth: Labels; void has its color in VOC.
    labels: Prediction.
  """
  gray = image.mean(axis=-1, keepdims=True)
  shown = np.repeat(160 + gray * 0.35, 3, axis=-1)
  shown[truth != labels] = (214, 20, 20)
  shown[truth == IGNORE_LABEL] = pictures.IGNORE_COLOR
  return shown.astype(np.uint8)
