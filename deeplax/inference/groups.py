"""Groups of images that the devices predict together."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jaxtyping import Num
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
    places: int,
    predict: Callable[[list[np.ndarray]], Sequence[jax.Array]],
  ):
    """Prepare.

    Args:
      places: For images.
      predict: Takes the images, at most so many; starts their predictions and
        returns them, an array [places, h, w, ...] for each mode.
    """
    self._places = places
    self._predict = predict
    self._images: list[np.ndarray] = []
    self._sizes: list[tuple[int, int]] = []
    self._arrays: Sequence[jax.Array] | None = None

  def add(self, image: Num[np.ndarray, "h w c"]) -> int:
    """Take an image into a group that is not full; return its place."""
    self._images.append(image)
    self._sizes.append((image.shape[0], image.shape[1]))
    if len(self._images) == self._places:
      self.start()
    return len(self._sizes) - 1

  def result(self, place: int, mode: int) -> np.ndarray:
    """Wait for an image's prediction in a mode, without its padding."""
    arrays = self.start()
    height, width = self._sizes[place]
    return np.asarray(arrays[mode])[place, :height, :width]

  def start(self) -> Sequence[jax.Array]:
    """Start the predictions, if they are not, full or not; return them."""
    if self._arrays is None:
      self._arrays = self._predict(self._images)
      # Results may be asked for much later.
      self._images = []
    return self._arrays
