from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import cost
from deeplax.models import decoder
from deeplax.models import layers
from deeplax.models import style as style_lib
from tests.models import networks

STYLE = style_lib.Style(layers.Norm(decay=0.9, eps=1e-5))
IMAGE = (65, 49)


def inputs(image=IMAGE):
  rng = np.random.default_rng(0)

  def feature(stride, channels):
    size = decoder.scaled(image, stride)
    return jnp.asarray(rng.standard_normal((2, *size, channels)), jnp.float32)

  low = {"low2": feature(2, 3), "low4": feature(4, 5), "low8": feature(8, 6)}
  return feature(16, 8), low


def build(**fields):
  return decoder.Decoder(
    **{"style": STYLE, "channels": 7, "low_level_channels": 4, **fields}
  )


def start(model, image=IMAGE):
  high, low = inputs(image)

  def init(high, low):
    return model.init(jax.random.key(0), high, low, image, train=False)

  return init, high, low


def shapes(model):
  init, high, low = start(model)
  params = jax.eval_shape(init, high, low)["params"]
  return {
    "/".join(key.key for key in path): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key in ("kernel", "depthwise_kernel")
  }


def test_the_papers_decoder_has_these_kernels():
  assert shapes(decoder.Decoder(STYLE)) == {
    "feature_projection0/kernel": (1, 1, 5, 48),
    "conv0/depthwise/depthwise_kernel": (3, 3, 1, 8 + 48),
    "conv0/pointwise/kernel": (1, 1, 8 + 48, 256),
    "conv1/depthwise/depthwise_kernel": (3, 3, 1, 256),
    "conv1/pointwise/kernel": (1, 1, 256, 256),
  }


@pytest.mark.parametrize(
  ("fields", "expected"),
  [
    # Table 1: the width of the 1x1 convolution on Conv2.
    (
      {"low_level_channels": 16, "convs": 1},
      {
        "feature_projection0/kernel": (1, 1, 5, 16),
        "conv0/kernel": (3, 3, 24, 7),
      },
    ),
    # Table 2: number, width and side of the convolutions.
    (
      {"convs": 3, "channels": 9},
      {
        "feature_projection0/kernel": (1, 1, 5, 4),
        "conv0/kernel": (3, 3, 12, 9),
        "conv1/kernel": (3, 3, 9, 9),
        "conv2/kernel": (3, 3, 9, 9),
      },
    ),
    (
      {"convs": 1, "kernel": 1},
      {
        "feature_projection0/kernel": (1, 1, 5, 4),
        "conv0/kernel": (1, 1, 12, 7),
      },
    ),
    # Table 2, last row: Conv3, then Conv2.
    (
      {"convs": 1, "features": (8, 4)},
      {
        "feature_projection0/kernel": (1, 1, 6, 4),
        "conv0/kernel": (3, 3, 12, 7),
        "feature_projection0_1/kernel": (1, 1, 5, 4),
        "conv0_1/kernel": (3, 3, 11, 7),
      },
    ),
    # decoder_use_sum_merge: the projection is as wide as the convolutions.
    (
      {"convs": 1, "kind": "sum"},
      {
        "feature_projection0/kernel": (1, 1, 5, 7),
        "conv0/kernel": (3, 3, 8, 7),
      },
    ),
  ],
)
def test_every_axis_of_tables_1_and_2_changes_what_it_says(fields, expected):
  assert shapes(build(separable=False, **fields)) == expected


@pytest.mark.parametrize(
  ("features", "stride"), [((4,), 4), ((8, 4), 4), ((4,), 2), ((8, 4, 2), 2)]
)
def test_the_result_lies_at_the_output_stride(features, stride):
  model = build(features=features, output_stride=stride, convs=1)
  init, *features = start(model)
  variables = jax.eval_shape(init, *features)
  for image in ((65, 49), (64, 96), (33, 7), (1, 1)):
    high, low = inputs(image)
    result = jax.eval_shape(
      partial(model.apply, image_size=image, train=False), variables, high, low
    )
    assert result.shape == (2, *decoder.scaled(image, stride), 7), image


def test_the_encoders_features_come_first_in_the_concat():
  model = build(convs=1, separable=False)
  init, high, low = start(model)
  variables = jax.jit(init)(high, low)
  kernel = variables["params"]["conv0"]["kernel"]
  kernel = kernel.at[:, :, : high.shape[-1]].set(0)
  variables["params"]["conv0"]["kernel"] = kernel

  @jax.jit
  def run(high, low):
    return model.apply(variables, high, low, IMAGE, train=False)

  y = run(high, low)
  np.testing.assert_array_equal(y, run(high + 1, low))
  assert not np.array_equal(y, run(high, low | {"low4": low["low4"] + 1}))


def test_a_sum_adds_the_projected_feature_after_the_convolutions():
  model = build(convs=1, kind="sum", separable=False)
  init, high, low = start(model)

  @jax.jit
  def run(high, low):
    variables = init(high, low)
    variables["params"]["conv0"]["kernel"] *= 0
    y, state = model.apply(
      variables,
      high,
      low,
      IMAGE,
      train=False,
      capture_intermediates=lambda m, _: m.name == "feature_projection0",
      mutable=["intermediates"],
    )
    projected = state["intermediates"]["feature_projection0"]["__call__"][0]
    return y, projected

  y, projected = run(high, low)
  np.testing.assert_allclose(y, projected, rtol=1e-5, atol=1e-6)


def test_a_feature_the_backbone_lacks_is_refused_with_those_it_has():
  model = build(features=(2,), output_stride=2)
  init, high, low = start(model)
  del low["low2"]
  with pytest.raises(ValueError, match=r"stride 2;.*\[4, 8\]"):
    jax.eval_shape(init, high, low)


def test_merged_features_cost_their_own_convolutions(short):
  check_merged("mobilenet_v2", 144, 144)


# Channels of Conv3 and Conv2: what the reference takes from each.
@pytest.mark.slow  # 6 s: the above of whole backbones
@pytest.mark.parametrize(
  ("backbone", "conv3", "conv2"),
  [
    ("xception_65", 728, 256),
    ("resnet_v1_101_beta", 512, 256),
    ("mobilenet_v2", 192, 144),
  ],
)
def test_merged_features_are_as_wide_as_the_references(backbone, conv3, conv2):
  check_merged(backbone, conv3, conv2)


def check_merged(backbone, conv3, conv2):
  """v3+ table 2, last row, and the sum of the released code."""

  def count(**settings):
    settings |= {"backbone": backbone, "decoder__separable": False}
    return cost.multiply_adds(networks.network(**settings), networks.SIZE)

  coarse, middle, fine = 3**2, 5**2, 9**2
  none = count(decoder__kind="none") + 256 * 21 * (fine - coarse)
  merged = middle * (conv3 * 48 + 9 * (256 + 48) * 256)
  merged += fine * (conv2 * 48 + 9 * (256 + 48) * 256)
  both = {"decoder__features": (8, 4), "decoder__convs": 1}
  assert count(**both) - none == merged
  added = fine * (conv2 * 256 + 9 * 256 * 256)
  summed = count(decoder__kind="sum", decoder__convs=1)
  assert summed - none == added
