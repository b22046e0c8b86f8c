"""Predict images of any size, padded to a few sizes or cut into windows.

An image is padded, its prediction started on the device, and cut back to the
image's size when its result is asked for. So the host can prepare the next
image while the device works: `stream` does that for many images.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import copy
import dataclasses
import functools
import math
import time
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer, Num, UInt8
import numpy as np

from deeplax import ahead
from deeplax import clocks
from deeplax.crf import dense
from deeplax.inference import averaging
from deeplax.inference import probabilities
from deeplax.inference import programs
from deeplax.inference import windows as windows_lib
from deeplax.settings import defaults

# Sides of a bucket are 64 n + 1: aligned at every output stride up to 64.
BUCKET = 64


@dataclasses.dataclass(frozen=True)
class Sizing:
  """How images of any size become images of the few sizes of the programs.

  Attributes:
    sizes: "reference": the network sees the padding, as in the papers;
      "exact": it computes what it would without, see `ops.true_size`;
      "unpadded": there is none, and each size of image has its own program.
    pad_to: (height, width) that all images which fit are padded to. Larger
      ones, and all of them if it is None, are padded to the next multiple of
      64, plus 1, on each side.
    windows: Larger images are predicted in windows of this one size, which
      are blended; None: every image is predicted as a whole.

  Raises:
    ValueError: `sizes` is none of these.
  """

  sizes: str = "reference"
  pad_to: tuple[int, int] | None = None
  windows: windows_lib.Windows | None = None

  def __post_init__(self):
    if self.sizes not in defaults.SIZES:
      raise ValueError(f"sizes {self.sizes!r} not in {list(defaults.SIZES)}")

  def cuts(self, size: tuple[int, int]) -> bool:
    """Return whether an image of this (height, width) is cut into windows."""
    return self.windows is not None and self.windows.cut(size)

  def bucket(self, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that the network sees of such an image."""
    if self.windows is not None and self.windows.cut(size):
      return (self.windows.size, self.windows.size)
    if self.sizes == "unpadded":
      return size
    if self.pad_to and size[0] <= self.pad_to[0] and size[1] <= self.pad_to[1]:
      return (self.pad_to[0], self.pad_to[1])
    height, width = (max(-(-(d - 1) // BUCKET), 1) * BUCKET + 1 for d in size)
    return (height, width)

  @property
  def fields(self) -> dict[str, Any]:
    """The fields of a result: "sizes" and "window"."""
    cut = self.windows
    window = [cut.size, cut.overlap] if cut else None
    return {"sizes": self.sizes, "window": window}

  @property
  def text(self) -> str:
    """What differs from the papers' way, to be appended to a line."""
    text = {"exact": ", exact sizes", "unpadded": ", unpadded"}
    text = text.get(self.sizes, "")
    if cut := self.windows:
      text += f", windows of {cut.size} pixels that share {cut.overlap}"
    return text


SINGLE = averaging.Mode()
PADDED = Sizing()


class Predictor:
  """Predicts images of any size with one compiled program per padded size.

  Images are padded at the bottom and at the right with the mean pixel, as for
  the papers' numbers. With exact sizes the network computes what it would
  without the padding.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Any,
    *,
    pad_value: probabilities.Numbers,
    mode: averaging.Mode = SINGLE,
    sizing: Sizing = PADDED,
    crf: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = print,
  ):
    """Prepare; nothing is compiled before the first image.

    Args:
      model: With a `coarse` method.
      variables: Of `model`; arrays replicated over devices are fine.
      pad_value: Mean pixel, not normalized, as the images are not.
      mode: The scales and flips that are averaged.
      sizing: How images are padded or cut.
      crf: Parameters of `deeplax.crf.dense_crf`, which then refines each
        prediction; its compilation is not reported. None: no CRF.
      progress: Receives a line about each compiled size.
    """
    self.crf = crf
    self.mode = mode
    self.sizing = sizing
    self._pad_value = np.asarray(pad_value, np.float32)
    self._progress = progress
    self._programs = programs.Programs(
      model, exact=sizing.sizes == "exact", progress=progress
    )
    self._running: Any = ()
    self.variables = variables

  def in_mode(self, mode: averaging.Mode) -> "Predictor":
    """Return a copy with another mode, which shares the programs."""
    other = copy.copy(self)
    other.mode = mode
    return other

  @property
  def variables(self) -> Any:
    """The network's variables; setting others does not compile it again."""
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
    """Announce the sizes of images to come; returns the number of programs."""
    self._programs.expected = len({self.sizing.bucket(s) for s in sizes})
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
  ) -> ahead.Result[np.ndarray]:
    """Start a prediction and return without waiting for it.

    Of several views all but the last are waited for.

    Args:
      image: Not normalized, with as many channels as `pad_value`.
      kind: "labels", which are taken on the device, so that k times less is
        moved, or "probabilities".
    """
    return self.submit_modes(image, (self.mode,), kind=kind)[0]

  def submit_modes(
    self,
    image: Num[np.ndarray, "h w c"],
    modes: Sequence[averaging.Mode],
    *,
    kind: str = "labels",
    seconds: dict[averaging.Mode, float] | None = None,
  ) -> list[ahead.Result[np.ndarray]]:
    """Start predictions in several modes; views that they share run once.

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
    start = functools.partial(
      self._start,
      modes=modes,
      target=self.sizing.bucket((height, width)),
      seconds=seconds,
    )
    if self.sizing.cuts((height, width)):
      pending = self._blended(image, start, modes, labels, seconds)
    else:
      pending = start(image, labels=labels)
    if self.crf is None:
      return pending
    return [_refined(one, image, kind, self.crf) for one in pending]

  def _blended(
    self,
    image: np.ndarray,
    start: Callable[..., list[ahead.Result[np.ndarray]]],
    modes: Sequence[averaging.Mode],
    labels: bool,
    seconds: dict[averaging.Mode, float] | None,
  ) -> list[ahead.Result[np.ndarray]]:
    """Predict an image in windows, and wait for the last of them."""
    windows = self.sizing.windows
    assert windows is not None
    total = math.prod(len(windows.starts(side)) for side in image.shape[:2])
    report = clocks.Progress(
      total, self._progress, name="predicted", unit="windows", now=self.clock
    )

    blended = windows_lib.predict(
      image,
      windows,
      functools.partial(start, labels=False),
      modes=modes,
      labels=labels,
      seconds=seconds,
      step=report.step,
    )
    return [ahead.Result(functools.partial(np.asarray, x)) for x in blended]

  def _start(
    self,
    image: np.ndarray,
    *,
    modes: Sequence[averaging.Mode],
    target: tuple[int, int],
    labels: bool,
    seconds: dict[averaging.Mode, float] | None,
  ) -> list[ahead.Result[np.ndarray]]:
    """Start predictions of an image, or of a window, padded to `target`."""
    height, width = image.shape[:2]
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

    def without_padding(array: jax.Array) -> np.ndarray:
      return np.asarray(array)[0, :height, :width]

    self._running = averaging.predict(
      modes, logits, labels=labels, seconds=seconds
    )
    return [
      ahead.Result(functools.partial(without_padding, array))
      for array in self._running
    ]

  @property
  def compile_seconds(self) -> float:
    """Seconds spent on compiling the network."""
    return self._programs.seconds

  def clock(self) -> float:
    """Return the seconds of a clock that stops while the network compiles."""
    return time.perf_counter() - self.compile_seconds


def _refined(
  pending: ahead.Result[np.ndarray],
  image: UInt8[np.ndarray, "h w 3"],
  kind: str,
  crf: Mapping[str, Any],
) -> ahead.Result[np.ndarray]:
  """Return probabilities refined by the dense CRF, which runs on the host."""

  def get() -> np.ndarray:
    refined = dense.dense_crf(image, pending.result(), **crf)
    if kind == "labels":
      refined = averaging.classes(jnp.asarray(refined))
    return np.asarray(refined)

  return ahead.Result(get)


def stream(
  submit: Callable[[np.ndarray], ahead.Result[Any]],
  items: Iterable[dict[str, Any]],
  *,
  n: int = 1,
  clock: dict[str, float] | None = None,
) -> Iterator[tuple[dict[str, Any], Any]]:
  """Yield (item, prediction) in order while the device works on the next.

  Args:
    submit: Starts a prediction of an image, such as `Predictor.submit`.
    items: Dicts with "image".
    n: Images given to the device beyond the one yielded.
    clock: Receives the seconds waited under "load" and "compute".
  """

  def loaded() -> Iterator[dict[str, Any]]:
    iterator = iter(items)
    while True:
      with clocks.timed(clock, "load"):
        item = next(iterator, None)
      if item is None:
        return
      yield item

  def start(item: dict[str, Any]) -> ahead.Result[Any]:
    with clocks.timed(clock, "compute"):
      return submit(item["image"])

  return ahead.ahead(loaded(), start, n, clock=clock, name="compute")
