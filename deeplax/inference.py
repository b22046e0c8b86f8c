"""The one prediction function: evaluation, prediction and export all use it.

Multi-scale prediction follows the reference's predict_labels_multi_scale
(tensorflow/models research/deeplab model.py) without its second softmax.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import functools
import time
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Num, Shaped, UInt, UInt8
import numpy as np

from deeplax import commands
from deeplax import crf as crf_lib
from deeplax.ops import resize

Numbers = Sequence[float | int]
Images = Shaped[Array | np.ndarray, "b h w c"]

# Sides of a bucket are 64 n + 1: aligned at every output stride up to 64.
BUCKET = 64


def predict_probabilities(
  model: nn.Module,
  variables: Any,
  images: Images,
  scales: Numbers = (1.0,),
  flip: bool = False,
) -> Float[Array, "b h w k"]:
  """Return class probabilities: the mean of the softmax over scales and flips.

  Args:
    model: With a `coarse` method (logits before any resize).
    variables: Of `model`.
    images: Raw, RGB 0..255 or the model's own bands, of any size.
    scales: Factors the images are resized by. At (1.0,) this is the papers'
      single-scale prediction; a flip at one scale is averaged too, where the
      reference leaves it out.
    flip: Average with the left-right mirrored images.
  """
  if not scales or min(scales) <= 0:
    raise ValueError(f"scales must be positive numbers, got {tuple(scales)}")
  parts = []
  for scale in scales:
    logits = _logits(model, variables, images, scale=float(scale), flip=flip)
    found = jax.nn.softmax(logits, axis=-1)
    parts.extend(jnp.split(found, 1 + flip))
  return sum(parts[1:], start=parts[0]) / len(parts)


def predict_labels(
  model: nn.Module,
  variables: Any,
  images: Images,
  scales: Numbers = (1.0,),
  flip: bool = False,
) -> UInt[Array, "b h w"]:
  """Return the most probable classes: uint8, or uint16 past 256 classes.

  See `predict_probabilities`. At one scale without flip the classes are taken
  from the logits, as in the reference: the softmax changes no order, and would
  be a sixth of MobileNetV2's time on a CPU.
  """
  if tuple(scales) == (1.0,) and not flip:
    found = _logits(model, variables, images, scale=1.0, flip=False)
  else:
    found = predict_probabilities(model, variables, images, scales, flip)
  return _classes(found)


def _classes(scores: Float[Array, "*b h w k"]) -> UInt[Array, "*b h w"]:
  dtype = jnp.uint8 if scores.shape[-1] <= 256 else jnp.uint16
  return jnp.argmax(scores, axis=-1).astype(dtype)


def _logits(
  model: nn.Module, variables: Any, images: Images, *, scale: float, flip: bool
) -> Float[Array, "n h w k"]:
  """Logits at the images' size; with `flip` the mirrored batch follows."""
  size = images.shape[1:3]
  # A network brings its own; one without an opinion is the reference's.
  resized = functools.partial(
    resize.resize_bilinear, align_corners=getattr(model, "align_corners", True)
  )

  def coarse(images: jax.Array) -> Any:
    return model.apply(variables, images, train=False, method="coarse")

  images = jnp.asarray(images, jnp.float32)
  scaled = images
  if scale != 1.0:
    scaled = resized(
      images,
      (
        resize.scale_dimension(size[0], scale),
        resize.scale_dimension(size[1], scale),
      ),
    )
  if flip:
    # One batch, so that the network stands in the program once.
    scaled = jnp.concatenate([scaled, scaled[:, :, ::-1]])
  logits = coarse(scaled).astype(jnp.float32)
  if flip:
    plain, mirrored = jnp.split(logits, 2)
    logits = jnp.concatenate([plain, mirrored[:, :, ::-1]])
  if scale < 1.0:
    # The reference's double resize: first to the logits' size at scale 1.
    at_one = jax.eval_shape(coarse, images).shape
    logits = resized(logits, (at_one[1], at_one[2]))
  return resized(logits, (size[0], size[1]))


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


class Refining(NamedTuple):
  """A prediction that the dense CRF has yet to refine, on the host's image."""

  pending: Pending
  image: UInt8[np.ndarray, "h w 3"]
  parameters: Mapping[str, Any]
  kind: str

  def result(self) -> np.ndarray:
    """Wait for it, and refine it."""
    found = crf_lib.dense_crf(
      self.image, self.pending.result(), **self.parameters
    )
    if self.kind == "labels":
      found = _classes(found)
    return np.asarray(found)


