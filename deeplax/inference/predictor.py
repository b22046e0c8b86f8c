"""Predict images of any size: padded to a few sizes, or cut into windows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import copy
import math
import time
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer, Num, UInt8
import numpy as np

from deeplax import clocks
from deeplax.crf import dense
from deeplax.inference import averaging
from deeplax.inference import probabilities
from deeplax.inference import programs
from deeplax.inference import windows as windows_lib
from deeplax.settings import defaults

# Sides of a bucket are 64 n + 1: aligned at every output stride up to 64.
BUCKET = 64


def bucket(
  size: tuple[int, int], pad_to: tuple[int, int] | None = None
) -> tuple[int, int]:
  """Return the (height, width) an image is padded to.

  Args:
    size: Of the image.
    pad_to: The size for all images that fit; larger ones, and all of them if
      it is None, go to the next multiple of 64, plus 1, on each side.
  """
  if pad_to and size[0] <= pad_to[0] and size[1] <= pad_to[1]:
    return (pad_to[0], pad_to[1])
  height, width = (max(-(-(d - 1) // BUCKET), 1) * BUCKET + 1 for d in size)
  return (height, width)


class Pending(NamedTuple):
  """A prediction that a device may still be working on."""

  array: jax.Array
  size: tuple[int, int]

  def result(self) -> np.ndarray:
    """Wait for it, and cut the padding off."""
    return np.asarray(self.array)[0, : self.size[0], : self.size[1]]


class Done(NamedTuple):
  """A prediction that is there: of windows, which were blended on the host."""

  found: np.ndarray

  def result(self) -> np.ndarray:
    """Return it."""
    return self.found


class Refining(NamedTuple):
  """A prediction that the dense CRF has yet to refine, on the host's image."""

  pending: Pending | Done
  image: UInt8[np.ndarray, "h w 3"]
  parameters: Mapping[str, Any]
  kind: str

  def result(self) -> np.ndarray:
    """Wait for it, and refine it."""
    found = dense.dense_crf(
      self.image, self.pending.result(), **self.parameters
    )
    if self.kind == "labels":
      found = averaging.classes(jnp.asarray(found))
    return np.asarray(found)


