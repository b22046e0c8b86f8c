"""Run every form of an operation here: its values, and which is the fastest.

An operation runs by itself, forward and back. Values are compared in float32,
with products in float32 as well. Times are taken of all forms in turn, so that
a busy moment hits all: on accelerators larger maps, in training's dtype.
"""

from collections.abc import Callable
import functools
import math
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeplax.ops import backend
from deeplax.ops import cross_entropy
from deeplax.ops import dense
from deeplax.ops import depthwise
from deeplax.ops import norm
from deeplax.ops import resize

# Forms of these are ways to build a whole step.
OF_STEPS = ("repeated_units", "accumulation")
# The plainest form of each operation: what the others are compared with.
REFERENCES = {
  "depthwise": "library",
  "dense": "library",
  "statistics": "two_passes",
  "resize": "gathers",
  "cross_entropy": "passes",
}
# Errors as shares of the largest value. Products have room for TF32: it is what
# "high", the precision of the resize by products, means on an NVIDIA card.
BOUNDS = {
  "depthwise": 2e-3,
  "dense": 2e-3,
  "statistics": 1e-4,
  "resize": 2e-3,
  "cross_entropy": 1e-4,
}
# In every round the table's form takes so many times as long as one that is
# clearly faster.
CLEARLY = 1.3
ROUNDS = 5
ROUND = 5e-3  # seconds that a round of one form lasts, if not a single call
CLASSES = 21  # VOC 2012, with the background

clock = time.perf_counter


class Case(NamedTuple):
  """An operation on maps of one shape.

  Attributes:
    operation: A key of `backend.FORMS`.
    what: The map, as text.
    function: Of a map and parameters.
    shape: Of the map.
    parameters: Their shapes.
    dtype: Of the map where networks are trained on accelerators.
  """

  operation: str
  what: str
  function: Callable[..., jax.Array]
  shape: tuple[int, ...]
  parameters: tuple[tuple[int, ...], ...] = ()
  dtype: Any = jnp.bfloat16


def depthwise_case(batch: int, side: int, channels: int, rate: int = 1) -> Case:
  """Return a 3x3 convolution that keeps the map's size."""
  return Case(
    "depthwise",
    f"{side}x{side}x{channels}" + (f", rate {rate}" if rate > 1 else ""),
    functools.partial(
      depthwise.depthwise_conv,
      rate=rate,
      padding=((rate, rate), (rate, rate)),
    ),
    (batch, side, side, channels),
    ((3, 3, 1, channels),),
  )


def dense_case(batch: int, side: int, channels: int) -> Case:
  """Return a 1x1 convolution with as many channels before as behind."""
  return Case(
    "dense",
    f"1x1 of {side}x{side}x{channels}",
    functools.partial(dense.conv, padding=((0, 0), (0, 0))),
    (batch, side, side, channels),
    ((1, 1, channels, channels),),
  )


def statistics_case(
  batch: int, side: int, channels: int, *, relu: bool
) -> Case:
  """Return a norm; its parameters are scale, offset and the shift."""

  def normalized(x, scale, offset, shift):
    limit = math.inf if relu else None
    return norm.applied(
      norm.normed(x, scale, offset, eps=1e-3, limit=limit, shift=shift)
    )

  return Case(
    "statistics",
    f"norm{' + ReLU' if relu else ''} of {side}x{side}x{channels}",
    normalized,
    (batch, side, side, channels),
    ((channels,),) * 3,
  )


def resize_case(batch: int, side: int, size: int) -> Case:
  """Return the resize of logits to images of size x size."""
  return Case(
    "resize",
    f"{side}x{side}x{CLASSES} to {size}x{size}",
    functools.partial(resize.resize_bilinear, size=(size, size)),
    (batch, side, side, CLASSES),
    dtype=jnp.float32,
  )


