"""The compiled programs of a network: one for each padded size and scale.

On accelerators a program computes several images at once: as many as keep a
device busy, and as half of its free memory holds. A CPU is busy with one.
"""

from collections.abc import Callable, Mapping
import functools
import math
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32
import numpy as np

from deeplax import clocks
from deeplax import errors
from deeplax import parallel
from deeplax.inference import probabilities

Size = tuple[int, int]


# More images at once than these, or of more pixels in all, keep a device no
# busier.
BATCH, BATCH_PIXELS = 16, 16 * 513 * 513
BUSY_WITH_ONE = ("cpu",)
# So many groups of images may be submitted while the results of the first are
# used: results wait on the devices.
WAITING = 4
# The share of a device's free memory that a program and such results may take;
# sums of views need some, too.
MEMORY = 0.5


class Programs:
  """Compiles a network for each new size and scale, and reports it.

  Attributes:
    mesh: The devices that share the images.
    exact: Whether the network computes what it would without the padding.
    seconds: Seconds spent on compiling.
    expected: The number of images to come by padded size; empty: unknown.
    images: The number of images to come, at most; 0: unknown.
  """

  def __init__(
    self,
    model: nn.Module,
    *,
    mesh: jax.sharding.Mesh,
    channels: int,
    batch: int,
    exact: bool,
    progress: Callable[[str], None],
  ):
    """Prepare; nothing is compiled.

    Args:
      model: With a `coarse` method.
      mesh: See the attribute.
      channels: Of the images.
      batch: Images at once on each device; 0: chosen for each size.
      exact: See the attribute.
      progress: Receives a line about each compiled size.
    """
    self.mesh = mesh
    self.exact = exact
    self.seconds = 0.0
    self.expected: Mapping[Size, int] = {}
    self.images = 0
    self._model = model
    self._channels = channels
    self._batch = batch
    self._progress = progress
    self._batches: dict[Size, int] = {}
    self._compiled: dict[tuple[float, Size], Any] = {}

  @property
  def sizes(self) -> set[Size]:
    """The padded sizes that have a program."""
    return set(self._batches)

  def at_once(self, size: Size) -> int:
    """Return how many images of a compiled padded size run at once."""
    return self._batches[size] * self.mesh.size

  def compile(self, variables: Any, size: Size, scales: set[float]) -> None:
    """Compile for a padded size, at the scales that have no program yet.

    Raises:
      InputError: The network cannot be computed at exact sizes.
    """
    missing = sorted(s for s in scales if (s, size) not in self._compiled)
    if not missing:
      return
    start = time.perf_counter()
    at = f" at {len(missing)} scales" if len(missing) > 1 else ""
    what = " for exact sizes" if self.exact else ""
    text = f"compiling {size[0]}x{size[1]}{what}{at}"
    with clocks.ticking(text, self._progress):
      # The largest first: it needs the most memory.
      for scale in reversed(missing):
        self._compiled[scale, size] = self._fitting(variables, size, scale)
    seconds = time.perf_counter() - start
    self.seconds += seconds
    total = f"of at most {len(self.expected)}" if self.expected else "so far"
    if (images := self.at_once(size)) > 1:
      what += f" for {images} images at once"
    self._progress(
      f"compiled {size[0]}x{size[1]}{what}{at} in {seconds:.1f} s "
      f"({len(self.sizes)} {total})"
    )

  def run(
    self,
    variables: Any,
    padded: jax.Array,
    mirrored: Bool[np.ndarray, " b"],
    *,
    size: Size,
    scale: float,
  ) -> jax.Array:
    """Start computing logits [b, h, w, k] at the padded size.

    Args:
      variables: Of the network, on all devices.
      padded: Images from `put`, as many as run at once, not normalized, of a
        size and scale that were compiled.
      mirrored: Which images the network sees mirrored.
      size: (height, width) of the images without their padding; for exact
        sizes all have the same.
      scale: Factor the images are resized by.
    """
    program = self._compiled[scale, (padded.shape[1], padded.shape[2])]
    return program(variables, padded, mirrored, self._true(size, scale))

  def put(self, images: Float[np.ndarray, "b h w c"]) -> jax.Array:
    """Return images spread over the devices."""
    return jax.device_put(images, parallel.split(self.mesh))

  def too_large(self, size: Size, scale: float) -> str:
    """Return what helps where a device's memory does not suffice."""
    batch, half = self._batches.get(size, 1), (max(size) - 1) // 2
    what, fix = f"an image of {size[0]}x{size[1]}", "window"
    value = max(half // 64, 1) * 64 + 1
    if batch > 1:
      what, fix = f"{batch} images of {size[0]}x{size[1]} at once", "batch"
      value = batch // 2
    at = f" at scale {scale:g}" if scale != 1.0 else ""
    return (
      f"predicting {what}{at} needs more memory than a device has free. Give "
      f"--{fix}={value}, which takes half of it or less, or set "
      f"eval.{fix}={value} in the config"
    )

  def _fitting(self, variables: Any, size: Size, scale: float) -> Any:
    """Compile for as many images at once as fit, and note their number."""
    batch = self._batches.get(size) or self._batch
    if batch:
      self._batches[size] = batch
      return self._lowered(variables, size, scale, batch).compile()
    batch, free = self._useful(size), MEMORY * parallel.memory_free(self.mesh)
    while True:
      share = 0.5
      try:
        compiled = self._lowered(variables, size, scale, batch).compile()
        waiting = WAITING * compiled.memory_analysis().output_size_in_bytes
        share = free / (parallel.memory_needed(compiled) + waiting)
        if share >= 1 or batch == 1:
          self._batches[size] = batch
          return compiled
      except RuntimeError as error:  # a TPU's compiler refuses by itself
        if batch == 1 or not errors.out_of_memory(error):
          raise
      batch = max(1, min(batch // 2, int(batch * share)))

  def _useful(self, size: Size) -> int:
    """Return how many images at once keep a device busy, if they come."""
    if self.mesh.devices.flat[0].platform in BUSY_WITH_ONE:
      return 1
    most = min(BATCH, BATCH_PIXELS // math.prod(size))
    if come := self.expected.get(size, self.images):
      most = min(most, -(-come // self.mesh.size))
    return max(most, 1)

  def _true(self, size: Size, scale: float) -> Int32[np.ndarray, "2 2"] | None:
    """Return the sizes of an image and of the scaled one, for exact sizes."""
    if not self.exact:
      return None
    scaled = size if scale == 1.0 else probabilities.scaled_size(size, scale)
    return np.array([size, scaled], np.int32)

  def _lowered(
    self, variables: Any, size: Size, scale: float, batch: int
  ) -> Any:
    mesh, images = self.mesh, batch * self.mesh.size
    mapped = parallel.mapped(
      functools.partial(probabilities.logits_at_size, self._model, scale=scale),
      mesh=mesh,
      inputs=(parallel.WHOLE, parallel.ROWS, parallel.ROWS, parallel.WHOLE),
      outputs=parallel.ROWS,
    )
    rows = parallel.split(mesh)
    padded = jax.ShapeDtypeStruct(
      (images, *size, self._channels), jnp.float32, sharding=rows
    )
    mirrored = jax.ShapeDtypeStruct((images,), bool, sharding=rows)
    try:
      return jax.jit(mapped).lower(
        variables, padded, mirrored, self._true(size, scale)
      )
    except ValueError as error:
      if self.exact:
        raise errors.InputError(f"exact sizes: {error}") from error
      raise
