"""Groups of images that the devices predict together."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jaxtyping import Float, Num
import numpy as np

from deeplax.inference import mode as mode_lib


class Kind(NamedTuple):
  """What the images of a group have in common.

  Attributes:
    target: Their (height, width) with padding.
    size: Without it, if that matters, else `target`.
    modes: What they are predicted in.
    labels: Whether their labels are wanted, else their probabilities.
  """

  target: tuple[int, int]
  size: tuple[int, int]
  modes: tuple[mode_lib.Mode, ...]
  labels: bool


class Group:
  """Images of one padded size that are predicted together.

  They are as soon as the group is full, or once a result is asked for.
  """

  def __init__(
    self,
    images: Float[np.ndarray, "n h w c"],
    predict: Callable[[np.ndarray, int], Sequence[jax.Array]],
  ):
    """Prepare.

    Args:
      images: Padding alone; images are written into it.
      predict: Takes `images` and how many of them were written, the first ones;
        starts their predictions and returns them, an array [n, h, w, ...] for
        each mode. It is called once.
    """
    self._images: np.ndarray | None = images
    self._predict = predict
    self._sizes: list[tuple[int, int]] = []
    self._arrays: Sequence[jax.Array] = ()

  def add(self, image: Num[np.ndarray, "h w c"]) -> int:
    """Take an image into a group that is not full; return its place."""
    assert self._images is not None
    height, width = image.shape[:2]
    place = len(self._sizes)
    self._images[place, :height, :width] = image
    self._sizes.append((height, width))
    if len(self._sizes) == len(self._images):
      self.start()
    return place

  def result(self, place: int, mode: int) -> np.ndarray:
    """Wait for an image's prediction in a mode, without its padding."""
    self.start()
    height, width = self._sizes[place]
    return np.asarray(self._arrays[mode])[place, :height, :width]

  def start(self) -> None:
    """Start the predictions, if they are not, full or not."""
    # The images are given up: results may be asked for much later.
    images, self._images = self._images, None
    if images is not None:
      self._arrays = self._predict(images, len(self._sizes))
