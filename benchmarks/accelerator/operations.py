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
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.accelerator import bench as bench_lib
from deeplax.ops import backend
from deeplax.ops import form_check

# How often the map or the result, the larger, passes through memory: a
# convolution reads one and writes one.
CONVOLUTION = {"forward": 2, "input gradient": 2, "kernel gradient": 2}
PASSES = {
  "depthwise": CONVOLUTION,
  "dense": CONVOLUTION,
  # Read for the statistics, read, written; back, two maps read twice.
  "statistics": {"forward": 3, "all gradients": 5},
  "resize": {"forward": 1, "input gradient": 1},
  "cross_entropy": {"forward": 1, "input gradient": 2},
}


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


def operations(bench: bench_lib.Bench) -> Iterator[bench_lib.Row]:
  """Time every form of every operation, forward and its gradients."""
  of_all = cases(bench.sizes)
  if bench.small:  # the first of each operation
    of_all = {case.operation: case for case in of_all[::-1]}.values()
  for case in of_all:
    for direction in PASSES[case.operation]:
      yield from _compared(bench, case, direction)
  for operation in form_check.OF_STEPS:
    yield {
      "what": operation,
      "form": ", ".join(form_check.forms(operation)),
      "remark": f"of whole steps: --forms={operation}=...",
    }


def cases(sizes: bench_lib.Sizes) -> list[form_check.Case]:
  """Return the operations on maps as they are in networks, or small ones."""

  def scaled(count: int) -> int:
    return math.ceil(count * sizes.share)

  batch, side, channels = sizes.batch, scaled(33), scaled(728)
  return [
    form_check.depthwise_case(batch, side, channels),
    form_check.statistics_case(batch, side, channels, relu=True),
    form_check.depthwise_case(batch, side, scaled(2048), rate=12),
    form_check.depthwise_case(batch, scaled(257), scaled(128)),
    form_check.dense_case(batch, side, channels),
    form_check.resize_case(batch, scaled(129), sizes.side),
    form_check.cross_entropy_case(batch, sizes.side),
    form_check.depthwise_case(batch, scaled(65), channels),
    form_check.statistics_case(batch, scaled(129), scaled(144), relu=True),
  ]


def _compared(
  bench: bench_lib.Bench, case: form_check.Case, direction: str
) -> Iterator[bench_lib.Row]:
  """Time the forms of one operation in one direction, taking turns."""
  what = f"{case.operation}, {case.what}, {direction}"
  rows: dict[str, bench_lib.Row] = {
    form: {"what": what, "form": form}
    for form in form_check.forms(case.operation)
  }
  if bench.late:
    yield {"what": what, "form": ", ".join(rows), **bench.late}
    return
  arguments = form_check.arguments(case, bench.sizes.maps)
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
  passes = PASSES[case.operation]
  larger = max(arguments[0][0].size, arguments[2][0].size)
  size = larger * jnp.dtype(case.dtype).itemsize
  floor = bench.floor(bytes=size * passes[direction])["bytes"]
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
