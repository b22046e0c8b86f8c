"""Parts of networks in the forms of a GPU and of a TPU, against a CPU's."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import layers
from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import xception
from deeplax.ops import backend
from deeplax.ops import norm
from tests.models import networks
from tests.ops import kernels

SHAPE = (2, 5, 6, 8)
# Values are tested here, not speed: unoptimized code compiles twice as fast.
COMPILER = {"xla_backend_optimization_level": 0}
STYLE: Any = {
  "norm": layers.Norm(decay=0.9, eps=1e-3),
  "kernel_init": layers.Init(),
}


def unit(skip, *, stride=1, widths=(8, 8, 8), inner=False, **fields):
  block = xception.Block("unit", widths, skip, stride, inner)
  fields = {"rates": (1, 1, 1), **STYLE, **fields}
  return lambda dtype: xception.XceptionModule(
    block=block, stride=stride, dtype=dtype, **fields
  )


def inverted(channels, stride):
  return lambda dtype: mobilenet_v2.InvertedResidual(
    expansion=2, channels=channels, stride=stride, rate=1, dtype=dtype, **STYLE
  )


def separable(dtype):
  return layers.SeparableConv(
    5,
    rate=2,
    norm=STYLE["norm"],
    activation_between="relu",
    activation="relu",
    dtype=dtype,
  )


@contextlib.contextmanager
def mixed():
  """Kernels for the sums alone, as of maps that the others don't take."""
  with kernels.interpreted(), backend.chosen(depthwise="fused"):
    yield


MODULES = {
  "unit of the middle flow": unit("sum"),
  "strided unit": unit("conv", stride=2, widths=(8, 4, 6)),
  "last unit": unit("none", inner=True, rates=(1, 2, 1)),
  "norm and ReLU between": unit("sum", after_depthwise="norm_relu"),
  "no norm between": unit("sum", after_depthwise="none"),
  "pooled unit": unit("conv", stride=2, downsample="max_pool"),
  "inverted residual": inverted(8, 1),
  "strided inverted residual": inverted(6, 2),
  "separable convolution": separable,
  "frozen norms": unit("sum", norm=STYLE["norm"]._replace(mode="frozen")),
}
FORMS = {
  "cpu": contextlib.nullcontext,
  "gpu": kernels.interpreted,
  "one_pass": lambda: backend.chosen(statistics="one_pass"),
  "tpu": lambda: backend.target("tpu"),
  "mixed": mixed,
}


def results(make, form, dtype: Any = jnp.float32):
  """Return outputs, gradients by parameters and input, and statistics."""
  module = make(dtype)
  x = 1 + jax.random.normal(jax.random.key(1), SHAPE)
  with backend.chosen(depthwise="library"):
    shapes = jax.eval_shape(
      lambda: module.init(jax.random.key(0), x, train=False)
    )
  variables = networks.filled(shapes)

  def loss(params, x):
    outputs, updated = module.apply(
      {**variables, "params": params},
      x.astype(dtype),
      train=True,
      mutable=["batch_stats"],
    )
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    outputs = [norm.now(y).astype(jnp.float32) for y in outputs]
    # Each value has another weight; sums of normalized maps would be constant.
    total = sum(
      jnp.sum(y * jax.random.normal(jax.random.key(n), y.shape))
      for n, y in enumerate(outputs)
    )
    return total, (outputs, updated)

  run = jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=COMPILER)
  with FORMS[form]():
    return run(variables["params"], x)


def gaps(got, want):
  """Return each array's distance, of the wanted one's length.

  Or of 1, which is short here: where a norm follows, an offset has no effect,
  and its gradient is what rounding leaves of 0.
  """
  found = {}
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
  )
  for (path, g), w in pairs:
    g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
    gap = np.linalg.norm(g - w) / max(np.linalg.norm(w), 1)
    found[jax.tree_util.keystr(path)] = gap
  return found


# Kernels that run step by step take their time to compile.
FAST = (
  *(("gpu", "strided unit"), ("tpu", "strided unit")),
  ("one_pass", "inverted residual"),
)


@pytest.mark.parametrize(
  ("form", "name"),
  [
    pytest.param(
      form, name, marks=() if (form, name) in FAST else networks.SLOW
    )
    for form in ("gpu", "one_pass", "tpu")
    for name in MODULES
  ]
  + [pytest.param("mixed", "inverted residual", marks=networks.SLOW)],
)
def test_values_gradients_and_statistics_are_those_of_a_cpu(form, name):
  make = MODULES[name]
  found = gaps(results(make, form), results(make, "cpu"))
  assert max(found.values()) < 2e-5, found


@pytest.mark.slow  # compiles three programs
@pytest.mark.parametrize("name", ["strided unit", "inverted residual"])
def test_half_precision_is_as_near_to_float32_as_that_of_a_cpu(name):
  make = MODULES[name]
  exact = results(make, "cpu")
  found = gaps(results(make, "gpu", jnp.bfloat16), exact)
  known = gaps(results(make, "cpu", jnp.bfloat16), exact)
  # The kernels do not round what they normalize as they read it.
  assert 1e-4 < np.mean([*found.values()]) < 1.5 * np.mean([*known.values()])
  assert max(found.values()) < 0.1