class Predictor:
  """Predicts images of any size with one compiled program per bucket size.

  An image is padded at the bottom and right with the mean pixel, as the
  papers' numbers were made, and the prediction is cut back to its size.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Any,
    *,
    pad_value: Numbers,
    scales: Numbers = (1.0,),
    flip: bool = False,
    pad_to: tuple[int, int] | None = None,
    crf: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = print,
  ):
    """Prepare; nothing is compiled before the first image.

    Args:
      model: With a `coarse` method.
      variables: Of `model`; arrays replicated over devices are fine.
      pad_value: Mean pixel, as raw as the images: it is 0 after normalisation.
      scales: See `predict_probabilities`.
      flip: See `predict_probabilities`.
      pad_to: See `bucket`.
      crf: Parameters of `deeplax.crf.dense_crf`, which then refines each
        prediction; its compilation is not told of. None: no CRF.
      log: Told of each compiled size.
    """
    self.crf = crf
    self.scales, self.flip = tuple(float(s) for s in scales), flip
    self._pad_value = np.asarray(pad_value, np.float32)
    self._pad_to = pad_to
    self._log = log
    self._programs = {}
    self._expected = 0
    self.compile_seconds = 0.0
    self.variables = variables

    functions = {
      "probabilities": predict_probabilities,
      "labels": predict_labels,
    }
    self._functions = {
      kind: jax.jit(
        functools.partial(function, model, scales=self.scales, flip=flip)
      )
      for kind, function in functions.items()
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
    self._expected = len({bucket(size, self._pad_to) for size in sizes})
    return self._expected

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
  ) -> Pending | Refining:
    """Start a prediction and return without waiting for it.

    Args:
      image: Raw; as many channels as `pad_value`.
      kind: "labels" (taken on the device: k times less to move) or
        "probabilities".
    """
    height, width = image.shape[:2]
    if not height or not width:
      raise ValueError(f"image must have pixels, got {height}x{width}")
    if image.shape[2] != self._pad_value.size:
      raise ValueError(
        f"image has {image.shape[2]} channels, not {self._pad_value.size}"
      )
    if self.crf is not None:
      pending = self._start(image, "probabilities")
      return Refining(pending, image, self.crf, kind)
    return self._start(image, kind)

  def _start(self, image: Num[np.ndarray, "h w c"], kind: str) -> Pending:
    height, width = image.shape[:2]
    target = bucket((height, width), self._pad_to)
    # float32: a mean pixel of 127.5 has no uint8.
    padded = np.empty((1, *target, self._pad_value.size), np.float32)
    padded[:] = self._pad_value.reshape(1, 1, 1, -1)
    padded[0, :height, :width] = image
    if (kind, target) not in self._programs:
      self._programs[kind, target] = self._compile(kind, padded)
    array = self._programs[kind, target](self._variables, padded)
    return Pending(array, (height, width))

  def clock(self) -> float:
    """Return the seconds of a clock that stands still while compiling."""
    return time.perf_counter() - self.compile_seconds

  def _compile(self, kind: str, padded: np.ndarray) -> Callable[..., jax.Array]:
    start = time.perf_counter()
    function = self._functions[kind]
    program = function.lower(self._variables, padded).compile()
    seconds = time.perf_counter() - start
    self.compile_seconds += seconds
    number = sum(key[0] == kind for key in self._programs) + 1
    total = f"of at most {self._expected}" if self._expected else "so far"
    height, width = padded.shape[1:3]
    self._log(
      f"compiled {height}x{width} in {seconds:.1f} s ({number} {total})"
    )
    return program


def stream(
  predictor: Predictor,
  items: Iterable[dict[str, Any]],
  *,
  kind: str = "labels",
  ahead: int = 1,
  clock: dict[str, float] | None = None,
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
  """Yield (item, prediction) in order while the device works on the next.

  Args:
    predictor: Predicts.
    items: Dicts with "image".
    kind: See `Predictor.submit`.
    ahead: Images given to the device beyond the one yielded.
    clock: Receives the seconds waited under "load" and "compute".
  """
  clock = {} if clock is None else clock
  waiting = collections.deque()
  iterator = iter(items)
  while True:
    with commands.timed(clock, "load"):
      item = next(iterator, None)
    if item is not None:
      with commands.timed(clock, "compute"):
        waiting.append((item, predictor.submit(item["image"], kind=kind)))
    if not waiting:
      return
    if item is None or len(waiting) > ahead:
      done, pending = waiting.popleft()
      with commands.timed(clock, "compute"):
        found = pending.result()
      yield done, found
