from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import mobilenet_v3
from deeplax.models.backbones import resnet
from deeplax.models.backbones import xception
from deeplax.ops import backend
from tests.models import networks

NORM = layers.Norm(decay=0.9, eps=1e-3)


def table(plan):
  """`stride/rate` of each unit, in order."""
  return " ".join(f"{unit.stride}/{unit.rate}" for unit in plan)


def test_xception_plan_drops_strides_for_rates():
  for output_stride, expected in (
    # stem, entry 1 2 3, middle, exit 1 2
    (32, "2/1 2/1 2/1 2/1 1/1 2/1 1/1"),
    (16, "2/1 2/1 2/1 2/1 1/1 1/1 1/2"),
    (8, "2/1 2/1 2/1 1/1 1/2 1/2 1/4"),
  ):
    for depth in (41, 65):
      found = table(xception.dilated_units(depth, output_stride))
      assert found == expected, (depth, output_stride)


def test_xception_71_plan_has_strides_in_odd_blocks():
  for output_stride, expected in (
    # stem, entry 1 2 3 4 5, middle, exit 1 2
    (32, "2/1 2/1 1/1 2/1 1/1 2/1 1/1 2/1 1/1"),
    (16, "2/1 2/1 1/1 2/1 1/1 2/1 1/1 1/1 1/2"),
    (8, "2/1 2/1 1/1 2/1 1/1 1/1 1/2 1/2 1/4"),
  ):
    assert table(xception.dilated_units(71, output_stride)) == expected, (
      output_stride
    )


def test_resnet_plan_has_strides_in_last_units():
  for output_stride, expected in (
    (
      32,
      ["2/1 2/1", "1/1 1/1 2/1", "1/1 1/1 1/1 2/1"]
      + ["1/1 1/1 1/1 1/1 1/1 2/1", "1/1 1/2 1/4"],
    ),
    (
      16,
      ["2/1 2/1", "1/1 1/1 2/1", "1/1 1/1 1/1 2/1"]
      + ["1/1 1/1 1/1 1/1 1/1 1/1", "1/2 1/4 1/8"],
    ),
    (
      8,
      ["2/1 2/1", "1/1 1/1 2/1", "1/1 1/1 1/1 1/1"]
      + ["1/2 1/2 1/2 1/2 1/2 1/2", "1/4 1/8 1/16"],
    ),
  ):
    plan = resnet.dilated_units(50, output_stride, multi_grid=(1, 2, 4))
    assert table(plan) == " ".join(expected), output_stride
    longer = resnet.dilated_units(101, output_stride, multi_grid=(1, 2, 4))
    by_name = {unit.name: unit for unit in longer}
    assert len(longer) == 2 + 3 + 4 + 23 + 3
    assert longer[-3:] == plan[-3:], output_stride
    assert by_name["block3_unit23"][1:] == plan[-4][1:], output_stride
    assert by_name["block3_unit22"][1:] == plan[-5][1:], output_stride


def test_mobilenet_plan_drops_strides_for_rates():
  for output_stride, expected in (
    # stem; 16; 24 24; 32 32 32; 64 x4; 96 x3; 160 x3; 320
    (
      32,
      ["2/1", "1/1", "2/1 1/1", "2/1 1/1 1/1", "2/1 1/1 1/1 1/1"]
      + ["1/1 1/1 1/1", "2/1 1/1 1/1", "1/1"],
    ),
    (
      16,
      ["2/1", "1/1", "2/1 1/1", "2/1 1/1 1/1", "2/1 1/1 1/1 1/1"]
      + ["1/1 1/1 1/1", "1/1 1/2 1/2", "1/2"],
    ),
    (
      8,
      ["2/1", "1/1", "2/1 1/1", "2/1 1/1 1/1", "1/1 1/2 1/2 1/2"]
      + ["1/2 1/2 1/2", "1/2 1/4 1/4", "1/4"],
    ),
  ):
    found = table(mobilenet_v2.dilated_units(output_stride))
    assert found == " ".join(expected), output_stride


def test_an_output_stride_outside_the_table_is_refused():
  match = r"output_stride 64 not in \[4, 8, 16, 32\]"
  with pytest.raises(ValueError, match=match):
    mobilenet_v2.dilated_units(64)


def test_a_multi_grid_of_two_rates_is_refused():
  with pytest.raises(ValueError, match="not three rates"):
    resnet.dilated_units(50, 16, multi_grid=(1, 2))


SLIM = {
  "xception": xception.Xception(NORM, depth=41),
  "resnet": resnet.ResNet(NORM, depth=50, multi_grid=(1, 2, 4)),
  "mobilenet": mobilenet_v2.MobileNetV2(NORM, depth_multiplier=0.25),
}


@pytest.mark.parametrize("name", SLIM)
def test_features_at_4_hold_those_at_8_at_16_and_at_32(name, short):
  check_that_fine_features_hold_coarse_ones(SLIM[name])


# 65 = 64 + 1 has a center tap on every pixel that a stride keeps, at each of
# the five strides. Then a strided network computes every second position of
# the one that dilates instead, zeros outside the map included, and nothing
# else: the two are equal but for the order of sums. (Sides that turn even at a
# strided layer with TensorFlow's SAME padding keep the odd positions.)
def check_that_fine_features_hold_coarse_ones(model):
  variables = networks.drawn(model)
  image = np.random.default_rng(1).uniform(-1, 1, (1, 65, 65, 3))
  image = image.astype(np.float32)

  @jax.jit
  def run(variables, image):
    return [
      model.clone(output_stride=stride).apply(variables, image, train=False)[
        "high"
      ]
      for stride in (4, 8, 16, 32)
    ]

  found = list(map(np.asarray, run(variables, image)))
  assert [x.shape[1] for x in found] == [17, 9, 5, 3]
  assert found[-1].std() > 1e-3
  tolerance = 1e-5 * np.abs(found[0]).max()
  for fine, coarse in zip(found, found[1:], strict=False):
    np.testing.assert_allclose(
      fine[:, ::2, ::2], coarse, rtol=0, atol=tolerance
    )