class Predictor:
  """Predicts images of any size with one compiled program per bucket size.

  An image is padded at the bottom and right with the mean pixel, as the
  papers' numbers were made, and the prediction is cut back to its size. With
  exact sizes the network computes what it would without the padding.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Any,
    *,
    pad_value: probabilities.Numbers,
    scales: probabilities.Numbers = (1.0,),
    flip: bool = False,
    pad_to: tuple[int, int] | None = None,
    sizes: str = "reference",
    windows: windows_lib.Windows | None = None,
    crf: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = print,
  ):
    """Prepare; nothing is compiled before the first image.

    Args:
      model: With a `coarse` method.
      variables: Of `model`; arrays replicated over devices are fine.
      pad_value: Mean pixel, as raw as the images: it is 0 after normalization.
      scales: See `predict_probabilities`.
      flip: See `predict_probabilities`.
      pad_to: See `bucket`.
      sizes: "reference": the network sees the padding; "exact": it does not,
        see `ops.true_size`; "unpadded": there is none, and each size of image
        has its own program.
      windows: Larger images are predicted in windows of this one size, which
        are blended; None: every image as a whole.
      crf: Parameters of `deeplax.crf.dense_crf`, which then refines each
        prediction; its compilation is not told of. None: no CRF.
      progress: Told of each compiled size.
    """
    self.crf = crf
    self.mode = averaging.Mode(tuple(scales), flip)
    self._pad_value = np.asarray(pad_value, np.float32)
    self._pad_to = pad_to
    if sizes not in defaults.SIZES:
      raise ValueError(f"sizes {sizes!r} not in {list(defaults.SIZES)}")
    self._sizes = sizes
    self.windows = windows
    self._progress = progress
    self._programs = programs.Programs(
      model, exact=sizes == "exact", progress=progress
    )
    self._running: Any = ()
    self.variables = variables

  def in_mode(self, mode: averaging.Mode) -> "Predictor":
    """Return the same predictor with another mode; programs are shared."""
    other = copy.copy(self)
    other.mode = mode
    return other

  @property
  def sizing(self) -> dict[str, Any]:
    """How sizes are treated, for a result: "sizes" and "window"."""
    cut = self.windows
    return {
      "sizes": self._sizes,
      "window": [cut.size, cut.overlap] if cut else None,
    }

  @property
  def variables(self) -> Any:
    """The values predicted with; setting others does not compile again."""
    return self._variables

  @variables.setter
  def variables(self, variables: Any) -> None:
    def on_one_device(x: Any) -> jax.Array:
      # Of an array replicated over devices or processes, this device's copy.
      return (
        x.addressable_data(0) if isinstance(x, jax.Array) else jnp.asarray(x)
      )

    self._variables = jax.tree.map(on_one_device, variables)

  def expect(self, sizes: Iterable[tuple[int, int]]) -> int:
    """Say which image sizes will come; returns the number of programs."""
    self._programs.expected = len({self.bucket(size) for size in sizes})
    return self._programs.expected

  def __call__(
    self, image: Num[np.ndarray, "h w c"]
  ) -> Float[np.ndarray, "h w k"]:
    """Return class probabilities at the image's size."""
    return self.submit(image, kind="probabilities").result()

  def labels(
    self, image: Num[np.ndarray, "h w c"]
  ) -> Integer[np.ndarray, "h w"]:
    """Return classes at the image's size: uint8, or uint16 past 256 classes."""
    return self.submit(image).result()

  def submit(
    self, image: Num[np.ndarray, "h w c"], *, kind: str = "labels"
  ) -> Pending | Done | Refining:
    """Start a prediction and return without waiting for it.

    Over several views only the last is not waited for.

    Args:
      image: Raw; as many channels as `pad_value`.
      kind: "labels" (taken on the device: k times less to move) or
        "probabilities".
    """
    return self.submit_modes(image, (self.mode,), kind=kind)[0]

  def submit_modes(
    self,
    image: Num[np.ndarray, "h w c"],
    modes: Sequence[averaging.Mode],
    *,
    kind: str = "labels",
    seconds: dict[averaging.Mode, float] | None = None,
  ) -> list[Pending | Done | Refining]:
    """Start predictions in several modes; what they share is computed once.

    Args:
      image: See `submit`.
      modes: All different.
      kind: See `submit`.
      seconds: See `averaging.predict`.
    """
    height, width = image.shape[:2]
    if not height or not width:
      raise ValueError(f"image must have pixels, got {height}x{width}")
    if image.shape[2] != self._pad_value.size:
      raise ValueError(
        f"image has {image.shape[2]} channels, not {self._pad_value.size}"
      )
    labels = self.crf is None and kind == "labels"
    if self.windows is not None and self.windows.cut((height, width)):
      found = self._blended(image, modes, labels=labels, seconds=seconds)
    else:
      found = self._whole(image, modes, labels=labels, seconds=seconds)
    if self.crf is None:
      return list(found)
    return [Refining(pending, image, self.crf, kind) for pending in found]

  def _blended(
    self,
    image: np.ndarray,
    modes: Sequence[averaging.Mode],
    *,
    labels: bool,
    seconds: dict[averaging.Mode, float] | None,
  ) -> list[Done]:
    """Predict windows of an image, and wait for them."""
    assert self.windows is not None
    total = math.prod(len(self.windows.starts(n)) for n in image.shape[:2])
    report = clocks.Progress(
      total, self._progress, name="predicted", unit="windows", now=self.clock
    )

    def submit(window: np.ndarray) -> list[Pending]:
      return self._whole(window, modes, labels=False, seconds=seconds, cut=True)

    def add(mode: int, taken: float) -> None:
      if seconds is not None:
        seconds[modes[mode]] = seconds.get(modes[mode], 0.0) + taken

    found = windows_lib.predict(
      image, self.windows, submit, labels=labels, seconds=add, step=report.step
    )
    return [Done(array) for array in found]

  def _whole(
    self,
    image: np.ndarray,
    modes: Sequence[averaging.Mode],
    *,
    labels: bool,
    seconds: dict[averaging.Mode, float] | None,
    cut: bool = False,
  ) -> list[Pending]:
    """Start predictions of an image, or of a window that was cut from one."""
    height, width = image.shape[:2]
    target = self.bucket((height, width))
    if cut and self.windows is not None:
      target = (self.windows.size, self.windows.size)
    # float32: a mean pixel of 127.5 has no uint8.
    padded = np.empty((1, *target, self._pad_value.size), np.float32)
    padded[:] = self._pad_value.reshape(1, 1, 1, -1)
    padded[0, :height, :width] = image
    self._programs.compile(
      self._variables, padded, {s for mode in modes for s in mode.scales}
    )
    mirrored = (np.zeros(1, bool), np.ones(1, bool))
    if seconds is not None:
      jax.block_until_ready(self._running)

    def logits(view: averaging.View) -> jax.Array:
      mirror, scale = view
      return self._programs.run(
        self._variables,
        padded,
        mirrored[mirror],
        size=(height, width),
        scale=scale,
      )

    self._running = averaging.predict(
      modes,
      logits,
      labels=labels,
      seconds=seconds,
    )
    return [Pending(array, (height, width)) for array in self._running]

  def bucket(self, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that the network sees of such an image.

    It is padded to that, or cut into windows of it.
    """
    if self.windows is not None and self.windows.cut(size):
      return (self.windows.size, self.windows.size)
    if self._sizes == "unpadded":
      return size
    return bucket(size, self._pad_to)

  def compiled(self, size: tuple[int, int]) -> bool:
    """Return whether an image of this size has been predicted before."""
    return self.bucket(size) in self._programs.sizes

  @property
  def compile_seconds(self) -> float:
    """Seconds spent on compiling the network."""
    return self._programs.seconds

  def clock(self) -> float:
    """Return the seconds of a clock that stands still while compiling."""
    return time.perf_counter() - self.compile_seconds
