"""v3's cascade, the dense prediction cell, and Xception with and without the
changes of v3+: as parts, and as whole networks of eight channels."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models.backbones import resnet
from deeplax.models.backbones import xception
from deeplax.models.heads import cascade
from deeplax.models.heads import dpc
from deeplax.ops import backend
from deeplax.settings import defaults
from tests.models.backbones import test_backbones

NORM = layers.Norm(decay=0.9, eps=1e-3)
CLASSES = 3
# Values are tested here, not speed: unoptimised code compiles twice as fast.
COMPILER = {"xla_backend_optimization_level": 0}
NO_DECODER = {"decoder.kind": "none"}
CASCADE: dict[str, Any] = {
  "backbone": "resnet_v1_50_beta",
  "head": "cascade",
  "multi_grid": (1, 2, 1),
  **NO_DECODER,
}
DPC: dict[str, Any] = {"backbone": "xception_41", "head": "dpc", **NO_DECODER}
# The means over the map would differ between output strides.
ASPP = {"backbone": "resnet_v1_50_beta", "image_pooling": False, **NO_DECODER}
PLAIN = {"backbone": "xception_41", "atrous_rates": ()}
PLAIN |= {"image_pooling": False, **NO_DECODER}
PAPER = {
  **PLAIN,
  "xception.after_depthwise": "norm_relu",
  "xception.middle_units": 1,
}
BEFORE = {
  **PLAIN,
  "xception.after_depthwise": "none",
  "xception.downsample": "max_pool",
  "xception.middle_units": 1,
}
MOBILENET = {"backbone": "mobilenet_v2", "depth_multiplier": 0.1}
VARIANTS = {
  "aspp": ASPP,
  "cascade": CASCADE,
  "dpc": DPC,
  "xception as the paper says": PAPER,
  "xception before the paper": BEFORE,
}


def network(num_classes=CLASSES, output_stride=None, **settings) -> Any:
  c: Any = defaults.base().model
  c.update_from_flattened_dict(settings)
  return build.from_config(
    c, num_classes=num_classes, output_stride=output_stride
  )


@pytest.fixture
def slim(monkeypatch):
  """Networks of few channels, and XLA's own convolutions: faster to compile."""
  test_backbones.slim_xception(monkeypatch)
  monkeypatch.setitem(resnet.DEPTHS, 50, (3, 4, 1, 3))
  monkeypatch.setattr(resnet, "WIDTHS", (4, 4, 4, 4))
  monkeypatch.setattr(backend, "prefers_shifted", lambda: False)
  cost.trace.cache_clear()  # kept by fields, which do not tell the widths
  yield partial(network, channels=8)
  cost.trace.cache_clear()


def image(*size, batch=1):
  rng = np.random.default_rng(1)
  return rng.integers(0, 256, (batch, *size, 3)).astype(np.float32)


def coarse(model, variables, images):
  return model.apply(variables, images, train=False, method="coarse")


# 97 = 96 + 1: as in tests/models/backbones/test_backbones.py, but large enough
# for the first rates of each head to read something.
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_at_output_stride_4_hold_those_at_8_and_at_16(name, slim):
  models = [slim(output_stride=os, **VARIANTS[name]) for os in (4, 8, 16)]
  variables = test_backbones.drawn(models[0])
  pixels = image(97, 97)

  @partial(jax.jit, compiler_options=COMPILER)
  def run(variables, pixels):
    return [coarse(model, variables, pixels) for model in models]

  found = list(map(np.asarray, run(variables, pixels)))
  assert [x.shape[1] for x in found] == [25, 13, 7]
  assert found[-1].std() > 1e-3
  for fine, rough in zip(found, found[1:], strict=False):
    np.testing.assert_allclose(
      fine[:, ::2, ::2], rough, rtol=0, atol=1e-4 * np.abs(found[0]).max()
    )


