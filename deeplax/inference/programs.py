"""The compiled programs of a network: one for each padded size and scale."""

from collections.abc import Callable
import functools
import time
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Bool, Int32
import numpy as np

from deeplax import errors
from deeplax.inference import probabilities

Size = tuple[int, int]


class Programs:
  """Compiles a network for each new size and scale, and reports it.

  Attributes:
    exact: Whether the network computes what it would without the padding.
    seconds: Seconds spent on compiling.
    expected: The number of padded sizes to come; 0: unknown.
  """

  def __init__(
    self, model: nn.Module, *, exact: bool, progress: Callable[[str], None]
  ):
    """Prepare; nothing is compiled.

    Args:
      model: With a `coarse` method.
      exact: See the attribute.
      progress: Receives a line about each compiled size.
    """
    self.exact = exact
    self.seconds = 0.0
    self.expected = 0
    self._progress = progress
    self._compiled: dict[tuple[float, Size], Any] = {}
    self._logits = jax.jit(
      functools.partial(probabilities.logits_at_size, model),
      static_argnames="scale",
    )

  @property
  def sizes(self) -> set[Size]:
    """The padded sizes that have a program."""
    return {size for _, size in self._compiled}

  def compile(
    self, variables: Any, padded: np.ndarray, scales: set[float]
  ) -> None:
    """Compile for the size of a padded image, at scales without a program.

    Raises:
      InputError: The network cannot be computed at exact sizes.
    """
    height, width = size = (padded.shape[1], padded.shape[2])
    missing = sorted(s for s in scales if (s, size) not in self._compiled)
    if not missing:
      return
    start = time.perf_counter()
    for scale in missing:
      lowered = self._lowered(variables, padded, scale)
      self._compiled[scale, size] = lowered.compile()
    seconds = time.perf_counter() - start
    self.seconds += seconds
    total = f"of at most {self.expected}" if self.expected else "so far"
    at = f" at {len(missing)} scales" if len(missing) > 1 else ""
    what = " for exact sizes" if self.exact else ""
    self._progress(
      f"compiled {height}x{width}{what}{at} in {seconds:.1f} s "
      f"({len(self.sizes)} {total})"
    )

  def run(
    self,
    variables: Any,
    padded: np.ndarray,
    mirrored: Bool[np.ndarray, " b"],
    *,
    size: Size,
    scale: float,
  ) -> jax.Array:
    """Start computing logits [b, h, w, k] at the padded size.

    Args:
      variables: Of the network.
      padded: Images, not normalized, of a size and scale that were compiled.
      mirrored: Which images the network sees mirrored.
      size: (height, width) of the images without their padding.
      scale: Factor the images are resized by.
    """
    program = self._compiled[scale, (padded.shape[1], padded.shape[2])]
    return program(variables, padded, mirrored, self._true(size, scale))

  def _true(self, size: Size, scale: float) -> Int32[np.ndarray, "2 2"] | None:
    """Return the sizes of an image and of the scaled one, for exact sizes."""
    if not self.exact:
      return None
    scaled = size if scale == 1.0 else probabilities.scaled_size(size, scale)
    return np.array([size, scaled], np.int32)

  def _lowered(self, variables: Any, padded: np.ndarray, scale: float) -> Any:
    true = self._true((padded.shape[1], padded.shape[2]), scale)
    try:
      return self._logits.lower(
        variables, padded, np.zeros(1, bool), true, scale=scale
      )
    except ValueError as error:
      if self.exact:
        raise errors.InputError(f"exact sizes: {error}") from error
      raise
