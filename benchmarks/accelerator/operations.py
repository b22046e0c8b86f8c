"""Sections of what networks are made of: the ceilings, each operation's forms.

An operation is timed in every form that the table of forms names, the
platform's own first. A form that does not run here says
why. What a round times is one program of several maps, so that starting it
counts for little.
"""

from collections.abc import Callable, Iterator
import functools
import math
import statistics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.accelerator import bench as bench_lib
from deeplax.ops import backend
from deeplax.ops import cross_entropy
from deeplax.ops import dense
from deeplax.ops import depthwise
from deeplax.ops import norm
from deeplax.ops import resize

# Forms of these are ways to build a whole step.
OF_STEPS = ("repeated_units", "accumulation")
CLASSES = 21
# How often a convolution's maps pass through memory: it reads one, writes one.
CONVOLUTION = {"forward": 2, "input gradient": 2, "kernel gradient": 2}


class Case(NamedTuple):
  """An operation on maps of one shape.

  Attributes:
    operation: A key of `backend.FORMS`.
    what: The map.
    function: Of a map and parameters.
    shape: Of the map.
    parameters: Their shapes.
    passes: {direction: how often the map or the result has to pass through
      memory, in bytes of the larger one}.
    dtype: Of the map.
  """

  operation: str
  what: str
  function: Callable[..., jax.Array]
  shape: tuple[int, ...]
  parameters: tuple[tuple[int, ...], ...]
  passes: dict[str, int]
  dtype: Any = jnp.bfloat16


