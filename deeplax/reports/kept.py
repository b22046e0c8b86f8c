"""Predictions that an evaluation keeps for its pictures and its page."""

import argparse
from typing import Any

from etils import epath
import numpy as np

from deeplax.data import files
from deeplax.inference import predictor as predictor_lib
from deeplax.reports import evaluation_page
from deeplax.reports import picture_sheet
from deeplax.reports import worst_images


class Kept:
  """The predictions for the pictures and the page of one row."""

  def __init__(self, source: files.Source, args: argparse.Namespace):
    """Start without any; `args` has the flags pictures, html and worst."""
    self._source = source
    self._pictures = min(args.pictures, len(source))
    self._sheet = None
    if self._pictures > 0:
      self._sheet = picture_sheet.PictureSheet(source, self._pictures)
    self._worst = worst_images.Worst(args.worst) if args.html else None

  def keep(self, index: int, labels: np.ndarray, matrix: np.ndarray) -> None:
    """Keep a prediction, with its confusion matrix, if it may be shown."""
    if self._sheet:
      self._sheet.keep(index, labels)
    if self._worst:
      self._worst.keep(index, labels, matrix)

  def draw(self, path: epath.Path, predictor: predictor_lib.Predictor) -> None:
    """Write the sheet of pictures, if one is wanted."""
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
    """Write the page, if one is wanted; see `evaluation_page.write`."""
    if self._worst:
      evaluation_page.write(
        path,
        result,
        rows,
        spec=self._source.spec,
        worst=self._worst.unpack(self._source),
        title=title,
      )
