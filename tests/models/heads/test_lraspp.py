"""LR-ASPP on MobileNetV3 against the reference's outputs, and its settings."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import lraspp_mobilenet_v3
from deeplax.models import build
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models import variables as variables_lib
from deeplax.models.heads import aspp
from deeplax.models.heads import image_pooling
from deeplax.models.heads import lraspp
from tests.fixtures import tf_rule
from tests.models import golden
from tests.models import networks

# Of the largest value of each array; float noise is some 2e-5 of it.
TOLERANCE = 1e-4
FIXTURES = ("mobilenet_v3_large_seg_os16", "mobilenet_v3_large_seg_os32")
SIZES = ((129, 97), (257, 257))
# Arrays of a fixture's first size: the module whose output they are.
MODULES = {
  "encoder_ch8": ("backbone", "conv_1"),
  "aspp_out_ch8": ("head",),
  "aspp0.Relu_ch8": ("head", "aspp0"),
  "image_pooling.mul_ch8": ("head", "image_pooling"),
  "decoder.feature_projection0.BiasAdd_ch8": ("decoder", "feature_projection0"),
  "low_level_ch8": ("backbone", "expanded_conv_5", "depthwise"),
  "decoder_out_ch8": ("decoder",),
}


def config(arg="", **settings):
  c = lraspp_mobilenet_v3.get_config(arg).model
  c.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in settings.items()}
  )
  return c


def network(arg="", num_classes=19, **settings) -> Any:
  return build.from_config(config(arg, **settings), num_classes=num_classes)


@functools.lru_cache(maxsize=1)
def weights(name):
  """Fixture and variables: the same for every size and pooling window."""
  fixture = golden.load(name)
  return fixture, golden.variables(network(), fixture)


def check(name, size):
  fixture, variables = weights(name)
  height, width = size
  manifest = fixture.manifest
  crop = manifest["image_pooling_crop_size_by_size"][f"{height}x{width}"]
  stride = manifest["flags"]["image_pooling_stride"]
  model = network(
    output_stride=manifest["output_stride"],
    image_pooling_crop=tuple(crop),
    image_pooling_stride=tuple(int(s) for s in stride),
  )

  def wanted(module, method):
    return method == "coarse" or (
      method == "__call__" and module.path in MODULES.values()
    )

  @jax.jit
  def run(variables, image):
    full, state = model.apply(
      variables,
      image,
      train=False,
      capture_intermediates=wanted,
      mutable=["intermediates"],
    )
    return full, state["intermediates"]

  image = tf_rule.image(height, width)
  full, found = jax.tree.map(np.asarray, run(variables, image))
  prefix = f"{height}x{width}/"
  for key, expected in fixture.arrays.items():
    if not key.startswith(prefix):
      continue
    key = key.removeprefix(prefix)
    if key == "argmax":
      best = np.take_along_axis(
        full, expected[..., None].astype(np.int64), axis=-1
      )
      assert (full.max(-1) - best[..., 0]).max() <= 2 * TOLERANCE * full.max()
      continue
    if key == "logits":
      got = found["coarse"][0]
    elif key == "upsampled_stride3":
      step = manifest["tensors"][f"{height}x{width}"]["upsampled_subsample"]
      got = full[:, ::step, ::step]
    else:
      got = found
      for part in MODULES[key]:
        got = got[part]
      got = got["__call__"][0][..., ::8]
    assert got.shape == expected.shape, key
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE, f"{key}: {error:.1e} of the largest value"


def test_a_small_image_gives_the_references_outputs():
  check(FIXTURES[0], SIZES[0])


@pytest.mark.slow  # 13 s: compiles three networks
@pytest.mark.parametrize(
  ("name", "size"),
  [(name, size) for name in FIXTURES for size in SIZES][1:],
)
def test_every_output_stride_and_size_gives_the_references_outputs(name, size):
  check(name, size)


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures_hold_the_sizes_checked_here(name):
  manifest = golden.load(name).manifest
  assert [tuple(size) for size in manifest["sizes"]] == list(SIZES)


# research/deeplab's graphs; the model zoo's checkpoints.
@pytest.mark.parametrize(
  ("arg", "expected"),
  [("", 1_507_198), pytest.param("small", 468_830, marks=networks.SLOW)],
)
def test_parameters_are_as_many_as_the_references(arg, expected):
  shapes = variables_lib.shapes(network(arg))
  sizes = (math.prod(x) for path, x in shapes.items() if path[0] == "params")
  assert sum(sizes) == expected


def test_the_sum_is_of_class_scores_and_has_no_further_layer():
  paths = {conv.path: conv for conv in cost.trace(network(), networks.SIZE)[1]}
  last = [path for path in paths if path[0] != "backbone"]
  assert last == [
    ("head", "aspp0"),
    ("head", "image_pooling"),
    ("decoder", "feature_projection0"),
    ("decoder", "conv0"),
  ]
  for path in last[2:]:
    conv = paths[path]
    assert conv.shape[-1] == 19 and conv.module.use_bias
    assert conv.module.norm is None and conv.module.activation is None
    assert conv.size_out == (5, 5)  # before it is resized, at stride 8


@pytest.mark.parametrize(
  ("kind", "expected"),
  [
    ("none", {"backbone", "head", "logits"}),
    ("concat", {"backbone", "head", "decoder", "logits"}),
  ],
)
def test_other_decoders_follow_the_head_as_they_do_elsewhere(
  kind, expected, short
):
  model = network(backbone="mobilenet_v2", decoder__kind=kind)
  variables, _ = cost.trace(model, networks.SIZE)
  assert set(variables["params"]) == expected


def test_any_image_size_gives_float32_logits_of_that_size(short):
  # MobileNetV3 at any size: tests/models/backbones/test_mobilenet_v3.py.
  model = network(backbone="mobilenet_v2", dtype="bfloat16", num_classes=5)
  for size in ((1, 1), (2, 31), (33, 70), (64, 64)):
    logits = jax.eval_shape(
      lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0],
      jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8),
    )
    assert (logits.shape, logits.dtype) == ((1, *size, 5), jnp.float32)


@pytest.mark.parametrize(
  ("output_stride", "window"), [(32, (25, 25)), (16, (49, 49)), (8, (97, 97))]
)
@pytest.mark.parametrize("head", ["lraspp", "aspp"])
def test_the_pooling_window_keeps_its_pixels_at_every_output_stride(
  head, output_stride, window
):
  # The training crop of 769; the paper's 49x49 at output stride 16.
  model: Any = build.from_config(
    config(head=head), num_classes=19, output_stride=output_stride
  )
  assert model.head.pool_window == window
  assert model.head.pool_stride == (4, 5)


def test_pooling_is_a_mean_over_each_window():
  x = np.random.default_rng(0).normal(size=(2, 9, 12, 3)).astype(np.float32)
  expected = np.stack(
    [
      np.stack(
        [x[:, i : i + 4, j : j + 5].mean((1, 2)) for j in range(0, 8, 3)], 1
      )
      for i in range(0, 6, 2)
    ],
    1,
  )
  found = image_pooling.average_pool(jnp.asarray(x), (4, 5), (2, 3))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", [None, (9, 12), (50, 50)])
def test_a_window_as_large_as_the_map_is_the_whole_map(window):
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 12, 3)), "f4")
  np.testing.assert_allclose(
    image_pooling.average_pool(x, window, (4, 5)),
    x.mean((1, 2), keepdims=True),
    rtol=0,
    atol=1e-6,
  )


NORM = layers.Norm(decay=0.9, eps=1e-3)
STYLE = style_lib.Style(NORM)


@pytest.fixture
def head_case():
  """A head, its variables, an input and its parts computed by NumPy."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 7, 6)).astype(np.float32)
  draw = {
    "kernel": lambda shape: rng.normal(size=shape).astype(np.float32),
    "bias": lambda shape: rng.normal(size=shape).astype(np.float32),
  }
  aspp0 = {
    "kernel": draw["kernel"]((1, 1, 6, 4)),
    "scale": np.ones(4, np.float32),
    "offset": draw["bias"](4),
  }
  gate = {"kernel": draw["kernel"]((1, 1, 6, 4)), "bias": draw["bias"](4)}
  variables = {
    "params": {"aspp0": aspp0, "image_pooling": gate},
    "batch_stats": {
      "aspp0": {"mean": np.zeros(4, "f4"), "var": np.ones(4, "f4")}
    },
  }
  plain = x @ aspp0["kernel"][0, 0] / np.sqrt(1 + NORM.eps) + aspp0["offset"]
  scores = x.mean((1, 2), keepdims=True) @ gate["kernel"][0, 0] + gate["bias"]
  weights = np.clip(scores + 3, 0, 6) * 0.16667
  return x, variables, np.maximum(plain, 0), weights