@pytest.mark.parametrize(
  "name", ["cascade", "dpc", "xception before the paper"]
)
def test_mirrored_kernels_mirror_the_logits(name, slim):
  model = slim(**VARIANTS[name])
  variables = test_backbones.drawn(model)

  def mirror(path, x):
    return x[..., ::-1, :, :] if "kernel" in path[-1].key else x

  mirrored = jax.tree_util.tree_map_with_path(mirror, variables)
  pixels = image(33, 65)
  run = jax.jit(partial(coarse, model), compiler_options=COMPILER)
  logits = np.asarray(run(variables, pixels))
  flipped = np.asarray(run(mirrored, pixels[:, :, ::-1]))
  scale = np.abs(logits).max()
  np.testing.assert_allclose(flipped[:, :, ::-1], logits, atol=1e-4 * scale)
  assert np.abs(flipped - logits).max() > 1e-3 * scale


@pytest.mark.parametrize("size", [(1, 1), (64, 97)])
@pytest.mark.parametrize(
  "name", ["cascade", "dpc", "xception before the paper"]
)
def test_any_image_size_gives_logits_of_its_own_size(name, size, slim):
  model = slim(output_stride=4, **VARIANTS[name])
  shape = jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0],
    jax.ShapeDtypeStruct((1, *size, 3), np.uint8),
  )
  assert shape.shape == (1, *size, CLASSES)


def rates(model):
  """Rates of the head's 3x3 convolutions by module, in order."""
  return [
    (conv.path[1], conv.module.rate)
    for conv in cost.trace(model, (33, 33))[1]
    if conv.path[0] == "head" and conv.module.kernel == 3
  ]


def test_rates_of_the_cascade_are_those_of_v3_figure_3():
  # At 16, block4 has rate 2 and each block after it twice the one before.
  found = rates(network(**{**CASCADE, "multi_grid": (1, 2, 4)}))
  assert found == [
    (f"block{block}_unit{unit}", 2 ** (block - 3) * grid)
    for block in (5, 6, 7)
    for unit, grid in ((1, 1), (2, 2), (3, 4))
  ]
  half = rates(network(output_stride=32, **CASCADE))
  assert [rate for _, rate in half] == [2, 4, 2, 4, 8, 4, 8, 16, 8]


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_each_block_of_the_cascade_is_a_copy_of_block4(blocks):
  model = network(cascade_blocks=blocks, **CASCADE)
  params = jax.tree.map(np.shape, cost.trace(model, (33, 33))[0]["params"])
  head = params.get("head", {})
  assert len(head) == 3 * blocks
  for block in range(5, 5 + blocks):
    for unit in (2, 3):
      name = f"block{block}_unit{unit}"
      assert head[name] == params["backbone"][f"block4_unit{unit}"]
    # Its input is as wide as its output already: no convolution beside it.
    assert head[f"block{block}_unit1"] == head[f"block{block}_unit2"]
  assert model.head.norm == model.backbone.norm
  assert model.head.kernel_init == model.backbone.kernel_init


def test_the_published_cell_is_wired_as_published():
  model = network(**DPC)
  assert model.head.cell == (
    (-1, (1, 6)),
    (0, (18, 15)),
    (1, (6, 3)),
    (0, (1, 1)),
    (0, (6, 21)),
  )
  assert rates(model) == [
    (f"branch{i}", pair) for i, (_, pair) in enumerate(model.head.cell)
  ]
  at8 = network(output_stride=8, **DPC).head.cell
  assert at8[4] == (0, (12, 42))