@pytest.mark.parametrize(
  "name", ["xception_71", "resnet_v1_50", "resnet_v1_50_beta", "mobilenet_v2"]
)
def test_one_set_of_parameters_serves_every_output_stride(name, short):
  def traced(stride):
    model = build.BACKBONES[name](norm=NORM, output_stride=stride)
    image = jax.ShapeDtypeStruct((1, 64, 97, 3), jnp.float32)
    out, variables = jax.eval_shape(
      lambda key, x: model.init_with_output(key, x, train=False),
      jax.random.key(0),
      image,
    )
    assert set(out) == {"high", "middle", "low4", "low8"}
    assert out["high"].shape[1:3] == (64 // stride, -(-97 // stride))
    assert out["low4"].shape[1:3] == (16, 25)
    assert out["low8"].shape[1:3] == (8, 13)
    return variables

  at16, at8 = traced(16), traced(8)
  assert at16 == at8
  kernels = jax.tree_util.tree_leaves_with_path(at16["params"])
  assert {path[-1].key for path, _ in kernels} <= {
    *("kernel", "depthwise_kernel"),
    *("scale", "offset"),
  }


# reference/tf_deeplab.md section 2: trainable parameters of fixtures.
@pytest.mark.parametrize(
  ("settings", "expected"),
  [
    ({"backbone": "xception_71"}, 43_477_837),
    pytest.param(
      {"backbone": "resnet_v1_101_beta"}, 45_812_037, marks=networks.SLOW
    ),
    pytest.param(
      {"backbone": "resnet_v1_50", "separable": False, "decoder__kind": "none"},
      39_048_533,
      marks=networks.SLOW,
    ),
  ],
)
def test_parameters_are_as_many_as_published(settings, expected):
  variables, _ = cost.trace(networks.network(**settings), networks.SIZE)
  leaves = jax.tree.leaves(variables["params"])
  assert sum(leaf.size for leaf in leaves) == expected


def test_the_middle_flow_is_stacked_and_trains_each_unit(short, monkeypatch):
  """Also: recomputing it in the backward pass changes no gradient."""
  # Two blocks around it are enough.
  variant = xception.DEPTHS[41]
  variant = variant._replace(blocks=variant.blocks[2:4])
  monkeypatch.setitem(xception.DEPTHS, 41, variant)
  model = xception.Xception(NORM, depth=41)
  variables = networks.drawn(model)
  kernel = variables["params"]["middle_flow"]["separable_conv1"]["pointwise"]
  assert kernel["kernel"].shape == (2, 1, 1, 8, 8)
  image = np.random.default_rng(1).uniform(-1, 1, (2, 33, 33, 3))
  image = image.astype(np.float32)

  @partial(jax.jit, static_argnames="remat")
  def run(variables, image, *, remat=False):
    def loss(params, model):
      out, updated = model.apply(
        {**variables, "params": params},
        image,
        train=True,
        mutable=["batch_stats"],
      )
      return (out["high"] ** 2).sum(), updated["batch_stats"]

    grad = jax.grad(loss, has_aux=True)
    return grad(variables["params"], model.clone(remat=remat))

  grads, stats = run(variables, image)
  remat = run(variables, image, remat=True)
  with backend.chosen(repeated_units="unrolled"):
    unrolled = run(variables, image, remat=True)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads))
  for got in (remat, unrolled):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
        a, b, rtol=1e-4, atol=1e-5 * largest
      ),
      got,
      (grads, stats),
    )
  middle = grads["middle_flow"]["separable_conv1"]["pointwise"]["kernel"]
  assert np.abs(middle).max((1, 2, 3, 4)).min() > 0
  old = variables["batch_stats"]["middle_flow"]["separable_conv3"]["depthwise"]
  new = stats["middle_flow"]["separable_conv3"]["depthwise"]
  moved = np.abs(np.asarray(new["mean"]) - old["mean"])
  assert moved.max(-1).min() > 0


@pytest.mark.parametrize(
  "model",
  [
    mobilenet_v2.MobileNetV2(NORM, depth_multiplier=0.1),
    pytest.param(
      mobilenet_v3.MobileNetV3(NORM, variant="small_seg", depth_multiplier=0.1),
      marks=networks.SLOW,
    ),
    pytest.param(resnet.ResNet(NORM, depth=50), marks=networks.SLOW),
    pytest.param(xception.Xception(NORM, depth=41), marks=networks.SLOW),
  ],
)
def test_units_computed_twice_have_the_same_gradients(model, short):
  variables = networks.drawn(model)
  image = np.random.default_rng(1).uniform(-1, 1, (2, 33, 33, 3))

  def loss(params, model):
    features, updated = model.apply(
      {**variables, "params": params},
      image.astype(np.float32),
      train=True,
      mutable=["batch_stats"],
    )
    return (features["high"] ** 2).sum(), updated["batch_stats"]

  def run(remat):
    grad = jax.grad(loss, has_aux=True)
    other = model.clone(remat=remat)
    text = str(jax.make_jaxpr(lambda p: grad(p, other))(variables["params"]))
    return text.count(" remat"), jax.jit(lambda p: grad(p, other))(
      variables["params"]
    )

  (none, plain), (some, again) = run(False), run(True)
  assert none == 0 and some > 0
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain[0]))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-4, atol=1e-5 * largest
    ),
    again,
    plain,
  )
