"""Whole networks of few channels and layers with v3's cascade, the dense
prediction cell, and Xception with and without the changes of v3+."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import cost
from deeplax.models.backbones import resnet
from deeplax.models.heads import cascade
from tests.models import networks
from tests.models.networks import SLOW
from tests.models.networks import config
from tests.models.networks import network

CLASSES = 3
# Values are tested here, not speed: unoptimized code compiles twice as fast.
COMPILER = {"xla_backend_optimization_level": 0}
NO_DECODER = {"decoder__kind": "none"}
CASCADE: dict[str, Any] = {
  "backbone": "resnet_v1_50_beta",
  "head": "cascade",
  "multi_grid": (1, 2, 1),
  **NO_DECODER,
}
# The means over the map would differ between output strides.
ASPP = {"backbone": "resnet_v1_50_beta", "image_pooling": False, **NO_DECODER}
XCEPTION = {"backbone": "xception_41", "xception__middle_units": 1}
XCEPTION |= NO_DECODER
PLAIN = {**XCEPTION, "atrous_rates": (), "image_pooling": False}
PAPER = {**PLAIN, "xception__after_depthwise": "norm_relu"}
BEFORE = {
  "xception__after_depthwise": "none",
  "xception__downsample": "max_pool",
}
VARIANTS = {
  "cascade of one block": {**CASCADE, "cascade_blocks": 1},
  "dpc on xception before the paper": {**XCEPTION, **BEFORE, "head": "dpc"},
  "cascade": CASCADE,
  "aspp": ASPP,
  "dpc": {"backbone": "xception_41", "head": "dpc", **NO_DECODER},
  "xception as the paper says": PAPER,
  "xception before the paper": {**PLAIN, **BEFORE},
}
# One of each backbone, each head of this file and the changes of v3+.
FAST = tuple(VARIANTS)[:2]
EACH = [
  name if name in FAST else pytest.param(name, marks=SLOW) for name in VARIANTS
]


def slim(output_stride=None, **settings) -> Any:
  """Return a network of few channels; its layers are few under `short`."""
  c = config(channels=8, **settings)
  return build.from_config(c, num_classes=CLASSES, output_stride=output_stride)


def image(*size, batch=1):
  rng = np.random.default_rng(1)
  return rng.integers(0, 256, (batch, *size, 3)).astype(np.float32)


def coarse(model, variables, images):
  return model.apply(variables, images, train=False, method="coarse")


# 97 = 96 + 1: as in tests/models/backbones/test_backbones.py, but large enough
# for the first rates of each head to read something.
@pytest.mark.parametrize("name", EACH)
def test_logits_at_output_stride_4_hold_those_at_8_and_at_16(name, short):
  models = [slim(output_stride=os, **VARIANTS[name]) for os in (4, 8, 16)]
  variables = networks.drawn(models[0])
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


@pytest.mark.parametrize("name", EACH)
def test_mirrored_kernels_mirror_the_logits(name, short):
  model = slim(output_stride=4, **VARIANTS[name])
  variables = networks.drawn(model)

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
@pytest.mark.parametrize("name", EACH)
def test_any_image_size_gives_logits_of_its_own_size(name, size, short):
  model = slim(output_stride=4, **VARIANTS[name])
  shape = jax.eval_shape(
    partial(model.apply, train=False),
    cost.trace(model, networks.SIZE)[0],
    jax.ShapeDtypeStruct((1, *size, 3), np.uint8),
  )
  assert shape.shape == (1, *size, CLASSES)


TWO_FEATURES = {"decoder__features": (8, 4), "decoder__convs": 1}
SUM = {"decoder__kind": "sum", "decoder__convs": 1}
BACKBONES = ("xception_41", "resnet_v1_50_beta", "mobilenet_v2")


MOBILENET = {"backbone": "mobilenet_v2", "depth_multiplier": 0.1}


@pytest.mark.slow  # 60 s: six networks compile
@pytest.mark.parametrize("kind", [TWO_FEATURES, {**SUM, **TWO_FEATURES}])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_under_a_merging_decoder_trains(backbone, kind, short):
  settings = MOBILENET if backbone == "mobilenet_v2" else {"backbone": backbone}
  settings = {"decoder__channels": 8, "atrous_rates": (1,), **settings, **kind}
  check_trains(slim(**settings))


@pytest.mark.slow  # 40 s: five networks compile
@pytest.mark.parametrize("name", sorted({*VARIANTS} - {"aspp", FAST[0]}))
def test_every_parameter_of_a_variant_trains(name, short):
  check_trains(slim(**VARIANTS[name]))


def check_trains(model):
  variables = networks.drawn(model)

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


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"xception__after_depthwise": "relu"}, "'relu' not in .*norm_relu"),
    ({"xception__downsample": "conv"}, "'conv' not in .*max_pool"),
    ({"xception__middle_units": 0}, "middle_units 0 is not 1 or more"),
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
    model = slim(output_stride=4, atrous_rates=given)
    assert model.head.rates == (24, 48, 72)
  assert network(output_stride=4).head.rates == (24, 48, 72)
  assert cascade.NATIVE_STRIDE // 4 == resnet.dilated_units(50, 4)[-1].rate
