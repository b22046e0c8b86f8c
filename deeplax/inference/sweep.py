"""Predict in several modes at once: scales and flips of one network."""

import collections
from collections.abc import Callable, Sequence
import functools

import flax.linen as nn
from jaxtyping import Num
import numpy as np

from deeplax import ahead
from deeplax import clocks
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import probabilities
from deeplax.models import cost

# Of each size, one group of images in so many is timed: every step of it waits
# for the devices. The others keep devices and host busy at the same time.
TIMED = 16


class Sweep:
  """Predicts in several modes at once, and measures how long each takes alone.

  An image's result is a list with the labels of each mode.
  """

  def __init__(
    self,
    predictor: predictor_lib.Predictor,
    modes: Sequence[mode_lib.Mode] | None = None,
    *,
    timed: bool = True,
    stopped: Callable[[], bool] = bool,
  ):
    """Prepare.

    Args:
      predictor: Predicts; its own mode is used if there are no `modes`.
      modes: All different.
      timed: Whether to measure, which costs a little.
      stopped: Asked by an evaluation after each image, whether to end it. All
        of several processes ask as often, for `parallel.stop_together`.
    """
    self.predictor = predictor
    self.stopped = stopped
    self.modes = tuple(modes or (predictor.mode,))
    self.timed = 0  # number of images
    self._seconds = dict.fromkeys(self.modes, 0.0)
    self._sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    self._measures = timed

  def submit(
    self, image: Num[np.ndarray, "h w c"]
  ) -> ahead.Result[list[np.ndarray]]:
    """Start labeling an image; see `Predictor.submit`."""
    size = self.predictor.sizing.bucket((image.shape[0], image.shape[1]))
    seconds = None
    # Never the first group of a size, which would be timed with compilation.
    if self._measures and size in self._sizes:
      cut = self.predictor.sizing.cuts((image.shape[0], image.shape[1]))
      images = 1 if cut else self.predictor.at_once(size)
      group = self._sizes[size] // images
      if group % TIMED == 1:
        self.timed += 1
        seconds = self._seconds
    self._sizes[size] += 1
    pending = self.predictor.submit_modes(image, self.modes, seconds=seconds)

    def get() -> list[np.ndarray]:
      values = []
      if seconds is not None:
        self.predictor.start(seconds)  # its time is not that of the results
      for mode, one in zip(self.modes, pending, strict=True):
        with clocks.timed(seconds, mode):
          values.append(one.result())
      return values

    return ahead.Result(get)

  @property
  def size(self) -> tuple[int, int]:
    """The (height, width) that most images were padded to."""
    return self._sizes.most_common(1)[0][0]

  def images_per_second(self, mode: mode_lib.Mode) -> float | None:
    """Return how many images a second one mode alone predicts.

    As many at once as here. Reading, counting and compiling do not count. None:
    nothing was measured.
    """
    return self.timed / self._seconds[mode] if self.timed else None


def multiply_adds(
  model: nn.Module, size: tuple[int, int], mode: mode_lib.Mode
) -> dict[str, int]:
  """Return {convention: Multiply-Adds of one image}, over all views."""
  views = [
    _of_view(model, probabilities.scaled_size(size, scale))
    for _, scale in mode.views
  ]
  return {name: sum(view[name] for view in views) for name in cost.CONVENTIONS}


@functools.cache
def _of_view(model: nn.Module, size: tuple[int, int]) -> dict[str, int]:
  """Return {convention: Multiply-Adds} of one view, all from one trace."""
  return {
    name: cost.multiply_adds(model, size, convention=name)
    for name in cost.CONVENTIONS
  }