def test_branches_read_what_the_cell_says_and_are_all_joined():
  cell = ((-1, (1, 2)), (0, (2, 1)), (-1, (3, 1)), (1, (1, 1)))
  head = dpc.DPC(norm=NORM, cell=cell, channels=4)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((1, 9, 7, 6)), jnp.float32)
  variables = jax.jit(partial(head.init, train=False))(jax.random.key(0), x)

  @jax.jit
  def run(x):
    return head.apply(
      variables,
      x,
      train=False,
      capture_intermediates=lambda m, _: (m.name or "").startswith("branch"),
      mutable=["intermediates"],
    )

  y, state = run(x)
  found = {
    name: value["__call__"][0]
    for name, value in state["intermediates"].items()  # pyright: ignore
  }

  def alone(module, name, x):
    own = {key: tree[name] for key, tree in variables.items()}
    return jax.jit(partial(module.apply, train=False))(own, x)

  for place, (source, rate) in enumerate(cell):
    conv = layers.SeparableConv(
      4, rate=rate, norm=NORM, activation_between="relu", activation="relu"
    )
    read = x if source < 0 else found[f"branch{source}"]
    np.testing.assert_allclose(
      alone(conv, f"branch{place}", read),
      found[f"branch{place}"],
      rtol=1e-4,
      atol=1e-5,
    )
  joined = jnp.concatenate([found[f"branch{i}"] for i in range(4)], axis=-1)
  project = layers.ConvNorm(4, norm=NORM, activation="relu")
  np.testing.assert_allclose(
    alone(project, "projection", joined), y, rtol=1e-4, atol=1e-5
  )


def test_the_cells_furthest_way_is_added_up():
  published = network(**DPC).head.cell
  # Rows 1 + 18 + 6 = 25, columns 6 + 21 = 27.
  assert dpc.furthest(published) == 27
  assert dpc.furthest(((-1, (4, 1)), (0, (5, 2)), (-1, (1, 8)))) == 9


def test_the_field_of_view_of_a_cell_is_its_furthest_way():
  two, one = (
    cost.field_of_view(network(**DPC, cell=cell))
    for cell in (((-1, (1, 2)), (0, (3, 2))), ((-1, (4, 1)),))
  )
  assert two == one
  wider = cost.field_of_view(network(**DPC, cell=((-1, (1, 6)),)))
  assert wider - one == 2 * (6 - 4) * 16


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
  variables: Any = module.init(jax.random.key(0), x, train=False)
  names = {"separable_conv1", "separable_conv2", "shortcut"}
  assert set(variables["params"]) == names
  shortcut = variables["params"]["shortcut"]
  shortcut["kernel"] = jnp.zeros_like(shortcut["kernel"])
  y, low = jax.jit(partial(module.apply, train=False))(variables, x)
  pads = ((rate, rate), (rate, rate), (0, 0))
  low = np.pad(np.asarray(low)[0], pads, constant_values=-np.inf)
  windows = [
    low[i * rate :, j * rate :][:9, :7][::stride, ::stride]
    for i in range(3)
    for j in range(3)
  ]
  np.testing.assert_array_equal(y[0], np.max(windows, axis=0))


def test_counts_of_xception_follow_its_keys():
  whole = network(21)
  assert cost.parameters(whole) == 41_055_413  # the reference's graph
  relu = network(21, **{"xception.after_depthwise": "norm_relu"})
  for measure in (cost.parameters, cost.field_of_view):
    assert measure(relu) == measure(whole)
  # A middle flow of 8 is what sets 41 layers apart from 65.
  short = network(21, **{"xception.middle_units": 8})
  assert cost.parameters(short) == 28_108_661
  # Without the third convolution of the blocks that have a stride.
  pooled = network(21, **{"xception.downsample": "max_pool"})
  left_out = sum(9 * w + w * w + 2 * 2 * w for w in (128, 256, 728, 1024))
  assert cost.parameters(whole) - cost.parameters(pooled) == left_out
  assert cost.field_of_view(pooled) == cost.field_of_view(whole)
  # Without a norm's scale and offset behind each depthwise convolution.
  bare = network(21, **{"xception.after_depthwise": "none"})
  channels = sum(
    np.prod(conv.shape[:-4], dtype=int) * conv.shape[-1]
    for conv in cost.trace(whole, (33, 33))[1]
    if conv.module.depthwise and conv.path[0] == "backbone"
  )
  assert cost.parameters(whole) - cost.parameters(bare) == 2 * channels
  size = (513, 513)
  assert cost.multiply_adds(bare, size) == cost.multiply_adds(whole, size)


TWO_FEATURES = {"decoder.features": (8, 4), "decoder.convs": 1}
SUM = {"decoder.kind": "sum", "decoder.convs": 1}
BACKBONES = ("xception_41", "resnet_v1_50_beta", "mobilenet_v2")


