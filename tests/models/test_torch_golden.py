"""Whole networks against torchvision's, smp's and timm's, to float noise.

Noise is about 1e-6 of the largest value; the smallest wrong convention found
shows 1e-3. Sizes are odd and even, and in the large runs the map is wider than
the largest atrous rate.
"""

import functools

import jax
import numpy as np
import pytest

from tests.models import torch_golden

TOLERANCE = 5e-5  # of the largest value of each array

# Each is one compilation.
FAST = ["smp_deeplabv3plus_mobilenet_v2_os16", "tv_mobilenet_v2"]
SLOW = [
  (name, run)
  for name in torch_golden.NETWORKS
  for run in ("small", "large", "native")
  if name not in FAST
]


@functools.lru_cache(maxsize=1)
def network(name):
  """Fixture, model and variables; the runs of one fixture come in a row."""
  fixture = torch_golden.load(name)
  model = torch_golden.model(name)
  return fixture, model, torch_golden.variables(name, model, fixture)


def check(name, run):
  fixture, model, variables = network(name)
  if run not in fixture.manifest["runs"]:
    pytest.skip(f"{name} has no run {run}")
  size, facts = (
    fixture.manifest["runs"][run][key] for key in ("input", "arrays")
  )
  _, height, width, _ = size
  image = fixture.rule.image(height, width)
  found = torch_golden.outputs(name, model, variables, image)
  prefix = f"{run}/"
  expected = {
    key.removeprefix(prefix): value
    for key, value in fixture.arrays.items()
    if key.startswith(prefix)
  }
  errors = {}
  for key, value in expected.items():
    if key.removeprefix("tap:") in torch_golden.UNSEEN:
      continue
    if key.startswith("corner"):
      rows = slice(9) if key.endswith("tl") else slice(-9, None)
      got, largest = found["out"][:, rows, rows], facts["out"]["absmax"]
    else:
      if key not in found:
        continue
      got, largest = found[key], facts[key]["absmax"]
      if facts[key]["stride"] is None:
        got = got[:, 0, 0]
      else:
        rows, columns, channels = facts[key]["stride"]
        got = got[:, ::rows, ::columns, ::channels]
    assert got.shape == value.shape, key
    errors[key] = float(np.abs(got - value).max() / largest)
  print(name, run, {k: f"{v:.1e}" for k, v in errors.items()})
  assert max(errors.values()) <= TOLERANCE, errors


@pytest.mark.parametrize("name", FAST)
def test_small_networks_equal_the_originals(name):
  check(name, "small")


@pytest.mark.slow  # 200 s together: compiles 12 networks
@pytest.mark.parametrize(("name", "run"), SLOW)
def test_every_network_and_size_equals_the_originals(name, run):
  check(name, run)


@pytest.mark.parametrize("name", torch_golden.NETWORKS)
def test_parameters_are_as_many_as_the_originals(name):
  fixture, model, variables = network(name)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  assert count == fixture.manifest["params"]
