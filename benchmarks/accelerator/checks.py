"""Sections that compare this platform's forms with the CPU's values.

The CPU computes in float32 and by the plainest forms, so that on a CPU they
compare something as well.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import steps
from benchmarks.accelerator import bench as bench_lib
from benchmarks.accelerator import networks
from deeplax import parallel
from deeplax.models import layers
from deeplax.ops import backend
from deeplax.ops import depthwise
from deeplax.ops import form_check
from deeplax.ops import padding as padding_ops

# Shares of the norm of what is compared. In half precision rounding moves
# values across the bounds of a ReLU, and their gradients come or go.
LIMITS = {"float32": 1e-4, "bfloat16": 0.1}
# The norms of a fresh network enlarge each rounding on their small maps.
STEP_LIMITS = {"loss": 1e-5, "gradient": 3e-2}

# (inputs, dtype) -> (result, whatever else it computes).
Function = Callable[[dict[str, Any], Any], tuple[jax.Array, Any]]


class Window(NamedTuple):
  """How a depthwise convolution reads its map."""

  height: int
  width: int
  channels: int
  stride: int = 1
  rate: int = 1
  relu: bool = False

  @property
  def padding(self) -> padding_ops.Padding:
    return (self.rate, self.rate), (self.rate, self.rate)

  @property
  def text(self) -> str:
    return (
      f"{self.height}x{self.width}x{self.channels}, stride {self.stride}, rate "
      f"{self.rate}{', ReLU' if self.relu else ''}"
    )


# Sides and channels as networks have them, and such that no tile divides.
WINDOWS = (
  Window(33, 33, 728, relu=True),
  Window(33, 33, 40, rate=12),
  Window(65, 66, 129, stride=2, relu=True),
  Window(37, 41, 19, rate=2),
)


def check(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Compare depthwise convolutions, alone and between norms.

  Raises:
    ArithmeticError: Values differ by more than LIMITS.
  """
  operations = {"depthwise": _depthwise, "separable, with norms": _separable}
  wrong = []
  windows = WINDOWS[2:] if bench.small else WINDOWS
  for window, (name, operation), (dtype, limit) in itertools.product(
    windows, operations.items(), LIMITS.items()
  ):
    what = f"{name}, {window.text}"
    row = {"what": what, "dtype": dtype}
    if bench.late:
      yield row | bench.late
      continue
    function, inputs = operation(window, dtype)
    found = _differences(function, inputs, dtype)
    yield row | found | {"limit": limit}
    wrong += _over(f"{what}, {dtype}", found, dict.fromkeys(found, limit))
  _refuse(wrong)