# Channels of Conv3 and Conv2: what the reference takes from each.
@pytest.mark.parametrize(
  ("backbone", "conv3", "conv2"),
  [
    ("xception_65", 728, 256),
    ("resnet_v1_101_beta", 512, 256),
    ("mobilenet_v2", 192, 144),
  ],
)
def test_merged_features_cost_their_own_convolutions(backbone, conv3, conv2):
  """v3+ table 2, last row, and the sum of the released code."""

  def count(**settings):
    settings |= {"decoder.separable": False}
    model = network(21, backbone=backbone, **settings)
    return cost.multiply_adds(model, (513, 513))

  coarse, middle, fine = 33**2, 65**2, 129**2
  none = count(**NO_DECODER) + 256 * 21 * (fine - coarse)
  merged = middle * (conv3 * 48 + 9 * (256 + 48) * 256)
  merged += fine * (conv2 * 48 + 9 * (256 + 48) * 256)
  assert count(**TWO_FEATURES) - none == merged
  added = fine * (conv2 * 256 + 9 * 256 * 256)
  assert count(**SUM) - none == added


@pytest.mark.slow  # 60 s: six networks compile
@pytest.mark.parametrize("kind", [TWO_FEATURES, {**SUM, **TWO_FEATURES}])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_under_a_merging_decoder_trains(backbone, kind, slim):
  settings = MOBILENET if backbone == "mobilenet_v2" else {"backbone": backbone}
  settings = {"decoder.channels": 8, "atrous_rates": (1,), **settings, **kind}
  check_trains(slim(**settings))


@pytest.mark.slow  # 40 s: four networks compile
@pytest.mark.parametrize("name", ["cascade", "dpc", *list(VARIANTS)[3:]])
def test_every_parameter_of_a_variant_trains(name, slim):
  check_trains(slim(**VARIANTS[name]))


def check_trains(model):
  variables = test_backbones.drawn(model)

  @partial(jax.jit, compiler_options=COMPILER)
  def gradients(params, pixels):
    def loss(params):
      logits, _ = model.apply(
        {**variables, "params": params},
        pixels,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
      )
      return (
        logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)
      ).sum()

    return jax.grad(loss)(params)

  found = gradients(variables["params"], image(33, 33, batch=2))
  for path, leaf in jax.tree_util.tree_leaves_with_path(found):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


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
    network(backbone=backbone, **{f"xception.{key}": value})


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"xception.after_depthwise": "relu"}, "'relu' not in .*norm_relu"),
    ({"xception.downsample": "conv"}, "'conv' not in .*max_pool"),
    ({"xception.middle_units": 0}, "middle_units 0 is not 1 or more"),
    ({"head": "cascade"}, "ResNet's last block; xception_65 is none"),
    (
      {**CASCADE, "cascade_blocks": 4},
      r"cascade_blocks 4 not in \[0, 1, 2, 3\]",
    ),
    ({**CASCADE, "atrous_rates": (6,)}, "'cascade' has no atrous branch"),
    ({"head": "dpc", "cell": ()}, "no branch"),
    ({"head": "dpc", "cell": ((0, (1, 1)),)}, "branch 0 reads 0"),
    ({"head": "dpc", "cell": ((-1, (0, 1)),)}, r"rates \(0, 1\) of branch 0"),
    ({"head": "dpc", "cell": ((-1, 6),)}, "is not .*such as"),
    ({"head": "dpc", "cell": (1, 6)}, "is not .*such as"),
    ({"head": "dpc", "output_stride": 32}, "rate 1, .* is not whole at 32"),
  ],
)
def test_settings_that_make_no_network_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    network(**settings)


def test_atrous_rates_at_output_stride_4_are_twice_those_at_8():
  for given in (None, (6, 12, 18)):
    c = defaults.base().model
    c.atrous_rates = given
    model: Any = build.from_config(c, num_classes=2, output_stride=4)
    assert model.head.rates == (24, 48, 72)
  assert network(output_stride=4).head.rates == (24, 48, 72)
  assert cascade.NATIVE_STRIDE // 4 == resnet.plan(50, 4)[-1].rate
