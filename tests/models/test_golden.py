"""The whole network against the reference's outputs, to float noise.

Noise is about 1e-6 of the largest logit for Xception and ResNet. MobileNet is
worse conditioned: both the reference and deeplax lie some 3e-5 from the same
network in float64. The smallest wrong convention found shows 1e-3.
"""

import functools
import math

import jax
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import variables
from tests.fixtures import tf_rule
from tests.models import golden
from tests.models import test_programs

TOLERANCE = 1e-4  # of the largest value of each array

ODD = [(65, 65), (129, 97)]
FIXTURES = {
  "mobilenet_v2_os16": [*ODD, (64, 96), (257, 257)],
  "mobilenet_v2_dm05_os16": ODD,
  "mobilenet_v2_os16_v3plus": ODD,
  "xception_41_os16": ODD,
  "xception_65_os16": [*ODD, (64, 96), (321, 321)],
  "xception_65_os8": [*ODD, (321, 321)],
  "resnet_v1_50_beta_os16_v3plus": ODD,
  "resnet_v1_101_beta_os16_v3": [*ODD, (257, 257)],
  "resnet_v1_101_beta_os8_v3": [*ODD, (321, 321)],
}
# Each is one compilation.
FAST = [
  ("mobilenet_v2_os16", (64, 96)),
  ("resnet_v1_50_beta_os16_v3plus", (65, 65)),
  ("xception_41_os16", (65, 65)),
]
COUNTED = ("mobilenet_v2_os16", "xception_41_os16")
COUNTED += ("resnet_v1_50_beta_os16_v3plus",)
SLOW = [
  (name, size)
  for name, sizes in FIXTURES.items()
  for size in sizes
  if (name, size) not in FAST
]


@functools.lru_cache(maxsize=1)
def network(name):
  """Fixture, model and variables; the sizes of one fixture come in a row."""
  fixture = golden.load(name)
  model = build.from_config(
    golden.config(fixture.manifest),
    num_classes=fixture.manifest["num_classes"],
  )
  return fixture, model, golden.variables(model, fixture)


def check(name, size):
  fixture, model, variables = network(name)
  height, width = size
  if f"{height}x{width}/logits" not in fixture.arrays:
    pytest.skip(f"no {height}x{width} in this part of {name}")
  found = golden.outputs(model, variables, tf_rule.image(height, width))
  full = found["upsampled"]
  prefix = f"{height}x{width}/"
  expected = {
    key.removeprefix(prefix): value
    for key, value in fixture.arrays.items()
    if key.startswith(prefix)
  }

  winners = expected.pop("argmax").astype(np.int64)
  # A pixel may go to another class only where the two are level.
  chosen = np.take_along_axis(full, winners[..., None], axis=-1)[..., 0]
  slack = 2 * TOLERANCE * np.abs(full).max()
  assert (full.max(axis=-1) - chosen).max() <= slack
  assert (full.argmax(axis=-1) != winners).mean() < 1e-3

  step = fixture.manifest["tensors"][f"{height}x{width}"]["upsampled_subsample"]
  found["upsampled_stride3"] = full[:, ::step, ::step]
  for key, value in expected.items():
    if key.endswith("_ch8"):
      got = found[key.removesuffix("_ch8")][..., ::8]
    else:
      got = found[key]
    assert got.shape == value.shape, key
    error = np.abs(got - value).max() / np.abs(value).max()
    assert error <= TOLERANCE, f"{key}: {error:.1e} of the largest value"


@pytest.mark.parametrize(("name", "size"), FAST)
def test_small_networks_equal_the_reference(name, size):
  check(name, size)


@pytest.mark.slow  # 150 s together: compiles 23 networks
@pytest.mark.parametrize(("name", "size"), SLOW)
def test_every_network_and_size_equals_the_reference(name, size):
  check(name, size)


def test_products_are_those_of_float32(short):
  manifest = golden.load(FAST[0][0]).manifest
  model = build.from_config(
    golden.config(manifest), num_classes=manifest["num_classes"]
  )
  found = test_programs.forward_precisions(model)
  assert len(found) > 40 and {*found} == {jax.lax.Precision.HIGHEST}


# One of each backbone.
@pytest.mark.parametrize(
  "name",
  [
    name if name in COUNTED else pytest.param(name, marks=pytest.mark.slow)
    for name in FIXTURES
  ],
)
def test_parameters_are_as_many_as_the_references(name):
  manifest = golden.load(name).manifest
  assert [tuple(size) for size in manifest["sizes"]] == FIXTURES[name]
  model = build.from_config(
    golden.config(manifest), num_classes=manifest["num_classes"]
  )
  # Traced at the size at which the weights are brought into deeplax's form.
  found = sum(
    math.prod(shape)
    for path, shape in variables.shapes(model).items()
    if path[0] == "params"
  )
  assert found == manifest["num_trainable_params"]
