"""What a pass over a split leaves to look at: a sheet of images, a page."""

import argparse
from typing import Any

from etils import epath
import numpy as np
from PIL import Image

from deeplax import inference
from deeplax import report_page
from deeplax import visualize
from deeplax import worst as worst_lib
from deeplax.data import bands
from deeplax.data import files
from deeplax.data import subset


class Sheet:
  """The same few images of a source, each time with what is predicted now."""

  def __init__(self, source: files.Source, images: int):
    """Choose so many images, spread evenly over the source."""
    self._chosen = subset.Subset(source, images)
    self._wanted = [self._chosen.index(i) for i in range(len(self._chosen))]
    self._predicted: dict[int, np.ndarray] = {}

  def keep(self, index: int, labels: np.ndarray) -> None:
    """Keep a prediction that is shown; for `evaluate`."""
    if index in self._wanted:
      self._predicted[index] = labels

  def draw(self, predictor: inference.Predictor) -> Image.Image:
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
    spec = self._chosen.spec
    return visualize.strip(
      [bands.to_show(example["image"]) for example in examples],
      [example["label"] for example in examples],
      labels,
      spec.palette,
      spec.class_names,
    )


class Kept:
  """What the pictures and the page of one row need from its pass."""

  def __init__(self, source: files.Source, args: argparse.Namespace):
    """Prepare for `args.pictures`, `args.html` and `args.worst`."""
    self._source = source
    self._pictures = min(args.pictures, len(source))
    self._sheet = Sheet(source, self._pictures) if self._pictures > 0 else None
    self._worst = None
    if args.html:
      self._worst = worst_lib.Worst(args.worst)

  def keep(self, index: int, labels: np.ndarray, matrix: np.ndarray) -> None:
    """Look at a prediction and its confusion matrix."""
    if self._sheet:
      self._sheet.keep(index, labels)
    if self._worst:
      self._worst.keep(index, labels, matrix)

  def draw(self, path: epath.Path, predictor: inference.Predictor) -> None:
    """Write the sheet, if there is one."""
    if self._sheet:
      with path.open("wb") as file:
        self._sheet.draw(predictor).save(file, format="PNG")
      print(f"{self._pictures} images as pictures: {path}")

  def page(
    self,
    path: epath.Path,
    result: dict[str, Any],
    rows: list[dict[str, Any]],
    *,
    title: str,
  ) -> None:
    """Write the page; see `report_page.write`."""
    if self._worst:
      seen = self._worst.unpack(self._source)
      spec = self._source.spec
      report_page.write(path, result, rows, spec=spec, seen=seen, title=title)
