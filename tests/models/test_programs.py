"""Training steps as a GPU and a TPU would get them, neither of them here.

The step is traced and lowered, not compiled: what is looked at is which
operations it has, and in which precision it sums.
"""

from collections.abc import Iterator
import functools
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
import pytest

from benchmarks import steps
from deeplax import parallel
from deeplax.models import cost
from deeplax.ops import backend
from tests import test_configs
from tests.models import networks
from tests.ops import kernels

LOWERED = {"gpu": "cuda", "tpu": "tpu"}
DEVICES = 2
# What adds up many values; a convolution and a product do so in float32 on
# every accelerator, whatever they return.
SUMS = ("reduce_sum", "psum", "cumsum", "reduce_window_sum", "scatter-add")


def mesh(platform: str) -> AbstractMesh:
  """Return devices of a platform, which lowering asks for their kind."""
  kind: dict[str, Any] = {"device_kind": "TPU v5e", "num_cores": 1}
  if platform == "gpu":
    kind = {"device_kind": "NVIDIA H100 80GB HBM3", "num_cores": None}
  if "platform" in inspect.signature(AbstractDevice).parameters:  # JAX 0.12
    kind["platform"] = platform
  return AbstractMesh(
    (DEVICES,),
    (parallel.AXIS,),
    axis_types=(AxisType.Auto,),
    abstract_device=AbstractDevice(**kind),
  )


def step(name: str, arg: str, platform: str) -> Any:
  """Return a configuration's training step in bfloat16, traced."""
  config, devices = steps.config(f"{name}:{arg}"), mesh(platform)
  images = 2 * config.train.accumulate
  return steps.step(config, devices).trace(
    steps.abstract_state(config, devices),
    steps.abstract_batch(devices, images=images, size=65),
  )


def equations(jaxpr: Any, *, in_kernel: bool = False) -> Iterator[Any]:
  """Return (equation, whether of a kernel) of a program and all inside it."""
  for equation in jaxpr.eqns:
    yield equation, in_kernel
    inside = in_kernel or equation.primitive.name == "pallas_call"
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")
    ):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from equations(inner, in_kernel=inside)


def grouped(jaxpr: Any) -> list[str]:
  """Return the convolutions that have groups, of channels or of images."""
  counts = ("feature_group_count", "batch_group_count")
  return [
    str(equation)
    for equation, _ in equations(jaxpr)
    if any(equation.params.get(count, 1) > 1 for count in counts)
  ]


def half_precision_sums(jaxpr: Any) -> list[str]:
  """Return what adds up values in less than float32."""
  low = []
  for equation, in_kernel in equations(jaxpr):
    name = equation.primitive.name
    adds = in_kernel and name in ("add", "mul", "sub", "max", "min")
    for out in equation.outvars if adds or name.startswith(SUMS) else ():
      dtype = out.aval.dtype
      if jnp.issubdtype(dtype, jnp.floating) and dtype != jnp.float32:
        low.append(str(equation))
  return low


def precisions(jaxpr: Any) -> list[Any]:
  """Return the precision of both factors of each product and convolution."""
  found = []
  for equation, _ in equations(jaxpr):
    if equation.primitive.name in ("dot_general", "conv_general_dilated"):
      precision = equation.params["precision"]
      found += precision if isinstance(precision, tuple) else (precision,) * 2
  return found


def forward_precisions(model: Any) -> list[Any]:
  """Return those of a network's forward pass, by the forms of a CPU."""
  variables, _ = cost.trace(model, cost.TRACE_SIZE)
  image = jax.ShapeDtypeStruct((1, *cost.TRACE_SIZE, 3), jnp.float32)
  with backend.target("cpu"):
    run = functools.partial(model.apply, train=False)
    return precisions(jax.make_jaxpr(run)(variables, image).jaxpr)


def count(jaxpr: Any, name: str) -> int:
  return [e.primitive.name for e, _ in equations(jaxpr)].count(name)


def check(cell: tuple[str, str], platform: str, *, lower: bool) -> Any:
  with backend.target(platform):
    traced = step(*cell, platform)
    program = traced.jaxpr.jaxpr
    assert not half_precision_sums(program)
    # Losses and gradients are summed over devices, in float32.
    assert count(program, "psum") > 0
    if platform == "gpu":
      assert not grouped(program)
    if lower:
      text = traced.lower(lowering_platforms=(LOWERED[platform],)).as_text()
      groups = re.findall(r"(?:feature|batch)_group_count = (\d+)", text)
      assert groups
      if platform == "gpu":
        assert {*groups} == {"1"}
  return program


# A configuration, and whether its backbone has depthwise convolutions.
BACKBONES = pytest.mark.parametrize(
  ("name", "depthwise"),
  [
    ("v3plus_mobilenet_v2", True),
    pytest.param("v3plus_xception", True, marks=networks.SLOW),
    ("v1_vgg16_largefov", False),
  ],
)


@BACKBONES
def test_a_step_for_a_gpu_has_no_grouped_convolution(name, depthwise):
  with networks.few_layers(), kernels.small_tiles():
    program = check((name, "debug"), "gpu", lower=False)
  assert (count(program, "pallas_call") > 0) == depthwise


@BACKBONES
def test_a_step_for_a_tpu_has_the_librarys_convolutions(name, depthwise):
  with networks.few_layers():
    program = check((name, "debug"), "tpu", lower=False)
  assert not count(program, "pallas_call")
  assert bool(grouped(program)) == depthwise


def kinds() -> list[tuple[str, str]]:
  """Return a cell of a configuration for each network of other parts."""
  found = {}
  for name, arg in test_configs.CELLS:
    model = test_configs.get(name, arg).model
    parts = (model.backbone, model.head, model.separable)
    decoder = (model.decoder.kind, model.decoder.separable)
    found.setdefault((*parts, *decoder), (name, arg))
  return [*found.values()]


@pytest.mark.slow  # some seconds for each
@pytest.mark.parametrize(("name", "arg"), kinds())
def test_no_configuration_has_a_grouped_convolution_on_a_gpu(name, arg):
  with networks.few_layers():
    check((name, arg), "gpu", lower=False)


@pytest.mark.slow  # half a minute for each
@pytest.mark.parametrize("platform", LOWERED)
@pytest.mark.parametrize("name", ["v3plus_mobilenet_v2", "v3plus_resnet101"])
def test_a_step_is_lowered_for_a_platform_that_is_not_here(name, platform):
  with networks.few_layers():
    check((name, "debug"), platform, lower=True)


@pytest.mark.slow  # traces all 65 layers
def test_a_step_of_xception_65_for_a_gpu_at_its_whole_depth():
  cell = "v3plus_xception", ""
  # Nothing of the middle flow is left in a loop; kernels have loops inside.
  with backend.target("gpu"):
    traced = step(*cell, "gpu")
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert not grouped(traced.jaxpr.jaxpr)
  assert "stablehlo.while" not in text
