"""MobileNetV3 and MobileNet-EdgeTPU: tables, blocks and published weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax import pretrained
from deeplax.models import activations
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models.backbones import mobilenet_v3
from deeplax.ops import resize
from tests import shared
from tests.models import networks
from tests.models.backbones import test_backbones

NORM = layers.Norm(decay=0.9, eps=1e-3)
INIT = layers.Init()


def network(**settings) -> Any:
  return networks.network(19, **settings)


@pytest.fixture
def few_blocks(monkeypatch):
  """Leave the small network one block or two of each stride."""
  whole = mobilenet_v3.VARIANTS["small_seg"]
  blocks = tuple(whole.blocks[i] for i in (0, 1, 2, 3, 7, 8, 9))
  monkeypatch.setitem(
    mobilenet_v3.VARIANTS, "small_seg", whole._replace(blocks=blocks)
  )


# The published EdgeTPU network: research/deeplab's head without atrous branch.
SLIM = {
  "backbone": "mobilenet_edgetpu",
  "depth_multiplier": 0.75,
  "atrous_rates": (),
  "channels": 128,
  "decoder__kind": "none",
}


def test_plan_drops_strides_for_rates():
  for variant, output_stride, expected in (
    (
      "large_seg",
      32,
      "2/1 1/1 2/1 1/1 2/1 1/1 1/1 2/1 1/1 1/1 1/1 1/1 1/1 2/1 1/1 1/1",
    ),
    (
      "large_seg",
      16,
      "2/1 1/1 2/1 1/1 2/1 1/1 1/1 2/1 1/1 1/1 1/1 1/1 1/1 1/1 1/2 1/2",
    ),
    (
      "large_seg",
      8,
      "2/1 1/1 2/1 1/1 2/1 1/1 1/1 1/1 1/2 1/2 1/2 1/2 1/2 1/2 1/4 1/4",
    ),
    ("small_seg", 32, "2/1 2/1 2/1 1/1 2/1 1/1 1/1 1/1 1/1 2/1 1/1 1/1"),
    ("small_seg", 16, "2/1 2/1 2/1 1/1 2/1 1/1 1/1 1/1 1/1 1/1 1/2 1/2"),
    ("small_seg", 8, "2/1 2/1 2/1 1/1 1/1 1/2 1/2 1/2 1/2 1/2 1/4 1/4"),
    (
      "edgetpu",
      16,
      "2/1 1/1 2/1 1/1 1/1 1/1 2/1 1/1 1/1 1/1 2/1 1/1 1/1 1/1 "
      "1/1 1/1 1/1 1/1 1/1 1/2 1/2 1/2 1/2",
    ),
    (
      "edgetpu",
      8,
      "2/1 1/1 2/1 1/1 1/1 1/1 2/1 1/1 1/1 1/1 1/1 1/2 1/2 1/2 "
      "1/2 1/2 1/2 1/2 1/2 1/4 1/4 1/4 1/4",
    ),
  ):
    units = mobilenet_v3.dilated_units(variant, output_stride)
    found = " ".join(f"{u.stride}/{u.rate}" for u in units)
    assert found == expected, (variant, output_stride)


@pytest.mark.parametrize(
  ("variant", "low4", "low8", "middle", "high"),
  [
    pytest.param("large_seg", 72, 120, 112, 480, marks=networks.SLOW),
    ("small_seg", 16, 88, 48, 288),
    pytest.param("edgetpu", 128, 192, 96, 1280, marks=networks.SLOW),
  ],
)
def test_features_have_the_strides_of_their_names_at_every_output_stride(
  variant, low4, low8, middle, high, few_blocks
):
  trees = []
  for stride in (8, 16, 32):
    model = mobilenet_v3.MobileNetV3(
      NORM, variant=variant, output_stride=stride
    )
    found, variables = jax.eval_shape(
      lambda x, model=model: model.init_with_output(
        jax.random.key(0), x, train=False
      ),
      jax.ShapeDtypeStruct((1, 64, 97, 3), jnp.float32),
    )
    at = [(-(-64 // s), -(-97 // s)) for s in (stride, min(stride, 16))]
    assert {name: x.shape[1:] for name, x in found.items()} == {
      "low4": (16, 25, low4),
      "low8": (8, 13, low8),
      "middle": (*at[1], middle),
      "high": (*at[0], high),
    }
    trees.append(variables)
  assert trees[0] == trees[1] == trees[2]


# The cheapest one, and the one that other tests trace.
FAST = [("small_seg", 0.35), ("small_seg", 1.25), ("edgetpu", 0.75)]


@pytest.mark.parametrize(
  ("variant", "factor"),
  [
    pytest.param(
      variant,
      factor,
      marks=[] if (variant, factor) in FAST else networks.SLOW,
    )
    for variant in sorted(mobilenet_v3.VARIANTS)
    for factor in (0.35, 0.75, 1.25)
  ],
)
def test_a_depth_multiplier_keeps_widths_at_multiples_of_8(variant, factor):
  whole = network(**SLIM)
  backbone = whole.backbone.clone(variant=variant, depth_multiplier=factor)
  convs = cost.trace(whole.clone(backbone=backbone), networks.SIZE)[1]
  widths = {conv.path: conv.shape[-1] for conv in convs}
  found = {p: n for p, n in widths.items() if p[0] == "backbone"}
  assert all(n % 8 == 0 for n in found.values())
  whole = mobilenet_v3.VARIANTS[variant]
  last = found["backbone", "conv_1"]
  if variant == "edgetpu":
    assert last == whole.last
  else:
    assert abs(last - factor * whole.last) <= 4
  stem = found["backbone", "conv"]
  assert 0.9 * factor * whole.stem <= stem <= factor * whole.stem + 8


def test_activations_are_the_papers_with_the_references_constants():
  x = np.linspace(-5, 5, 101, dtype=np.float32)
  inside = np.clip(x + 3, 0, 6)
  np.testing.assert_allclose(
    activations.BY_NAME["hard_sigmoid"](x), inside * 0.16667, rtol=1e-6
  )
  np.testing.assert_allclose(
    activations.BY_NAME["hard_swish"](x), x * inside / 6, rtol=1e-6, atol=1e-7
  )


def test_squeeze_excite_weighs_channels_by_their_means():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 5, 72)).astype(np.float32)
  model: Any = mobilenet_v3.SqueezeExcite(INIT, jnp.float32)
  # 72 / 4 = 18 goes to 24: 16 would be more than a tenth below.
  variables = {
    "params": {
      "squeeze": {
        "kernel": rng.normal(size=(1, 1, 72, 24)).astype(np.float32),
        "bias": rng.normal(size=24).astype(np.float32),
      },
      "excite": {
        "kernel": rng.normal(size=(1, 1, 24, 72)).astype(np.float32),
        "bias": rng.normal(size=72).astype(np.float32),
      },
    }
  }
  squeeze, excite = (
    variables["params"]["squeeze"],
    variables["params"]["excite"],
  )
  y = x.mean((1, 2)) @ squeeze["kernel"][0, 0] + squeeze["bias"]
  y = np.maximum(y, 0) @ excite["kernel"][0, 0] + excite["bias"]
  gate = np.clip(y + 3, 0, 6) * 0.16667
  run = jax.jit(functools.partial(model.apply, train=False))
  found = run(variables, jnp.asarray(x))
  np.testing.assert_allclose(
    found, x * gate[:, None, None], rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize(
  ("changes", "stride", "channels", "added"),
  [
    ({}, 1, 8, True),
    ({"residual": False}, 1, 8, False),
    ({}, 2, 8, False),
    ({}, 1, 16, False),
  ],
)
def test_input_is_added_where_shapes_allow_and_the_block_does(
  changes, stride, channels, added
):
  block = mobilenet_v3.Block(3, 16, channels, stride)._replace(**changes)
  model = mobilenet_v3.InvertedResidual(
    block=block,
    expanded=16,
    channels=channels,
    stride=stride,
    rate=1,
    norm=NORM,
    kernel_init=INIT,
    dtype=jnp.float32,
  )
  x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 8)), "f4")
  shapes: Any = jax.eval_shape(
    lambda x: model.init(jax.random.key(0), x, train=False), x
  )
  variables = networks.filled(shapes)
  project = variables["params"]["project"]
  for name in ("scale", "offset"):
    project[name] = np.zeros_like(project[name])
  run = jax.jit(functools.partial(model.apply, train=False))
  y, filtered = run(variables, x)
  np.testing.assert_array_equal(y, x if added else np.zeros_like(y))
  assert np.asarray(filtered).any()


# As in test_backbones.py; squeeze-and-excite takes its means over more
# positions at a finer stride, so that only networks without it can be equal.
def test_features_at_4_hold_those_at_8_and_so_on_to_32(short, monkeypatch):
  whole = mobilenet_v3.VARIANTS["edgetpu"]
  # Two full convolutions at stride 8: at 4 the second has a rate.
  kept = tuple(whole.blocks[i] for i in (0, 1, 5, 6, 9, 10, 17, 18))
  monkeypatch.setitem(
    mobilenet_v3.VARIANTS, "edgetpu", whole._replace(blocks=kept, last=16)
  )

  model = mobilenet_v3.MobileNetV3(
    NORM, variant="edgetpu", depth_multiplier=0.25
  )
  test_backbones.check_that_fine_features_hold_coarse_ones(model)


@pytest.mark.parametrize(
  "backbone",
  [
    pytest.param("mobilenet_edgetpu", marks=networks.SLOW),
    pytest.param("mobilenet_v3_large_seg", marks=networks.SLOW),
    "mobilenet_v3_small_seg",
  ],
)
def test_every_one_carries_the_whole_v3plus_head_and_decoder(
  backbone, few_blocks
):
  model = network(backbone=backbone, dtype="bfloat16", decoder__features=(8, 4))
  for size in ((1, 1), (33, 70), (64, 64)):
    logits = jax.eval_shape(
      lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0],
      jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8),
    )
    assert (logits.shape, logits.dtype) == ((1, *size, 19), jnp.float32)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"multi_grid": (1, 2, 4)}, "multi_grid .* is for resnet and xception"),
    ({"depth_multiplier": 0.0}, "depth_multiplier 0.0 is not positive"),
    ({"output_stride": 2}, r"2 not in \[4, 8, 16, 32\]"),
  ],
)
def test_what_mobilenet_does_not_have_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    network(backbone="mobilenet_v3_large_seg", **settings)


def test_an_unknown_variant_is_refused():
  model = mobilenet_v3.MobileNetV3(NORM, variant="huge")
  with pytest.raises(ValueError, match="'huge' not in .*edgetpu.*large_seg"):
    model.init(jax.random.key(0), np.zeros((1, 9, 9, 3)), train=False)


def test_published_edgetpu_weights_give_the_published_outputs():
  name = "deeplab_mobilenet_edgetpu_slim_cityscapes_quant"
  with np.load(shared.path(f"weights/{name}.npz")) as file:
    weights = dict(file)
  with np.load(
    shared.path(f"weights/expected/tfjs_cityscapes__{name}.npz")
  ) as f:
    expected = dict(f)
  model = network(**SLIM)
  variables = pretrained.convert_arrays(weights, "tf_deeplab", model=model)

  @jax.jit
  def coarse(variables, images):
    return model.apply(variables, images, train=False, method="coarse")

  image = expected["input_uint8"][None].astype(np.float32)
  height, width = expected["valid_hw"]

  def labels(logits):
    full = resize.resize_bilinear(logits, image.shape[1:3])
    return np.asarray(full)[0, :height, :width].argmax(-1)

  # The quantized network's input is (x - 128) / 128, deeplax's x / 127.5 - 1.
  shifted = (image - 128) / 128 * 127.5 + 127.5
  logits = coarse(variables, shifted)
  error = np.abs(logits[0] - expected["logits_lowres"]).max()
  assert error <= 1e-5 * np.abs(expected["logits_lowres"]).max()
  same = labels(logits) == expected["jax_label"][:height, :width]
  assert same.mean() > 0.9999
  found = labels(coarse(variables, image))
  assert (found == expected["jax_label"][:height, :width]).mean() > 0.999
  # TensorFlow Lite runs it in 8 bits; in float32 it agrees on 0.980.
  assert (found == expected["tflite_label"][:height, :width]).mean() > 0.979