def check_step(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Compare the first training step of a network of few layers.

  Raises:
    ArithmeticError: Values differ by more than STEP_LIMITS.
  """
  network = networks.NETWORKS["mobilenet" if bench.small else "xception"]
  config = network.configuration(small=True, dtype="float32")
  results = []
  for device, forms in (
    (jax.local_devices()[0], contextlib.nullcontext()),
    (jax.devices("cpu")[0], _plain()),
  ):
    with forms, jax.default_matmul_precision("highest"):
      mesh = parallel.mesh([device])
      state = steps.state(config, mesh)
      batch = steps.batch(mesh, images=2, size=bench_lib.SMALL.side)
      step = bench.compiled(steps.step(config, mesh), state, batch)
      state, metrics = step.run(state, batch)
      # After one step the momentum is the gradient.
      gradient = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
      loss = metrics.compute()["loss"]
      results.append({"loss": loss, "gradient": gradient})
  found = _difference_of_each(*results)
  yield {
    "what": f"training step, {network.title}, small stand-in",
    "dtype": "float32",
    **found,
    "limit": ", ".join(f"{v:.0e}" for v in STEP_LIMITS.values()),
  }
  _refuse(_over("training step", found, STEP_LIMITS))


@contextlib.contextmanager
def _plain() -> Iterator[None]:
  """Trace the plainest forms, and run them on the CPU."""
  with (
    jax.default_device(jax.devices("cpu")[0]),
    backend.target("cpu"),
    backend.chosen(**form_check.REFERENCES),
  ):
    yield


def _over(
  what: str, found: Mapping[str, float], limits: Mapping[str, float]
) -> list[str]:
  """Return a line about each difference that is too large, or is none."""
  return [
    f"{what}: {name} differs by {found[name]:.1e}, more than {limit:.0e}"
    for name, limit in limits.items()
    if not found[name] <= limit
  ]


def _refuse(wrong: list[str]) -> None:
  if wrong:
    raise ArithmeticError("; ".join(wrong))


def _depthwise(
  window: Window, dtype: str
) -> tuple[Function, dict[str, np.ndarray]]:
  def function(inputs, dtype):
    y = depthwise.depthwise_conv(
      jnp.asarray(inputs["map"], dtype),
      jnp.asarray(inputs["kernel"], dtype),
      stride=window.stride,
      rate=window.rate,
      padding=window.padding,
      relu=window.relu,
    )
    return y, ()

  kernel = _noise(1, (3, 3, 1, window.channels), dtype)
  return function, {"map": _noise(0, _shape(window), dtype), "kernel": kernel}


def _separable(window: Window, dtype: str) -> tuple[Function, dict[str, Any]]:
  """Return a separable convolution and its inputs, means far from zero."""
  module = functools.partial(
    layers.SeparableConv,
    features=24,
    stride=window.stride,
    rate=window.rate,
    norm=layers.Norm(decay=0.9, eps=1e-3),
    pre_activation="relu" if window.relu else None,
    activation="relu",
  )

  def function(inputs, dtype):
    variables = {"params": inputs["parameters"], "batch_stats": statistics}
    return module(dtype=dtype).apply(
      variables, inputs["map"], train=True, mutable=["batch_stats"]
    )

  x = 2 + _noise(0, _shape(window), dtype)
  shapes = jax.eval_shape(
    lambda: module().init(jax.random.key(0), jnp.asarray(x), train=False)
  )
  drawn = jax.tree.map(
    lambda leaf: _noise(leaf.size, leaf.shape, dtype), shapes
  )
  statistics = jax.tree.map(np.abs, drawn["batch_stats"])
  return function, {"map": x, "parameters": drawn["params"]}


def _shape(window: Window) -> tuple[int, ...]:
  return (2, window.height, window.width, window.channels)


def _noise(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
  """Return float32 values that the dtype has, too."""
  values = np.random.default_rng(seed).standard_normal(shape, np.float32)
  return values.astype(jnp.dtype(dtype)).astype(np.float32)


def _differences(
  function: Function, inputs: dict[str, Any], dtype: str
) -> dict[str, float]:
  """Compare a function's value and gradients with the CPU's."""

  def run(inputs, dtype):
    y, pull, further = jax.vjp(
      lambda inputs: function(inputs, jnp.dtype(dtype)), inputs, has_aux=True
    )
    # Weights that every dtype has.
    weights = jnp.cos(jnp.arange(y.size)).astype(jnp.bfloat16)
    (gradients,) = pull(weights.reshape(y.shape).astype(y.dtype))
    result = {"value": y, "statistics": further}
    return result | {f"{k}_gradient": v for k, v in gradients.items()}

  with jax.default_matmul_precision("highest"):
    here = jax.jit(run, static_argnums=1)(inputs, dtype)
    with _plain():
      there = jax.jit(run, static_argnums=1)(inputs, "float32")
  return _difference_of_each(here, there)


def _difference_of_each(
  here: Mapping[str, Any], there: Mapping[str, Any]
) -> dict[str, float]:
  """Return |a - b| / |b| of each entry that holds arrays."""
  found = {}
  for name, expected in there.items():
    if leaves := jax.tree.leaves(expected):
      pairs = zip(jax.tree.leaves(here[name]), leaves, strict=True)
      differences, norms = [], []
      for a, b in pairs:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        differences.append(((a - b) ** 2).sum())
        norms.append((b**2).sum())
      found[name] = float(np.sqrt(sum(differences) / sum(norms)))
  return found
