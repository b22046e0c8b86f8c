"""Training in bfloat16 adds up in float32 wherever thousands are summed.

bfloat16 has 8 bits: past 256 times a summand's size a sum no longer grows. The
sums are looked for in the step's jaxpr, which is that of the real batch and
crop, since tracing takes no longer for it.
"""

from collections.abc import Iterator
import math
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models.backbones import mobilenet_v3
from deeplax.training import losses
from deeplax.training import optim
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from tests import test_configs
from tests.models import networks

# So many summands of bfloat16 lose no more than their last bits.
FEW = 1_000
SUMS = ("reduce_sum", "scatter-add", "cumsum", "reduce_window_sum")


def equations(jaxpr: Any) -> Iterator[Any]:
  """Walk every equation, those of inner functions included."""
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from equations(inner)


def summands(equation: Any) -> int:
  """Return how many values go into one value of a sum; 0: it is no sum."""
  name, params = equation.primitive.name, equation.params
  if name not in SUMS:
    return 0
  if name == "reduce_window_sum":
    return math.prod(params["window_dimensions"])
  if name == "cumsum":
    return equation.invars[0].aval.shape[params["axis"]]
  values = equation.invars[2 if name == "scatter-add" else 0].aval
  return values.size // max(equation.outvars[0].aval.size, 1)


def half_sums(jaxpr: Any) -> list[str]:
  """Describe the sums of many values that bfloat16 holds."""
  return [
    f"{equation.primitive.name} of {summands(equation):,} bfloat16 values "
    f"to {equation.outvars[0].aval.shape}, {equation.source_info.name_stack}"
    for equation in equations(jaxpr)
    if summands(equation) > FEW
    and equation.outvars[0].aval.dtype == jnp.bfloat16
  ]


def step_jaxpr(config: Any) -> Any:
  """Return the jaxpr of a configuration's training step, in bfloat16."""
  config.model.dtype = "bfloat16"
  model: Any = build.from_config(
    config.model, num_classes=21, auxiliary=config.train.auxiliary_weight > 0
  )
  shapes = cost.trace(model, networks.SIZE)[0]
  _, tx = optim.optimizer(config)
  loss = losses.Settings(
    upsample_logits=config.train.upsample_logits,
    auxiliary_weight=config.train.auxiliary_weight,
    per_scale=len(config.model.input_scales) > 0,
    align_corners=model.align_corners,
  )
  step = step_lib.make_train_step(model, tx, loss=loss, axis_name=None)
  batch = (config.train.batch_size, *config.data.crop_size)

  def run(variables, images, labels):
    state = state_lib.create(variables, tx, seed=0)
    return step(state, {"image": images, "label": labels})

  return jax.make_jaxpr(run)(
    shapes,
    jax.ShapeDtypeStruct((*batch, 3), jnp.uint8),
    jax.ShapeDtypeStruct(batch, jnp.uint8),
  )


# One of each backbone, short, with biases or frozen norms where it has any.
FAST = (
  ("lraspp_mobilenet_v3", "small"),
  ("v1_vgg16_largefov", "msc"),
  ("v2_resnet101", ""),
  ("v3plus_mobilenet_v2", "stage2"),
  ("v3plus_xception", "stage2"),
)


@pytest.mark.parametrize(("name", "arg"), FAST)
def test_no_short_step_sums_thousands_of_values_in_bfloat16(
  name, arg, short, monkeypatch
):
  small = mobilenet_v3.VARIANTS["small_seg"]
  few = small._replace(blocks=small.blocks[:5])
  monkeypatch.setitem(mobilenet_v3.VARIANTS, "small_seg", few)
  jaxpr = step_jaxpr(test_configs.get(name, arg))
  assert half_sums(jaxpr) == []
  # What is looked for is there, in float32.
  assert any(summands(equation) > FEW for equation in equations(jaxpr))


# 4 minutes.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "arg"), test_configs.CELLS)
def test_no_step_sums_thousands_of_values_in_bfloat16(name, arg):
  assert half_sums(step_jaxpr(test_configs.get(name, arg))) == []


def error_of_gradients(make, size):
  """Return the largest error of each gradient against float32's largest."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(1, 1, (*size, 8)), jnp.float32)
  weights = rng.normal(1, 0.1, x.shape).astype(np.float32)
  found = {}
  for dtype in ("float32", "bfloat16"):
    module = make(dtype)
    start = module.init(jax.random.key(0), x[:1], train=False)

    def loss(params, module=module, start=start, dtype=dtype):
      y = module.apply({**start, "params": params}, x.astype(dtype), train=True)
      return jnp.sum(y.astype(jnp.float32) * weights)

    found[dtype] = flax.traverse_util.flatten_dict(
      jax.jit(jax.grad(loss))(start["params"]), sep="/"
    )
  return {
    key: np.abs(found["bfloat16"][key] - true).max() / np.abs(true).max()
    for key, true in found["float32"].items()
  }


FROZEN = layers.Norm(decay=0.9, eps=1e-3, mode="frozen")
SIZES = [
  (16, 65, 65),
  pytest.param((8, 65, 65), marks=networks.SLOW),
  pytest.param((4, 129, 129), marks=networks.SLOW),
  pytest.param((3, 161, 193), marks=networks.SLOW),
]


@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_biases_and_frozen_offsets_are_float32s(size):
  biased = error_of_gradients(
    lambda dtype: layers.ConvNorm(8, use_bias=True, dtype=dtype), size
  )
  frozen = error_of_gradients(
    lambda dtype: layers.ConvNorm(8, norm=FROZEN, dtype=dtype), size
  )
  # Kernels' gradients are those of rounded inputs.
  assert biased["bias"] < 1e-4 > frozen["offset"], (biased, frozen)
  assert max(biased["kernel"], frozen["kernel"], frozen["scale"]) < 0.01


@pytest.mark.parametrize("size", SIZES)
def test_gradients_of_squeeze_and_excite_are_those_of_rounded_inputs(size):
  errors = error_of_gradients(
    lambda dtype: mobilenet_v3.SqueezeExcite(layers.Init(), dtype), size
  )
  assert max(errors.values()) < 0.02, errors
