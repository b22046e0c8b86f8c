"""Predict images of any size, padded to a few sizes or cut into windows.

An image is padded, its prediction started on the device, and cut back to the
image's size when its result is asked for. So the host can prepare the next
image while the device works: `stream` does that for many images. Where several
run at once, on several devices or on an accelerator, an image waits until it is
joined by enough others of its padded size, or until its result is asked for.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import copy
import functools
import time
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Float, Integer, Num, UInt8
import numpy as np

from deeplax import ahead
from deeplax import clocks
from deeplax import errors
from deeplax import parallel
from deeplax.crf import dense
from deeplax.inference import averaging
from deeplax.inference import groups
from deeplax.inference import mode as mode_lib
from deeplax.inference import probabilities
from deeplax.inference import programs
from deeplax.inference import sizing as sizing_lib
from deeplax.inference import windows

SINGLE = mode_lib.Mode()
PADDED = sizing_lib.Sizing()


class Predictor:
  """Predicts images of any size with one compiled program per padded size.

  All devices of this process share the images.

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
    mode: mode_lib.Mode = SINGLE,
    sizing: sizing_lib.Sizing = PADDED,
    crf: Mapping[str, Any] | None = None,
    batch: int = 1,
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
        prediction. None: no CRF.
      batch: Images at once on each device; 0: as many as make it faster and
        fit, one on a CPU.
      progress: Receives a line about each compiled size, and about each
        program of the CRF.
    """
    self.crf = crf
    self.mode = mode
    self.sizing = sizing
    self._pad_value = np.asarray(pad_value, np.float32)
    self._progress = progress
    # Seconds of compiling the CRF, for each of its programs.
    self._crf_seconds: list[float] = []
    self._programs = programs.Programs(
      model,
      mesh=parallel.mesh(jax.local_devices()),
      channels=self._pad_value.size,
      batch=batch,
      exact=sizing.sizes == "exact",
      progress=progress,
    )
    # Groups that are not full.
    self._open: dict[Any, groups.Group] = {}
    self._running: Any = ()
    self.variables = variables

  def in_mode(self, mode: mode_lib.Mode) -> "Predictor":
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
    mesh = self._programs.mesh
    self._variables = parallel.on_own_devices(variables, mesh=mesh)
    self._open.clear()  # images that wait are predicted by the former ones

  def expect(self, sizes: Iterable[tuple[int, int]]) -> int:
    """Announce the sizes of images to come; returns the number of programs."""
    counts, sizes = collections.Counter(), list(sizes)
    # Beside images that are cut into windows the others run one by one.
    alone = any(map(self.sizing.cuts, sizes))
    for size in sizes:
      if alone and not self.sizing.cuts(size):
        counts.setdefault(self.sizing.bucket(size), 1)
      else:
        counts[self.sizing.bucket(size)] += self.sizing.pieces(size)
    self._programs.expected = counts
    return len(counts)

  def start(self, seconds: dict[mode_lib.Mode, float]) -> None:
    """Start what was submitted with this clock and waits for more images."""
    for (_, clock), group in [*self._open.items()]:
      if clock == id(seconds):
        group.start()

  def expect_images(self, count: int) -> None:
    """Announce the number of images to come, of whatever sizes."""
    # How many windows they are cut into is not known.
    self._programs.images = 0 if self.sizing.windows else count

  def at_once(self, size: tuple[int, int]) -> int:
    """Return how many images of a padded size seen before run at once."""
    return self._programs.at_once(size)

  def look_ahead(self) -> int:
    """Return how many images to submit beyond the one that is asked for.

    One where they run one at a time. Where sizes mix, groups fill only if many
    images wait, up to `programs.WAITING` groups of the largest.
    """
    sizes = self._programs.sizes
    most = max(map(self._programs.at_once, sizes), default=1)
    return programs.WAITING * most - 1 if most > 1 else 1

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
    modes: Sequence[mode_lib.Mode],
    *,
    kind: str = "labels",
    seconds: dict[mode_lib.Mode, float] | None = None,
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
    return [self._refined(one, image, kind, self.crf) for one in pending]

  def _blended(
    self,
    image: np.ndarray,
    start: Callable[..., list[ahead.Result[np.ndarray]]],
    modes: Sequence[mode_lib.Mode],
    labels: bool,
    seconds: dict[mode_lib.Mode, float] | None,
  ) -> list[ahead.Result[np.ndarray]]:
    """Predict an image in windows, and wait for the last of them."""
    assert self.sizing.windows is not None
    total = self.sizing.pieces((image.shape[0], image.shape[1]))
    report = clocks.Progress(
      total, self._progress, name="predicted", unit="windows", now=self.clock
    )

    blended = windows.predict(
      image,
      self.sizing.windows,
      functools.partial(start, labels=False),
      modes=modes,
      labels=labels,
      seconds=seconds,
      n=self.look_ahead,
      step=report.step,
    )
    return [ahead.Result(functools.partial(np.asarray, x)) for x in blended]

  def _start(
    self,
    image: np.ndarray,
    *,
    modes: Sequence[mode_lib.Mode],
    target: tuple[int, int],
    labels: bool,
    seconds: dict[mode_lib.Mode, float] | None,
  ) -> list[ahead.Result[np.ndarray]]:
    """Start predictions of an image, or of a window, padded to `target`."""
    with self._memory_of(target, modes):
      scales = {scale for mode in modes for scale in mode.scales}
      self._programs.compile(self._variables, target, scales)
    # With exact sizes a program is told the one size of its images.
    exact = self.sizing.sizes == "exact"
    size = (image.shape[0], image.shape[1]) if exact else target
    kind = groups.Kind(target, size, tuple(modes), labels)
    key = (kind, id(seconds))
    group = self._open.get(key)
    if group is None:
      predict = functools.partial(self._predict, self._variables, kind, seconds)
      group = groups.Group(self._programs.at_once(target), predict)
      self._open[key] = group
    with self._memory_of(target, modes):
      place = group.add(image)

    def result(mode: int) -> np.ndarray:
      with self._memory_of(target, modes):
        return group.result(place, mode)

    return [
      ahead.Result(functools.partial(result, mode))
      for mode in range(len(modes))
    ]

  @contextlib.contextmanager
  def _memory_of(
    self, target: tuple[int, int], modes: Sequence[mode_lib.Mode]
  ) -> Iterator[None]:
    """Turn a device's lack of memory into a message that says what helps."""
    try:
      yield
    except RuntimeError as error:
      if not errors.out_of_memory(error):
        raise
      scale = max(scale for mode in modes for scale in mode.scales)
      raise errors.InputError(
        self._programs.too_large(target, scale)
      ) from error

  def _predict(
    self,
    variables: Any,
    kind: groups.Kind,
    seconds: dict[mode_lib.Mode, float] | None,
    images: list[np.ndarray],
  ) -> list[jax.Array]:
    """Start the predictions of a group; its free places hold padding."""
    self._open.pop((kind, id(seconds)), None)
    places = self._programs.at_once(kind.target)
    # float32: a mean pixel of 127.5 has no uint8.
    shape = (places, *kind.target, self._pad_value.size)
    padded = np.empty(shape, np.float32)
    padded[:] = self._pad_value
    for place, image in enumerate(images):
      padded[place, : image.shape[0], : image.shape[1]] = image
    mirrored = (np.zeros(places, bool), np.ones(places, bool))
    if seconds is not None:
      jax.block_until_ready(self._running)
    # Once for all views, and within what is timed.
    put = functools.cache(lambda: self._programs.put(padded))

    def logits(view: mode_lib.View) -> jax.Array:
      mirror, scale = view
      return self._programs.run(
        variables, put(), mirrored[mirror], size=kind.size, scale=scale
      )

    spent: dict[mode_lib.Mode, float] | None = None if seconds is None else {}
    self._running = averaging.predict(
      kind.modes, logits, labels=kind.labels, seconds=spent
    )
    if seconds is not None and spent is not None:
      for mode, value in spent.items():
        # A group that is not full counts for the part that is.
        share = value * len(images) / places
        seconds[mode] = seconds.get(mode, 0.0) + share
    return self._running

  def _refined(
    self,
    pending: ahead.Result[np.ndarray],
    image: UInt8[np.ndarray, "h w 3"],
    kind: str,
    crf: Mapping[str, Any],
  ) -> ahead.Result[np.ndarray]:
    """Return probabilities refined by the dense CRF, or their classes."""

    def compiled(seconds: float) -> None:
      self._crf_seconds.append(seconds)
      self._progress(
        f"compiled the dense CRF in {seconds:.1f} s "
        f"({len(self._crf_seconds)} so far)"
      )

    def get() -> np.ndarray:
      shares = pending.result()
      refined = np.asarray(
        dense.dense_crf(image, shares, **crf, compiled=compiled)
      )
      # By NumPy: JAX would compile a program for each size.
      return refined if kind == "probabilities" else averaging.best(refined)

    return ahead.Result(get)

  @property
  def compile_seconds(self) -> float:
    """Seconds spent on compiling the network and the CRF."""
    return self._programs.seconds + sum(self._crf_seconds)

  def clock(self) -> float:
    """Return the seconds of a clock that stops while programs compile."""
    return time.perf_counter() - self.compile_seconds


def stream(
  submit: Callable[[np.ndarray], ahead.Result[Any]],
  items: Iterable[dict[str, Any]],
  *,
  n: int | Callable[[], int] = 1,
  clock: dict[str, float] | None = None,
) -> Iterator[tuple[dict[str, Any], Any]]:
  """Yield (item, prediction) in order while the device works on the next.

  Args:
    submit: Starts a prediction of an image, such as `Predictor.submit`.
    items: Dicts with "image".
    n: Images submitted beyond the one yielded, such as `Predictor.look_ahead`.
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