def cross_entropy_case(batch: int, side: int) -> Case:
  """Return the cross entropy of every pixel, labels in turn."""

  def loss(logits):
    labels = jnp.arange(logits[..., 0].size) % CLASSES
    labels = labels.reshape(logits.shape[:-1])
    return cross_entropy.cross_entropy(logits, labels)

  return Case(
    "cross_entropy",
    f"{side}x{side}x{CLASSES}",
    loss,
    (batch, side, side, CLASSES),
    dtype=jnp.float32,
  )


def cases() -> list[tuple[Case, Case | None]]:
  """Return (small, large) of each operation, as `compare` takes them."""
  small, large = _cases(small=True), _cases(small=False)
  alone = backend.platform() == "cpu"
  return [*zip(small, [None] * len(small) if alone else large, strict=True)]


def _cases(*, small: bool) -> list[Case]:
  """Return one case of each operation, such that its forms differ.

  Args:
    small: Sides and channels that no tile divides, quick on a CPU. Else maps so
      large that starting a program on an accelerator counts for little.
  """
  batch, channels = (2, 72) if small else (16, 728)
  coarse, fine = (33, 129) if small else (129, 513)
  return [
    depthwise_case(batch, 33, channels),
    # Few channels, for which a TPU has a form of its own.
    dense_case(batch, coarse, 64),
    # No ReLU: values that rounding moves across its corner differ by far.
    statistics_case(batch, 33, channels, relu=False),
    resize_case(2, coarse, fine),
    cross_entropy_case(2, fine),
  ]


def forms(operation: str) -> list[str]:
  """Return all forms of an operation, this platform's own first."""
  own = backend.form(operation)
  return [own, *(f for f in backend.forms_of(operation) if f != own)]


def arguments(
  case: Case, count: int = 1, dtype: Any = None
) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
  """Return `count` maps, the parameters and gradients by each result, noise.

  Args:
    dtype: Of all of them; None: the case's.
  """

  rng = np.random.default_rng(0)

  def noise(shape: tuple[int, ...]) -> jax.Array:
    values = rng.standard_normal(shape, np.float32)
    return jnp.asarray(values, dtype or case.dtype)

  maps = [noise(case.shape) for _ in range(count)]
  parameters = [noise(shape) for shape in case.parameters]
  result = jax.eval_shape(case.function, maps[0], *parameters)
  gradients = [noise(result.shape) for _ in range(count)]
  return maps, parameters, gradients


class Found(NamedTuple):
  """What running all forms of an operation has shown.

  Attributes:
    case: The operation and the map of the times.
    own: The form that the table chooses here.
    seconds: Of each form that ran, those of every round.
    errors: Of each form that ran, the largest, as a share of the largest value.
    left_out: Why the others did not run.
    programs: How many were compiled.
  """

  case: Case
  own: str
  seconds: dict[str, list[float]]
  errors: dict[str, float]
  left_out: dict[str, str]
  programs: int

  def text(self) -> str:
    """Return the times, this platform's form first: "rows 0.03 ms; ..."."""
    times = {f: _milliseconds(s) for f, s in self.seconds.items()}
    own = times.pop(self.own, None)
    parts = [f"{self.own} {own} ms"] if own else []
    if times:
      parts.append(", ".join(f"{form} {text}" for form, text in times.items()))
    parts += [f"{form} not run: {why}" for form, why in self.left_out.items()]
    return "; ".join(parts)

  def notes(self) -> list[str]:
    """Return a line about the form that is clearly faster, if one is."""
    own = self.seconds.get(self.own, [])
    medians = {
      form: statistics.median(seconds)
      for form, seconds in self.seconds.items()
      if own and all(a > CLEARLY * b for a, b in zip(own, seconds, strict=True))
    }
    if not medians:
      return []
    best = min(medians, key=lambda form: medians[form])
    return [
      f"{self.case.operation} of {self.case.what}: the form {best} takes "
      f"{_milliseconds(self.seconds[best])} ms here, {self.own}, which the "
      f"table has, {_milliseconds(own)} ms. docs/performance.md tells how to "
      "choose a form"
    ]

  def problems(self) -> list[str]:
    """Return a line about each form of wrong values, and of what must run."""
    operation, reference = self.case.operation, REFERENCES[self.case.operation]
    wrong = [
      f"{operation} as {form} differs from {reference} by {error:.0e} of the "
      f"largest value, more than {BOUNDS[operation]:.0e}: reinstall jax and "
      "jaxlib of the same version, and the driver"
      for form, error in self.errors.items()
      if not error <= BOUNDS[operation]  # nor is NaN
    ]
    return wrong + [
      f"{operation} as {form} does not run here: {self.left_out[form]}"
      for form in dict.fromkeys((self.own, reference))
      if form in self.left_out
    ]


