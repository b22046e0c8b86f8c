"""A picture of a few images of a split, with truth and prediction."""

import numpy as np
from PIL import Image

from deeplax.data import files
from deeplax.data import views
from deeplax.inference import predictor as predictor_lib
from deeplax.reports import pictures


class PictureSheet:
  """The same images of a source at each evaluation, with its predictions."""

  def __init__(self, source: files.Source, images: int):
    """Choose images, spread evenly over the source.

    Args:
      source: The images.
      images: Their number.
    """
    self._chosen = views.Subset(source, images)
    self._indices = [self._chosen.index(i) for i in range(len(self._chosen))]
    self._predicted: dict[int, np.ndarray] = {}

  def keep(self, index: int, labels: np.ndarray) -> None:
    """Keep a prediction if its image is shown; `keep` of `evaluate`."""
    if index in self._indices:
      self._predicted[index] = labels

  def draw(self, predictor: predictor_lib.Predictor) -> Image.Image:
    """Return image, truth and prediction of each, and forget the predictions.

    Images that this process did not evaluate, because of max_images or because
    another process did, are predicted now.
    """
    predicted, self._predicted = self._predicted, {}
    examples = [self._chosen[i] for i in range(len(self._chosen))]
    lost = {
      index: predictor.submit(example["image"])
      for index, example in zip(self._indices, examples, strict=True)
      if index not in predicted
    }
    predicted |= {index: labels.result() for index, labels in lost.items()}
    labels = [predicted[index] for index in self._indices]
    return pictures.strip(examples, labels, self._chosen.spec)
