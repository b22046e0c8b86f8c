"""`deeplax.load`: a trained run that predicts."""

import argparse
from collections.abc import Mapping, Sequence
import os
from typing import Any, overload

import flax.linen as nn
import jax
from jaxtyping import Float, Integer
from ml_collections import ConfigDict
import numpy as np
from PIL import Image

from deeplax import errors
from deeplax import paths
from deeplax.api import images as images_lib
from deeplax.data import bands
from deeplax.data import spec as spec_lib
from deeplax.inference import asked as asked_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import programs
from deeplax.reports import legend
from deeplax.reports import shown_classes
from deeplax.workdir import checkpoint

Labels = Integer[np.ndarray, "h w"]


class Run:
  """A trained run that predicts; `deeplax.load` opens it.

  An image is RGB [h, w, 3] of uint8, the path of a file (decoded as in
  training: turned upright, gray and 16 bits as RGB) or a picture of Pillow. Of
  a run that reads other bands (`data.channels`) it is those bands [h, w, c], or
  a file that has them. The first image of a size waits for a compilation, of
  which a line is printed.

  Attributes:
    workdir: The run's folder.
    step: Of its checkpoint.
    config: The run's configuration.
    classes: The name of each class.
    palette: (red, green, blue) of each class, 0..255.
    model: The Flax module, at the output stride that was asked for.
    variables: {"params", "batch_stats"} of `model`.
  """

  workdir: str
  step: int
  config: ConfigDict
  classes: tuple[str, ...]
  palette: tuple[spec_lib.Color, ...]
  model: nn.Module
  variables: dict[str, Any]

  def __init__(self, workdir: str, asked: asked_lib.Asked):
    self._asked = asked
    self._predictors: dict[int, predictor_lib.Predictor] = {}
    self.workdir, self.step = workdir, asked.step
    self.config = asked.run.config
    self.classes = asked.run.spec.class_names
    self.palette = asked.run.spec.palette
    (stride,) = asked.strides
    self.model = asked.run.network(stride)
    self.variables = checkpoint.read(workdir, asked.step)

  def __repr__(self) -> str:
    return (
      f"<deeplax run {self.workdir}, step {self.step}, "
      f"{len(self.classes)} classes>"
    )

  def _predictor(self, batch: int) -> predictor_lib.Predictor:
    """Return the predictor of so many images at once; 0: as many as fit."""
    if batch not in self._predictors:
      (mode,) = self._asked.modes
      self._predictors[batch] = self._asked.run.predictor(
        self.model,
        self.variables,
        mode=mode,
        sizing=self._asked.sizing,
        crf=self._asked.crf,
        batch=batch,
      )
    return self._predictors[batch]

  @property
  def _single(self) -> predictor_lib.Predictor:
    # Where several run at once, one alone would take as long as all of them.
    return self._predictor(1)

  @overload
  def __call__(self, image: images_lib.Given) -> Labels: ...
  @overload
  def __call__(self, image: Sequence[images_lib.Given]) -> list[Labels]: ...
  def __call__(
    self, image: images_lib.Given | Sequence[images_lib.Given]
  ) -> Labels | list[Labels]:
    """Return the class of each pixel.

    Args:
      image: One image, or a list of images of any sizes, which are grouped
        over the devices.

    Returns:
      [h, w] at the image's size, uint8, or uint16 past 256 classes; of a list
      a list, in its order.

    Raises:
      InputError: An image cannot be read, or is none.
    """
    if isinstance(image, list | tuple):
      return self._of_all(image)
    one: Any = image
    return self._single.labels(self._read(one))

  def _of_all(self, images: Sequence[images_lib.Given]) -> list[Labels]:
    batch = self._asked.batch
    if not batch and jax.default_backend() in programs.BUSY_WITH_ONE:
      batch = 1
    predictor = self._predictor(batch)
    predictor.expect(size for one in images if (size := images_lib.size(one)))
    stream = predictor_lib.stream(
      predictor.submit,
      ({"image": self._read(one)} for one in images),
      n=predictor.look_ahead,
    )
    return [labels for _, labels in stream]

  def probabilities(
    self, image: images_lib.Given
  ) -> Float[np.ndarray, "h w k"]:
    """Return the probability of each class in each pixel, float32 [h, w, k].

    They sum to 1 over k, and are the mean over the scales and flips of `load`,
    refined by the CRF if one was asked for.
    """
    return self._single(self._read(image))

  def overlay(
    self, image: images_lib.Given, labels: Labels | None = None
  ) -> Image.Image:
    """Return the image under the colors of its classes, above a legend.

    It is what `deeplax predict` writes, for Pillow; the upper left part has the
    image's size.

    Args:
      image: One image.
      labels: [h, w], what `run(image)` returned; None: predicted here.
    """
    read = self._read(image)
    if labels is None:
      labels = self._single.labels(read)
    shown = shown_classes.Shown(self._asked.run.spec)
    shares = shown.shares(labels)
    sheet = legend.overlaid(bands.to_show(read), labels, shares, shown)
    return Image.fromarray(sheet)

  def _read(self, image: images_lib.Given) -> np.ndarray:
    return images_lib.read(image, self.config.data.channels)


def load(
  workdir: str | os.PathLike[str],
  step: int | str | None = None,
  *,
  output_stride: int | None = None,
  scales: Sequence[float | int] | None = None,
  flip: bool | None = None,
  crf: bool | Mapping[str, float | int] = False,
  sizes: str | None = None,
  window: int | None = None,
  overlap: int | None = None,
  batch: int | None = None,
  model: nn.Module | None = None,
  own_code: bool = False,
) -> Run:
  """Return a trained run that predicts; its workdir is all that it needs.

      run = deeplax.load("runs/first", scales=(0.75, 1.0, 1.25), flip=True)
      labels = run("street.jpg")

  What is None is as `config.eval` of the run says. The result is that of
  `deeplax predict` with the flags of the same names.

  Args:
    workdir: The folder of a training, or of `deeplax convert`.
    step: Of the checkpoint, or "best" by validation mIoU; None: the newest.
    output_stride: 8, 16 or 32.
    scales: Factors the image is resized by; their probabilities are averaged.
    flip: Average with the mirrored image.
    crf: Refine by the dense CRF: True with the parameters of
      `config.eval.crf`, or {"w1": 4, ...} to change some of them.
    sizes: "reference": images are padded with the mean pixel, as the papers'
      numbers were made; "exact": as if they were not; "unpadded".
    window: Predict larger images in windows of so many pixels a side, blended
      where they overlap; 0: whole images.
    overlap: Pixels that windows share; 0: a quarter of a window.
    batch: Images of a list that each device predicts at once; 0: as many as
      make it faster and fit.
    model: The network, where `deeplax.train` was given it as an object; it has
      one output stride, its own.
    own_code: Run the Python file that the run's configuration names, for a
      network of your own.

  Raises:
    InputError: There is no such run or checkpoint, or a value is wrong.
  """
  if isinstance(step, str) and step != "best":
    raise errors.InputError(f'step {step!r} is neither a number nor "best"')
  folder = paths.expanded(os.fspath(workdir))
  flags = argparse.Namespace(
    workdir=folder,
    step=step,
    output_stride=output_stride,
    scales=None if scales is None else tuple(scales),
    flip=flip,
    crf=crf,
    crf_file=None,
    crf_negligible=None,
    sizes=sizes,
    window=window,
    overlap=overlap,
    batch=batch,
    own_code=own_code,
  )
  return Run(folder, asked_lib.pictures(flags, model))