def compare(small: Case, large: Case | None = None) -> Found:
  """Run all forms of an operation, forward and back.

  Args:
    small: For the values, in float32, and for the times if that is all.
    large: For the times, in its dtype.
  """
  operation, left_out, programs = small.operation, {}, 0
  results: dict[str, list[np.ndarray]] = {}
  timed: dict[str, Callable[[], Any]] = {}
  for form in forms(operation):
    if why := _cannot_run(operation, form):
      left_out[form] = why
      continue
    try:
      program = _program(small, form, jnp.float32)
      programs += 1
      results[form] = [np.asarray(x) for x in jax.tree.leaves(program())]
      if large is not None:
        program = _program(large, form, large.dtype)
        programs += 1
      jax.block_until_ready(program())
      timed[form] = program
    except Exception as error:  # whatever it is that this form lacks here
      left_out[form] = str(error).strip().partition("\n")[0][:120]
  truth = results.get(REFERENCES[operation])
  return Found(
    large or small,
    backend.form(operation),
    _in_turn(timed),
    {form: _error(r, truth) for form, r in results.items()} if truth else {},
    left_out,
    programs,
  )


def _cannot_run(operation: str, form: str) -> str | None:
  """Return why a form that needs kernels cannot run here; None if it can."""
  entries = backend.FORMS[operation].values()
  if not any(form == entry.form and entry.otherwise for entry in entries):
    return None
  if backend.platform() != "gpu":
    return "its kernels are for NVIDIA cards"
  return backend.kernels_missing()


def _program(case: Case, form: str, dtype: Any) -> Callable[[], Any]:
  """Return the compiled value and gradients of a case, its arguments given."""
  (x,), parameters, (dy,) = arguments(case, dtype=dtype)

  def run(dy, *inputs):
    value, pull = jax.vjp(case.function, *inputs)
    return value, pull(dy.astype(value.dtype))

  precision = "highest" if dtype == jnp.float32 else None
  with (
    backend.chosen(**{case.operation: form}),
    jax.default_matmul_precision(precision),
  ):
    compiled = jax.jit(run).lower(dy, x, *parameters).compile()
  return functools.partial(compiled, dy, x, *parameters)


def _error(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
  """Return the largest error of any array, as a share of its largest value."""
  errors = [
    # The gradient by a norm's shift is zero.
    np.abs(a - b).max() / (np.abs(b).max() or 1.0)
    for a, b in zip(found, truth, strict=True)
  ]
  return float(np.max(errors))  # NaN if one is


def _in_turn(programs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
  """Return the seconds of a call of each program, in every round."""
  calls = {
    form: max(1, min(100, round(ROUND / max(_seconds(program, 1), 1e-6))))
    for form, program in programs.items()
  }
  seconds = {form: [] for form in programs}
  for _ in range(ROUNDS):
    for form, program in programs.items():
      seconds[form].append(_seconds(program, calls[form]))
  return seconds


def _seconds(program: Callable[[], Any], calls: int) -> float:
  start = clock()
  for _ in range(calls):
    done = program()
  jax.block_until_ready(done)
  return (clock() - start) / calls


def _milliseconds(seconds: list[float]) -> str:
  return f"{1e3 * statistics.median(seconds):.3g}"
