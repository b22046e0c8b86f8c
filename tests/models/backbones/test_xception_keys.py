"""Xception with and without the changes of v3+."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import cost
from deeplax.models import layers
from deeplax.models.backbones import xception
from tests.models import networks
from tests.models.networks import network

# One convolution after the backbone.
BARE = {"atrous_rates": (), "image_pooling": False, "decoder__kind": "none"}
NORM = layers.Norm(decay=0.9, eps=1e-3)


def truth(x, params, stats, *, normed, relu, last_relu, first_relu):
  """A separable convolution at rate 1 in NumPy, norms and ReLUs as told."""

  def norm(y, name):
    mean, var = stats[name]["mean"], stats[name]["var"]
    scale, offset = params[name]["scale"], params[name]["offset"]
    return (y - mean) / np.sqrt(var + NORM.eps) * scale + offset

  if first_relu:
    x = np.maximum(x, 0)
  padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
  kernel = params["depthwise"]["depthwise_kernel"][:, :, 0]
  y = np.einsum("hwcij,ijc->hwc", windows, kernel)
  y = norm(y, "depthwise") if normed else y
  y = np.maximum(y, 0) if relu else y
  y = norm(y @ params["pointwise"]["kernel"][0, 0], "pointwise")
  return np.maximum(y, 0) if last_relu else y


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("after", xception.AFTER_DEPTHWISE)
def test_what_follows_a_depthwise_convolution_is_what_the_key_says(
  after, inner
):
  block = xception.Block("block", (4, 5, 6), "none", 1, inner=inner)
  module = xception.XceptionModule(
    block=block,
    stride=1,
    rates=(1, 1, 1),
    norm=NORM,
    kernel_init=layers.Init(),
    dtype=jnp.float32,
    after_depthwise=after,
  )
  rng = np.random.default_rng(0)
  x = rng.standard_normal((1, 5, 6, 3)).astype(np.float32)
  shapes = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, train=False), x
  )
  variables = jax.tree.map(
    lambda leaf: rng.uniform(-1, 1, leaf.shape).astype(np.float32), shapes
  )
  variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
  y = x[0].astype(np.float64)
  for name in ("separable_conv1", "separable_conv2", "separable_conv3"):
    y = truth(
      y,
      variables["params"][name],
      variables["batch_stats"][name],
      normed=after != "none",
      # The released code's last block is as the paper's text already.
      relu=after == "norm_relu" or (after == "norm" and inner),
      last_relu=inner,
      first_relu=not inner,
    )
  found, _ = jax.jit(partial(module.apply, train=False))(variables, x)
  np.testing.assert_allclose(found[0], y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stride", "rate"), [(2, 1), (1, 1), (1, 2)])
def test_max_pooling_takes_the_place_of_the_third_convolution(stride, rate):
  module = xception.XceptionModule(
    block=xception.Block("block", (4, 5, 5), "conv", 2),
    stride=stride,
    rates=(rate, rate, rate),
    norm=NORM,
    kernel_init=layers.Init(),
    dtype=jnp.float32,
    downsample="max_pool",
  )
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((1, 9, 7, 3)), jnp.float32)
  shapes: Any = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, train=False), x
  )
  variables = jax.tree.map(
    lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32), shapes
  )
  names = {"separable_conv1", "separable_conv2", "shortcut"}
  assert set(variables["params"]) == names
  shortcut = variables["params"]["shortcut"]
  for leaf in ("kernel", "offset"):
    shortcut[leaf] = np.zeros_like(shortcut[leaf])
  stats = variables["batch_stats"]["shortcut"]
  stats["mean"] = np.zeros_like(stats["mean"])
  y, low = jax.jit(partial(module.apply, train=False))(variables, x)
  pads = ((rate, rate), (rate, rate), (0, 0))
  low = np.pad(np.asarray(low)[0], pads, constant_values=-np.inf)
  windows = [
    low[i * rate :, j * rate :][:9, :7][::stride, ::stride]
    for i in range(3)
    for j in range(3)
  ]
  np.testing.assert_array_equal(y[0], np.max(windows, axis=0))


def test_counts_of_xception_follow_its_keys(short):
  network = partial(networks.network, backbone="xception_65", **BARE)
  whole = network()
  size = cost.CENTERED
  relu = network(xception__after_depthwise="norm_relu")
  for measure in (cost.parameters, cost.field_of_view):
    assert measure(relu) == measure(whole)
  # Three of each of the middle flow's layers, 8 channels wide.
  more = network(xception__middle_units=8)
  units = 8 - xception.DEPTHS[65].middle
  unit = 3 * (9 * 8 + 8 * 8 + 2 * 2 * 8)
  assert cost.parameters(more) - cost.parameters(whole) == units * unit
  # Without the third convolution of the four blocks that have a stride.
  pooled = network(xception__downsample="max_pool")
  left_out = 4 * (9 * 8 + 8 * 8 + 2 * 2 * 8)
  assert cost.parameters(whole) - cost.parameters(pooled) == left_out
  assert cost.field_of_view(pooled) == cost.field_of_view(whole)
  # Without a norm's scale and offset behind each depthwise convolution.
  bare = network(xception__after_depthwise="none")
  channels = sum(
    np.prod(conv.shape[:-4], dtype=int) * conv.shape[-1]
    for conv in cost.trace(whole, size)[1]
    if conv.module.depthwise and conv.path[0] == "backbone"
  )
  assert cost.parameters(whole) - cost.parameters(bare) == 2 * channels
  assert cost.multiply_adds(bare, size) == cost.multiply_adds(whole, size)


def test_a_middle_flow_of_8_is_what_sets_41_layers_apart_from_65():
  depths = xception.DEPTHS
  assert depths[65].middle == 16
  assert depths[65]._replace(middle=8) == depths[41]


@pytest.mark.parametrize("backbone", ["resnet_v1_101_beta", "mobilenet_v2"])
@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("after_depthwise", "none"),
    ("middle_units", 8),
    ("downsample", "max_pool"),
  ],
)
def test_a_key_of_xception_is_refused_elsewhere(key, value, backbone):
  match = rf"model.xception.{key} {value} is for xception .*{backbone} needs"
  with pytest.raises(ValueError, match=match):
    network(backbone=backbone, **{f"xception__{key}": value})