def ceilings(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Measure what the device does at best."""
  side, copied = bench.sizes.matrix, bench.sizes.copied / bench_lib.GIB
  found = {
    name: timing.spread([value / 1e12 for value in spread["all"]])
    for name, spread in bench.ceilings.items()
  }
  yield {"what": f"bf16 matrices of {side}x{side}", "tflops": found["flops"]}
  yield {
    "what": f"copy of {copied:.3g} GiB, read and written",
    "tb_per_second": found["bytes"],
  }


def forms(operation: str) -> list[str]:
  """Return all forms of an operation, this platform's own first."""
  own = backend.form(operation)
  return [own, *(f for f in backend.forms_of(operation) if f != own)]


def operations(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Time every form of every operation, forward and its gradients."""
  of_all = cases(bench.sizes)
  if bench.small:  # the first of each operation
    of_all = {case.operation: case for case in of_all[::-1]}.values()
  for case in of_all:
    for direction in case.passes:
      yield from _compared(bench, case, direction)
  for operation in OF_STEPS:
    yield {
      "what": operation,
      "form": ", ".join(forms(operation)),
      "remark": f"of whole steps: --forms={operation}=...",
    }


def cases(sizes: bench_lib.Sizes) -> list[Case]:
  """Return the operations on maps as they are in networks, or small ones."""

  def scaled(count: int) -> int:
    return math.ceil(count * sizes.share)

  def depthwise_case(side: int, channels: int, rate: int = 1) -> Case:
    side, channels = scaled(side), scaled(channels)
    return Case(
      "depthwise",
      f"{side}x{side}x{channels}" + (f", rate {rate}" if rate > 1 else ""),
      functools.partial(
        depthwise.depthwise_conv,
        rate=rate,
        padding=((rate, rate), (rate, rate)),
      ),
      (sizes.batch, side, side, channels),
      ((3, 3, 1, channels),),
      CONVOLUTION,
    )

  def statistics_case(side: int, channels: int) -> Case:
    side, channels = scaled(side), scaled(channels)
    return Case(
      "statistics",
      f"norm + ReLU of {side}x{side}x{channels}",
      _normalized,
      (sizes.batch, side, side, channels),
      ((channels,), (channels,), (channels,)),
      # Read for the statistics, read, written; back, two maps read twice.
      {"forward": 3, "all gradients": 5},
    )

  side, channels, coarse = scaled(33), scaled(728), scaled(129)
  return [
    depthwise_case(33, 728),
    statistics_case(33, 728),
    depthwise_case(33, 2048, rate=12),
    depthwise_case(257, 128),
    Case(
      "dense",
      f"1x1 of {side}x{side}x{channels}",
      functools.partial(dense.conv, padding=((0, 0), (0, 0))),
      (sizes.batch, side, side, channels),
      ((1, 1, channels, channels),),
      CONVOLUTION,
    ),
    Case(
      "resize",
      f"{coarse}x{coarse}x{CLASSES} to {sizes.side}x{sizes.side}",
      functools.partial(resize.resize_bilinear, size=(sizes.side, sizes.side)),
      (sizes.batch, coarse, coarse, CLASSES),
      (),
      {"forward": 1, "input gradient": 1},
      jnp.float32,
    ),
    Case(
      "cross_entropy",
      f"{sizes.side}x{sizes.side}x{CLASSES}",
      _loss,
      (sizes.batch, sizes.side, sizes.side, CLASSES),
      (),
      {"forward": 1, "input gradient": 2},
      jnp.float32,
    ),
    depthwise_case(65, 728),
    statistics_case(129, 144),
  ]


def _loss(logits):
  labels = jnp.arange(logits[..., 0].size) % CLASSES
  return cross_entropy.cross_entropy(logits, labels.reshape(logits.shape[:-1]))


def _normalized(x, scale, offset, shift):
  return norm.applied(
    norm.normed(x, scale, offset, eps=1e-3, limit=math.inf, shift=shift)
  )


def _compared(
  bench: bench_lib.Bench, case: Case, direction: str
) -> Iterator[bench_lib.Row]:
  """Time the forms of one operation in one direction, taking turns."""
  what = f"{case.operation}, {case.what}, {direction}"
  rows: dict[str, bench_lib.Row] = {
    form: {"what": what, "form": form} for form in forms(case.operation)
  }
  if bench.late:
    yield {"what": what, "form": ", ".join(rows), **bench.late}
    return
  arguments = _arguments(case, bench.sizes.maps)
  run = jax.jit(functools.partial(_run, case.function, direction))
  programs = {}
  for form, row in rows.items():
    if row.update(bench.late) or "remark" in row:
      continue
    try:
      with backend.chosen(**{case.operation: form}):
        program = bench.compiled(run, *arguments).run
      jax.block_until_ready(program(*arguments))
    except Exception as error:  # whatever it is that this form lacks here
      text = str(error).partition("\n")[0][:120]
      row["remark"] = f"{bench_lib.NOT_HERE}: {text}"
    else:
      programs[form] = functools.partial(program, *arguments)
  larger = max(arguments[0][0].size, arguments[2][0].size)
  size = larger * jnp.dtype(case.dtype).itemsize
  floor = bench.floor(bytes=size * case.passes[direction])["bytes"]
  for form, seconds in bench.times(programs).items():
    one = [s / bench.sizes.maps for s in seconds]
    rows[form] |= {
      "microseconds": timing.spread([1e6 * s for s in one]),
      "floor_us": 1e6 * floor,
      "share_of_floor": floor / statistics.median(one),
    }
  yield from rows.values()


def _run(
  function: Callable[..., jax.Array],
  direction: str,
  maps: list[jax.Array],
  parameters: list[jax.Array],
  gradients: list[jax.Array],
) -> list[Any]:
  if direction == "forward":
    return [function(x, *parameters) for x in maps]
  found = []
  for x, dy in zip(maps, gradients, strict=True):
    of_map, *of_parameters = jax.vjp(function, x, *parameters)[1](dy)
    wanted = {"input gradient": of_map, "kernel gradient": of_parameters}
    found.append(wanted.get(direction, (of_map, of_parameters)))
  return found


def _arguments(case: Case, count: int) -> tuple[list[jax.Array], ...]:
  """Return maps, parameters and gradients by the results, all noise."""

  def noise(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, case.dtype)

  maps = [noise(i, case.shape) for i in range(count)]
  parameters = [noise(count, shape) for shape in case.parameters]
  result = jax.eval_shape(case.function, maps[0], *parameters)
  gradients = [noise(-1 - i, result.shape) for i in range(count)]
  return maps, parameters, gradients
