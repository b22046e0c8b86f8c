"""VGG-16 with holes and the heads of DeepLab v1 and v2."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ablation import load
from deeplax.models import build
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models import variables as variables_lib
from deeplax.models.backbones import vgg
from deeplax.models.heads import large_fov
from deeplax.ops import pooling
from deeplax.ops import resize
from tests import test_configs
from tests.models import networks

NORM = layers.Norm(decay=0.0, eps=1e-5)


def network(num_classes=21, **settings) -> Any:
  given = {
    "conventions": "torchvision",
    "backbone": "vgg16",
    "output_stride": 8,
    "head": "large_fov",
    "channels": 4096,
    "decoder__kind": "none",
  }
  return networks.network(num_classes, **{**given, **settings})


# v2, table 1: kernel, rate, field of view, millions of parameters.
TABLE_1 = [
  (7, 4, 4096, 224, "134.3"),
  (4, 4, 4096, 128, "65.1"),
  (4, 8, 4096, 224, "65.1"),
  (3, 12, 1024, 224, "20.5"),
]


@pytest.mark.parametrize(("kernel", "rate", "channels", "field", "m"), TABLE_1)
def test_table_1_of_v2_has_these_parameters_and_fields(
  kernel, rate, channels, field, m
):
  model = network(fc6_kernel=kernel, atrous_rates=(rate,), channels=channels)
  assert f"{cost.parameters(model) / 1e6:.1f}" == m
  assert cost.field_of_view(model, zero_padded=True) == field


@pytest.mark.parametrize(
  ("kernel", "field", "own"), [(7, 404, 224), (4, 308, 128)]
)
def test_the_strided_network_sees_what_v1_says(kernel, field, own):
  model = network(output_stride=32, fc6_kernel=kernel, atrous_rates=(1,))
  assert cost.field_of_view(model) == field
  assert cost.field_of_view(model, zero_padded=True) == own


def test_rates_of_fc6_follow_the_output_stride_and_span_the_same_pixels():
  for kernel in large_fov.KERNELS:
    spans = {
      stride * rate * (kernel - 1)
      for stride, (rate,) in large_fov.fc6_rates(kernel).items()
    }
    assert spans == {8 * large_fov.SPAN}
  assert network(output_stride=16, fc6_kernel=3).head.rate == 6
  assert network(fc6_kernel=7, output_stride=32).head.rate == 1
  aspp = network(head="aspp_sum", channels=1024)
  assert aspp.head.rates == (6, 12, 18, 24)


def features(stride, *, pool, image):
  """Every layer's output, with weights from the layer's name."""
  model = vgg.VGG16(NORM, output_stride=stride, pool=pool)
  shapes = jax.eval_shape(
    lambda key, x: model.init(key, x, train=False), jax.random.key(0), image
  )
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.normal(0, 0.25, x.shape).astype(np.float32), shapes
  )
  output, state = jax.jit(
    functools.partial(model.apply, train=False, capture_intermediates=True)
  )(variables, image)
  found = {
    k: v["__call__"][0]
    for k, v in state["intermediates"].items()
    if isinstance(v, dict)
  }
  return found | {"high": output["high"]}


# 65 = 2 * 32 + 1: the centers of all windows fall on one grid.
@pytest.mark.parametrize("pool", vgg.POOLS)
@pytest.mark.parametrize("stride", [8, 16])
def test_dense_features_hold_the_strided_networks_up_to_conv5_3(
  short, pool, stride
):
  image = np.random.default_rng(1).normal(size=(1, 65, 65, 3))
  image = image.astype(np.float32)
  dense = features(stride, pool=pool, image=image)
  strided = features(32, pool=pool, image=image)
  for name, coarse in strided.items():
    if name == "high":
      continue
    step = (dense[name].shape[1] - 1) // (coarse.shape[1] - 1)
    np.testing.assert_allclose(
      dense[name][:, ::step, ::step], coarse, rtol=1e-4, atol=1e-5
    )
  assert (dense["conv5_3"].shape[1] - 1) * stride == 64
  # pool5 reads neighbors. At 16 its map is still the strided network's; at 8
  # it is finer, so that the neighbors are others.
  step = (dense["high"].shape[1] - 1) // (strided["high"].shape[1] - 1)
  assert step == 32 // stride
  gap = np.abs(dense["high"][:, ::step, ::step] - strided["high"]).max()
  gap /= np.abs(strided["high"]).max()
  assert gap < 1e-5 if stride == 16 else gap > 1e-2
  expected = pooling.max_pool(dense["conv5_3"], pool, stride=1, padding="ceil")
  np.testing.assert_array_equal(dense["high"], expected)


def test_the_sum_of_branches_is_the_sum_of_their_scores(short):
  model = network(head="aspp_sum", channels=8, num_classes=3)
  variables = variables_lib.initial_variables(model, 0)
  image = np.random.default_rng(0).uniform(0, 255, (1, 33, 33, 3))
  run = jax.jit(functools.partial(model.apply, train=False, method="coarse"))
  whole = run(variables, image)
  params = variables["params"]
  total = 0
  for place in range(4):
    head = {
      name: jax.tree.map(jnp.zeros_like, part)
      if name.startswith("logits") and name != f"logits{place}"
      else part
      for name, part in params["head"].items()
    }
    one = {"params": {**params, "head": head}}
    total += run(one, image)
  np.testing.assert_allclose(whole, total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("size", "conventions"),
  [
    ((33, 33), "torchvision"),
    *((size, "caffe") for size in ((33, 33), (1, 1), (40, 71), (64, 33))),
  ],
)
def test_branches_of_v1_join_the_head_at_any_size(short, size, conventions):
  model = network(
    conventions=conventions,
    channels=8,
    decoder__kind="branches",
    decoder__channels=4,
  )
  image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
  logits, variables = jax.eval_shape(
    lambda key, x: model.init_with_output(key, x, train=False),
    jax.random.key(0),
    image,
  )
  assert logits.shape == (1, *size, 21)
  assert variables["params"]["logits"]["kernel"].shape == (1, 1, 8 + 5 * 4, 21)


def test_branches_of_v1_add_640_channels():
  model = network(
    conventions="caffe",
    channels=1024,
    decoder__kind="branches",
    decoder__channels=128,
  )
  params = cost.trace(model, networks.SIZE)[0]["params"]
  assert params["logits"]["kernel"].shape == (1, 1, 1024 + 640, 21)
  assert set(params["decoder"]) == {
    f"{name}_{conv}"
    for name in ("image", "pool1", "pool2", "pool3", "pool4")
    for conv in ("conv1", "conv2")
  }


# The authors' train.prototxt of LargeFOV, MSc-LargeFOV and DeepLab (4x4).
POOL5A = {
  ("v1_vgg16_largefov", ""): True,
  ("v1_vgg16_largefov", "msc"): True,
  ("v1_vgg16_largefov", "4x4"): False,
  ("v1_vgg16_largefov", "7x7"): False,
  ("v2_vgg16", "large_fov"): True,
  ("v2_vgg16", ""): False,
  ("v2_vgg16", "aspp_s"): False,
}


@pytest.mark.parametrize("cell", POOL5A)
def test_fc6_of_large_fov_reads_averages_of_pool5(cell):
  config = test_configs.get(*cell).model
  config.channels = 2
  head: Any = build.from_config(config, num_classes=3).head
  one = np.zeros((1, 61, 61, 1), np.float32)
  one[0, 30, 30] = 1

  def seen(one):
    variables = head.init(jax.random.key(0), one, train=False)
    variables = jax.tree.map(jnp.ones_like, variables)
    return head.apply(variables, one, train=False)[0, ..., 0]

  # Biases aside, a pixel reaches fc6 through its taps, or all around them.
  y = np.asarray(jax.jit(seen)(one))
  reached = np.count_nonzero(y != y[0, 0])
  taps = {
    ((i - head.kernel // 2) * rate, (j - head.kernel // 2) * rate)
    for rate in getattr(head, "rates", None) or (head.rate,)
    for i, j in np.ndindex(head.kernel, head.kernel)
  }
  assert reached == (9 if POOL5A[cell] else 1) * len(taps)


def test_averages_before_fc6_widen_the_field_of_view():
  v1 = test_configs.get("v1_vgg16_largefov").model
  model = build.from_config(v1, num_classes=21)
  v1.pool5a = False
  without = build.from_config(v1, num_classes=21)
  assert cost.field_of_view(model) - cost.field_of_view(without) == 2 * 8
  assert cost.field_of_view(model, zero_padded=True) == 224


@pytest.mark.parametrize("name", ["v1_field_of_view", "v2_table1", "v2_table3"])
def test_rows_of_large_fov_are_the_released_network(name):
  for row in load.load(name).rows:
    assert row.config is not None
    model = row.config.model
    large = (model.head, model.fc6_kernel) == ("large_fov", 3)
    assert model.pool5a == large, row


@pytest.mark.parametrize("head", ["aspp_sum", "aspp"])
def test_a_head_without_fc6_has_no_averages_before_it(head):
  with pytest.raises(ValueError, match="set it to False") as caught:
    network(head=head, pool5a=True)
  assert "model.pool5a" in str(caught.value)
  assert network(head=head, pool5a=False, channels=8)


def test_vgg_has_no_classifier_of_means():
  with pytest.raises(ValueError, match="vgg16 classifies by fc6 and fc7"):
    network(head="classifier")


@pytest.mark.slow  # compiles three scales
def test_the_score_over_several_scales_is_the_largest(short):
  settings = {"channels": 8, "num_classes": 3, "head": "aspp_sum"}
  one = network(conventions="caffe", **settings)
  three = network(conventions="caffe", input_scales=(0.75, 0.5), **settings)
  variables = variables_lib.initial_variables(one, 0)
  image = np.random.default_rng(0).uniform(0, 255, (1, 33, 49, 3))
  image = image.astype(np.float32)
  coarse = jax.jit(
    functools.partial(one.apply, variables, train=False, method="coarse")
  )
  fused, parts = jax.jit(
    functools.partial(
      three.apply, variables, train=False, method="coarse_and_auxiliary"
    )
  )(image)
  expected = []
  for size, part in zip(((33, 49), (25, 37), (17, 25)), parts, strict=True):
    small = resize.resize_bilinear(image, size)
    alone = coarse(small)
    np.testing.assert_allclose(part, alone, rtol=1e-4, atol=1e-4)
    expected.append(resize.resize_bilinear(alone, (5, 7)))
  np.testing.assert_allclose(
    fused, np.max(expected, axis=0), rtol=1e-4, atol=1e-4
  )
  assert variables_lib.shapes(three) == variables_lib.shapes(one)
  assert cost.field_of_view(three) == cost.field_of_view(one)
  counts = [
    cost.multiply_adds(one, size) for size in ((33, 33), (25, 25), (17, 17))
  ]
  assert cost.multiply_adds(three, (33, 33)) == sum(counts)


@pytest.mark.parametrize("scales", [(0.0,), (1.0,), (0.5, 2.0)])
def test_input_scales_are_between_0_and_1(scales):
  with pytest.raises(ValueError, match="between 0 and 1"):
    network(input_scales=scales)