def test_the_head_is_a_1x1_convolution_weighed_by_the_pooled_image(head_case):
  x, variables, plain, weights = head_case
  model: Any = lraspp.LRASPP(STYLE, channels=4)
  found = model.apply(variables, jnp.asarray(x), train=False)
  np.testing.assert_allclose(found, plain * weights, rtol=1e-4, atol=1e-5)


def test_without_image_pooling_nothing_is_weighed(head_case):
  x, variables, plain, _ = head_case
  model: Any = lraspp.LRASPP(STYLE, channels=4, image_pooling=False)
  kept = variables | {"params": {"aspp0": variables["params"]["aspp0"]}}
  found = model.apply(kept, jnp.asarray(x), train=False)
  np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)


def test_aspp_pools_over_windows_too():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 9, 6)), "f4")
  whole = aspp.ASPP(STYLE, rates=(), channels=4)
  init = functools.partial(whole.init, train=False)
  variables = networks.filled(
    jax.eval_shape(init, jax.random.key(0), x), seed=1
  )

  @functools.partial(jax.jit, static_argnums=0)
  def pooled(window, x):
    model = whole.clone(pool_window=window, pool_stride=(1, 4))
    _, state = model.apply(
      variables,
      x,
      train=False,
      capture_intermediates=lambda module, _: module.name == "image_pooling",
      mutable=["intermediates"],
    )
    found: Any = state["intermediates"]["image_pooling"]["__call__"][0]
    return found

  found = pooled((5, 5), x)
  assert found.shape == (1, 1, 2, 4)
  for place, part in enumerate((x[:, :, :5], x[:, :, 4:])):
    np.testing.assert_allclose(
      found[:, :, place], pooled(None, part)[:, :, 0], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"atrous_rates": (6, 12)}, r"\(6, 12\) are for the heads aspp,.*to \(\)"),
    ({"image_pooling_crop": (769,)}, r"crop \(769,\) is not two numbers"),
    ({"image_pooling_crop": (0, 9)}, r"crop \(0, 9\) is not two numbers"),
    ({"image_pooling_stride": (4, 0)}, r"stride \(4, 0\) is not two"),
    ({"channels": 0}, "channels 0 is not 1 or more"),
    ({"decoder__features": (4,)}, r"\(4,\) are not .*output_stride 8"),
  ],
)
def test_settings_it_cannot_take_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    network(**settings)
