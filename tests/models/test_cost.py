"""Against the counts of the reference's graph, 513x513 and 21 classes.

The numbers are tensorflow/models research/deeplab under TensorFlow 2.21: the
sum over its convolutions, with the output sizes of the layers ("true") and with
those that SpaceToBatch executes ("paper").
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from deeplax.models import build
from deeplax.models import cost
from deeplax.models import deeplab
from deeplax.models import heads
from deeplax.models import layers

RESNET = {"backbone": "resnet_v1_101_beta", "multi_grid": (1, 2, 4)}
DENSE = {"separable": False, "decoder.separable": False}
NO_DECODER = {"decoder.kind": "none"}
ZOO = {"backbone": "mobilenet_v2", "atrous_rates": (), **NO_DECODER}
VOC = ((513, 513), 21)
CITYSCAPES = ((1025, 2049), 19)


def network(settings, num_classes=21):
  c = common.base().model
  c.update_from_flattened_dict(settings)
  return build.from_config(c, num_classes=num_classes)


@pytest.mark.parametrize(
  ("settings", "data", "true", "paper"),
  [
    # v3+ table 5: 54.17B with the profiler's additions and poolings.
    ({}, VOC, 54_035_303_024, 54_049_219_184),
    # Table 3, output stride 8 and no decoder: 276.18B.
    (
      {**RESNET, **DENSE, **NO_DECODER, "output_stride": 8},
      VOC,
      252_252_117_952,
      275_940_039_616,
    ),
    ({**RESNET}, VOC, 65_167_513_456, 67_031_007_088),
    # Model zoo: 2.75B, and 418.64B on Cityscapes.
    (ZOO, VOC, 2_740_709_056, 2_742_445_696),
    ({}, CITYSCAPES, 418_375_681_136, 418_446_072_944),
  ],
)
def test_both_conventions_equal_the_references_counts(
  settings, data, true, paper
):
  size, num_classes = data
  model = network(settings, num_classes)
  assert cost.multiply_adds(model, size) == true
  assert cost.multiply_adds(model, size, convention="paper") == paper


@pytest.mark.slow  # 12 s: traces 18 networks
@pytest.mark.parametrize(
  ("settings", "true", "paper"),
  [
    # Table 3.
    (
      {**RESNET, **DENSE, **NO_DECODER, "output_stride": 32},
      51_406_633_920,
      52_246_543_296,
    ),
    (
      {**RESNET, **DENSE, "output_stride": 32},
      73_169_910_720,
      74_009_820_096,
    ),
    ({**RESNET, **DENSE, **NO_DECODER}, 76_052_470_720, 80_834_763_712),
    ({**RESNET, **DENSE}, 97_811_446_720, 102_593_739_712),
    (
      {**RESNET, **DENSE, "output_stride": 8},
      273_994_234_816,
      297_682_156_480,
    ),
    (
      {**RESNET, **DENSE, "backbone": "resnet_v1_101"},
      90_673_404_352,
      95_455_697_344,
    ),
    # Table 5.
    ({**DENSE, **NO_DECODER}, 64_920_260_288, 67_852_975_808),
    (NO_DECODER, 51_277_686_464, 51_291_602_624),
    (DENSE, 86_679_236_288, 89_611_951_808),
    ({"decoder.separable": False}, 73_036_662_464, 73_050_578_624),
    (
      {**DENSE, **NO_DECODER, "output_stride": 8},
      227_039_944_896,
      240_674_165_712,
    ),
    ({**DENSE, "output_stride": 8}, 248_782_061_760, 262_416_282_576),
    ({"output_stride": 8}, 176_851_524_720, 176_963_385_216),
    ({"output_stride": 32}, 44_916_787_824, 44_918_723_184),
    ({"backbone": "xception_41"}, 40_012_398_128, 40_026_314_288),
    ({"backbone": "xception_71"}, 66_068_012_856, 66_081_929_016),
    # Model zoo.
    ({**ZOO, "output_stride": 8}, 8_825_853_632, 8_840_043_968),
    ({**ZOO, "depth_multiplier": 0.5}, 867_496_704, 868_365_024),
  ],
)
def test_every_published_network_has_the_references_counts(
  settings, true, paper
):
  model = network(settings)
  assert cost.multiply_adds(model, (513, 513)) == true
  assert cost.multiply_adds(model, (513, 513), convention="paper") == paper


def test_an_unknown_convention_is_refused_by_name():
  with pytest.raises(ValueError, match=r"'flops' not in \['true', 'paper'\]"):
    cost.multiply_adds(network(ZOO), (33, 33), convention="flops")


class Single(nn.Module):
  """One 3x3 convolution from 3 to 10 channels."""

  separable: bool
  rate: int = 1

  @nn.compact
  def coarse(self, images, *, train):
    init = layers.Init()
    conv = heads.convolution(
      10,
      kernel=3,
      rate=self.rate,
      separable=self.separable,
      norm=layers.Norm(decay=0.9, eps=1e-5),
      conv_init=init,
      depthwise_init=init,
      pointwise_init=init,
      dtype=jnp.float32,
      name="conv",
    )
    return conv(images, train=train)


@pytest.mark.parametrize("rate", [1, 2, 6])
def test_separable_3x3_from_3_to_10_channels_costs_57_for_270(rate):
  for separable, weights in ((False, 270), (True, 57)):
    single: Any = Single(separable, rate)
    _, convs = cost.trace(single, (12, 24))
    assert sum(np.prod(conv.shape) for conv in convs) == weights
    assert cost.multiply_adds(single, (12, 24)) == 12 * 24 * weights


@pytest.mark.parametrize(
  ("backbone", "expected"),
  [
    # Araujo et al., Computing Receptive Fields of Convolutional Neural
    # Networks (Distill 2019): 483 and 1027.
    ("resnet_v1_50", 483),
    ("resnet_v1_101", 1027),
  ],
)
def test_field_of_view_of_a_bare_resnet_is_the_published_one(
  backbone, expected
):
  settings = {**ZOO, "backbone": backbone, "output_stride": 32}
  assert cost.field_of_view(network(settings)) == expected


def averaging(model):
  """Variables that make a network a chain of weighted means."""
  variables = build.initial_variables(model, 0)

  def value(path, x):
    if path[-1].key == "depthwise_kernel":
      return jnp.full_like(x, 1 / (x.shape[0] * x.shape[1]))
    if path[-1].key == "kernel":
      return jnp.full_like(x, 1 / np.prod(x.shape[:-1]))
    return x

  return jax.tree_util.tree_map_with_path(value, variables)


def test_field_of_view_is_where_the_gradient_is_not_zero():
  class Backbone(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
      x = layers.ConvNorm(2, kernel=3, stride=4, name="a")(x, train=train)
      y = layers.ConvNorm(2, kernel=3, stride=4, name="b")(x, train=train)
      y = layers.ConvNorm(2, kernel=3, rate=2, name="c")(y, train=train)
      return {"low4": x, "high": y}

  whole = network({"image_pooling": False, "channels": 8})
  assert whole.decoder is not None
  model = deeplab.DeepLab(
    backbone=Backbone(),
    head=whole.head.clone(rates=(1, 3), channels=2),
    decoder=whole.decoder.clone(channels=2, low_level_channels=2),
    num_classes=1,
  )
  expected = cost.field_of_view(model)
  side = 257
  assert 1 < expected < side
  variables = averaging(model)

  def centre(images):
    coarse = partial(model.apply, train=False, method="coarse")
    logits = jnp.asarray(coarse(variables, images))
    assert logits.shape[1] == (side - 1) // 4 + 1
    return logits[0, logits.shape[1] // 2, logits.shape[2] // 2, 0]

  images = jnp.full((1, side, side, 3), 200.0)
  seen = np.asarray(jax.jit(jax.grad(centre))(images)) != 0
  rows = np.flatnonzero(seen.any(axis=(0, 2, 3)))
  assert (rows[0], rows[-1]) == (
    side // 2 - expected // 2,
    side // 2 + expected // 2,
  )
