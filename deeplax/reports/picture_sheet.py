"""The same few images of a split, with truth and prediction, as one picture."""

import numpy as np
from PIL import Image

from deeplax.data import files
from deeplax.data import views
from deeplax.inference import predictor as predictor_lib
from deeplax.reports import pictures


class PictureSheet:
  """The same few images of a source, each time with what is predicted now."""

  def __init__(self, source: files.Source, images: int):
    """Choose so many images, spread evenly over the source."""
    self._chosen = views.Subset(source, images)
    self._wanted = [self._chosen.index(i) for i in range(len(self._chosen))]
    self._predicted: dict[int, np.ndarray] = {}

  def keep(self, index: int, labels: np.ndarray) -> None:
    """Keep a prediction that is shown; for `evaluate`."""
    if index in self._wanted:
      self._predicted[index] = labels

  def draw(self, predictor: predictor_lib.Predictor) -> Image.Image:
    """Return image, truth and prediction of each, and forget the predictions.

    What `evaluate` did not come across, because of its max_images or because
    it was another process's, is predicted here.
    """
    predicted, self._predicted = self._predicted, {}
    examples = [self._chosen[i] for i in range(len(self._chosen))]
    labels = [
      predicted[index]
      if index in predicted
      else predictor.labels(example["image"])
      for index, example in zip(self._wanted, examples, strict=True)
    ]
    return pictures.strip(examples, labels, self._chosen.spec)
