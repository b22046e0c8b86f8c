"""How the variables of a network are drawn, and widened to bands."""

import flax.traverse_util
import jax
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import variables
from deeplax.models.backbones import xception
from tests.models.networks import config
from tests.models.networks import network
from tests.models.networks import small


def paths(tree):
  return {
    "/".join(key.key for key in path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def test_initial_variables_follow_from_the_seed_alone(short):
  model = small()
  one, two = (variables.initial_variables(model, 3) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, one, two)
  other = paths(variables.initial_variables(model, 4))
  for path, value in paths(one).items():
    drawn = path.rsplit("/", 1)[-1] in ("kernel", "depthwise_kernel")
    assert drawn != np.array_equal(value, other[path]), path


def test_networks_that_share_a_part_start_it_equal(short):
  one = paths(variables.initial_variables(small(), 0))
  other = paths(
    variables.initial_variables(small(decoder__convs=3, atrous_rates=(2,)), 0)
  )
  shared = [p for p in one if p in other and one[p].shape == other[p].shape]
  assert any("conv1" in path for path in shared)
  assert any("aspp1" in path for path in shared)
  for path in shared:
    np.testing.assert_array_equal(one[path], other[path])


def test_initial_variables_have_the_shapes_of_init(short):
  model = small()
  drawn = variables.initial_variables(model, 0)
  shapes = jax.eval_shape(
    lambda x: model.init(jax.random.key(0), x, train=False),
    jax.ShapeDtypeStruct((1, 65, 65, 3), np.float32),
  )
  assert shapes == jax.eval_shape(lambda: drawn)


def test_every_kernel_is_drawn_as_the_reference_draws_it(short):
  # Kept by a normal cut at two deviations.
  cut = 0.8796
  values = paths(variables.initial_variables(network(
    backbone="mobilenet_v2", decoder__separable=False, channels=64
  ), 0))  # fmt: skip
  for path, deviation in (
    ("params/backbone/expanded_conv_7/expand/kernel", cut * 0.09),
    ("params/backbone/expanded_conv_7/depthwise/depthwise_kernel", cut * 0.09),
    # Xavier: limit sqrt(6 / (fan_in + fan_out)), deviation limit / sqrt(3).
    ("params/head/aspp0/kernel", (2 / (320 + 64)) ** 0.5),
    ("params/decoder/conv0/kernel", (2 / (9 * (64 + 48 + 256))) ** 0.5),
    ("params/head/aspp1/depthwise/depthwise_kernel", cut * 0.33),
    ("params/head/aspp1/pointwise/kernel", cut * 0.06),
    ("params/logits/kernel", cut * 0.01),
  ):
    np.testing.assert_allclose(values[path].std(), deviation, rtol=0.05)
    # Five deviations of the mean.
    limit = 5 * deviation / values[path].size ** 0.5
    assert abs(values[path].mean()) < limit, path
  for leaf, value in {
    "scale": 1, "var": 1, "offset": 0, "mean": 0, "bias": 0,
  }.items():  # fmt: skip
    found = [v for p, v in values.items() if p.endswith(f"/{leaf}")]
    assert found and all((v == value).all() for v in found)


def test_units_of_the_middle_flow_start_different(short, monkeypatch):
  blocks = tuple(
    b._replace(widths=(64, 64, 64)) for b in xception.DEPTHS[41].blocks
  )
  variant = xception.DEPTHS[41]._replace(blocks=blocks, middle=8)
  monkeypatch.setitem(xception.DEPTHS, 41, variant)
  values = paths(variables.initial_variables(network(
    backbone="xception_41", channels=8, decoder__channels=8
  ), 0))  # fmt: skip
  kernels = {
    path: value
    for path, value in values.items()
    if "middle_flow" in path and path.endswith("kernel")
  }
  assert len(kernels) == 6
  for kernel in kernels.values():
    assert len(kernel) == 8
    assert len({unit.tobytes() for unit in kernel}) == 8
    np.testing.assert_allclose(
      kernel.std(axis=(1, 2, 3, 4)), 0.8796 * 0.09, rtol=0.1
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_a_widened_kernel_repeats_red_green_and_blue(count, short):
  c = config(backbone="mobilenet_v2", depth_multiplier=0.1)
  rgb = build.from_config(c, num_classes=3)
  wide = build.from_config(
    c, num_classes=3, channels=((0.0,) * count, (1.0,) * count)
  )
  old = variables.initial_variables(rgb, seed=0)
  new = variables.inflate(old, wide)
  flat_old, flat_new = map(flax.traverse_util.flatten_dict, (old, new))
  first = variables.first_kernel(wide)
  for path, value in flat_old.items():
    if path != first:
      assert flat_new[path] is value
  kernel, found = np.asarray(flat_old[first]), np.asarray(flat_new[first])
  assert found.dtype == np.float32 and found.shape[2] == count
  if count % 3 == 0 or count == 1:  # equal channels give what they gave
    np.testing.assert_allclose(
      found.sum(2), kernel.sum(2), rtol=1e-5, atol=1e-6
    )
  if count > 1:
    for channel in range(count):
      np.testing.assert_allclose(
        found[:, :, channel] * count, kernel[:, :, channel % 3] * 3, rtol=1e-6
      )
