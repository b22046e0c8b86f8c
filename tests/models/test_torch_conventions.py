"""What the rows of torchvision, smp and timm change in a network."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.inference import probabilities
from deeplax.models import build
from deeplax.models import conventions
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import mobilenet_v3
from deeplax.models.backbones import resnet
from deeplax.models.backbones import xception
from deeplax.ops import backend
from deeplax.ops import resize
from deeplax.settings import defaults
from deeplax.training import losses
from tests.models import networks

NORM = layers.Norm(decay=0.9, eps=1e-5)
PEERS = ("smp", "timm", "torchvision")


def network(
  conventions, backbone="resnet50", output_stride=None, **settings
) -> Any:
  c = defaults.base().model
  c.conventions, c.backbone = conventions, backbone
  c.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in settings.items()}
  )
  return build.from_config(c, num_classes=21, output_stride=output_stride)


def table(plan):
  """`stride/rate` of each unit, in order."""
  return " ".join(f"{unit.stride}/{unit.rate}" for unit in plan)


STEM, FIRST_TWO = "2/1 2/1", "1/1 1/1 1/1 2/1 1/1 1/1 1/1"


@pytest.mark.parametrize(
  ("dilate_from", "output_stride", "expected"),
  [
    # Blocks 3 and 4.
    ("next", 32, "2/1 1/1 1/1 1/1 1/1 1/1 2/1 1/1 1/1"),
    ("next", 16, "2/1 1/1 1/1 1/1 1/1 1/1 1/1 1/2 1/2"),
    ("next", 8, "1/1 1/2 1/2 1/2 1/2 1/2 1/2 1/4 1/4"),
    ("same", 32, "2/1 1/1 1/1 1/1 1/1 1/1 2/1 1/1 1/1"),
    ("same", 16, "2/1 1/1 1/1 1/1 1/1 1/1 1/2 1/2 1/2"),
    ("same", 8, "1/2 1/2 1/2 1/2 1/2 1/2 1/4 1/4 1/4"),
  ],
)
def test_resnet_plan_has_strides_in_first_units(
  dilate_from, output_stride, expected
):
  plan = resnet.dilated_units(
    50, output_stride, strided="first", dilate_from=dilate_from
  )
  assert table(plan) == f"{STEM} {FIRST_TWO} {expected}"


def test_a_unit_that_loses_its_stride_can_have_the_new_rate():
  rates = {unit.name: unit.rate for unit in mobilenet_v2.dilated_units(16)}
  new = {
    u.name: u.rate for u in mobilenet_v2.dilated_units(16, dilate_from="same")
  }
  assert rates["expanded_conv_13"] == 1 and new["expanded_conv_13"] == 2
  assert rates["expanded_conv_14"] == new["expanded_conv_14"] == 2


def test_only_the_old_rate_keeps_the_features_at_every_output_stride(
  monkeypatch,
):
  monkeypatch.setitem(resnet.DEPTHS, 50, (1, 1, 2, 2))
  monkeypatch.setattr(resnet, "WIDTHS", (4, 4, 4, 4))

  def make(output_stride, dilate_from):
    return resnet.ResNet(
      NORM, depth=50, stem="plain", output_stride=output_stride,
      strided="first", pool_padding="symmetric", dilate_from=dilate_from,
    )  # fmt: skip

  variables = networks.drawn(make(16, "next"))
  image = np.random.default_rng(1).normal(size=(1, 65, 65, 3))
  image = image.astype(np.float32)

  @jax.jit
  def run(variables, image):
    return {
      (stride, rate): make(stride, rate).apply(variables, image, train=False)
      for stride in (8, 16)
      for rate in ("next", "same")
    }

  with backend.chosen(dense="library"):
    found = run(variables, image)
  high = {key: np.asarray(out["high"]) for key, out in found.items()}
  kept, largest = high[8, "next"][:, ::2, ::2], np.abs(high[16, "next"]).max()
  np.testing.assert_allclose(kept, high[16, "next"], atol=1e-5 * largest)
  moved = np.abs(high[8, "same"][:, ::2, ::2] - high[16, "same"]).max()
  assert moved > 1e-2 * largest


@pytest.mark.parametrize("peer", PEERS)
def test_images_are_normalized_as_for_the_published_weights(peer):
  # torchvision's transforms work on 0..1.
  mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  if peer != "torchvision":
    row = conventions.get(peer).backbone("xception_65")
    assert row.mean == row.std == (127.5, 127.5, 127.5)
  row = conventions.get(peer).backbone("resnet101")
  np.testing.assert_allclose(np.divide(row.mean, 255), mean, atol=1e-9)
  np.testing.assert_allclose(np.divide(row.std, 255), std, atol=1e-9)


@pytest.mark.parametrize(
  ("peer", "backbone", "norm", "head_norm"),
  [
    ("torchvision", "resnet101", (0.9, 1e-5), (0.9, 1e-5)),
    ("torchvision", "mobilenet_v3_large", (0.99, 1e-3), (0.9, 1e-5)),
    ("smp", "mobilenet_v2", (0.9, 1e-5), (0.9, 1e-5)),
    ("smp", "xception_65", (0.9, 1e-3), (0.9, 1e-5)),
  ],
)
def test_norms_are_the_peers(peer, backbone, norm, head_norm):
  model = network(peer, backbone)
  assert model.backbone.norm == layers.Norm(*norm)
  for part in (model.head, model.decoder):
    assert part.style.norm == layers.Norm(*head_norm)


def rates(*args, **settings):
  return network(*args, **settings).head.rates


@pytest.mark.parametrize("peer", PEERS)
def test_rates_are_those_of_stride_8_at_the_configured_output_stride(peer):
  for stride in (8, 16):
    c = defaults.base().model
    c.conventions, c.backbone, c.output_stride = peer, "resnet50", stride
    model: Any = build.from_config(c, num_classes=2)
    assert model.head.rates == (12, 24, 36)
  # At another output stride they span the same pixels.
  assert rates(peer, output_stride=8) == (24, 48, 72)
  assert rates(peer, atrous_rates=(6, 12, 18)) == (6, 12, 18)


def test_dropout_is_the_conventions_unless_it_is_given():
  for name, rate in (("tf_deeplab", 0.1), ("torchvision", 0.5), ("smp", 0.5)):
    backbone = "resnet_v1_50" if name == "tf_deeplab" else "resnet50"
    model = network(name, backbone)
    assert model.head.dropout == rate
    model = network(name, backbone, dropout=0.0)
    assert model.head.dropout == 0.0


def test_the_convolution_after_the_projection_is_separable_before_a_decoder():
  for kind, separable in (("none", False), ("concat", True)):
    model = network("smp", decoder__kind=kind)
    model = model.clone(backbone=networks.Tiny())
    paths = {"/".join(c.path) for c in cost.trace(model, cost.CENTERED)[1]}
    assert ("head/refine" in paths) != separable
    assert ("head/refine/depthwise" in paths) == separable
    # It reads what the projection gives, so it widens the field of view.
    without = model.clone(head=model.head.clone(refine=None))
    assert cost.field_of_view(model) > cost.field_of_view(without)


def test_no_norm_stands_between_the_halves_of_smps_separable_pairs():
  model = network("smp", "mobilenet_v2").clone(backbone=networks.Tiny())
  variables, _ = cost.trace(model, networks.SIZE)
  for part in ("head", "decoder"):
    pairs = [
      pair for pair in variables["params"][part].values() if "depthwise" in pair
    ]
    assert pairs
    for pair in pairs:
      assert set(pair["depthwise"]) == {"depthwise_kernel"}
      assert set(pair["pointwise"]) == {"kernel", "scale", "offset"}


@pytest.mark.parametrize(
  ("module", "fields", "message"),
  [
    (resnet.ResNet, {"strided": "middle"}, "strided 'middle' not in"),
    (resnet.ResNet, {"pool_padding": "valid"}, "pool_padding 'valid' not in"),
    (resnet.ResNet, {"low_level": "input"}, "low_level 'input' not in"),
    (resnet.ResNet, {"dilate_from": "last"}, "dilate_from 'last' not in"),
    (
      mobilenet_v2.MobileNetV2,
      {"low_level": "norm"},
      "low_level 'norm' not in",
    ),
    (mobilenet_v3.MobileNetV3, {"dilate_from": "no"}, "dilate_from 'no' not"),
    (xception.Xception, {"low_level": "output"}, "low_level 'output' not in"),
  ],
)
def test_unknown_conventions_of_a_backbone_are_refused(module, fields, message):
  model = module(norm=NORM, **fields)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      lambda x: model.init(jax.random.key(0), x, train=False),
      jax.ShapeDtypeStruct((1, 33, 33, 3), np.float32),
    )


class Shrunk(nn.Module):
  """Every fourth pixel as logits."""

  align_corners: bool

  def coarse(self, images, *, train: bool):
    return images[:, ::4, ::4] / 255


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1.5, 0.5])
def test_predictions_are_resized_as_the_network_resizes(align_corners, scale):
  image = np.random.default_rng(0).uniform(0, 255, (1, 37, 49, 3))
  image = image.astype(np.float32)

  @functools.partial(jax.jit, static_argnums=1)
  def sized(x, size):
    return resize.resize_bilinear(x, size, align_corners=align_corners)

  scaled = sized(image, tuple(int((n - 1) * scale + 1) for n in (37, 49)))
  logits = scaled[:, ::4, ::4] / 255
  if scale < 1:
    logits = sized(logits, (10, 13))
  found = probabilities.predict_probabilities(
    Shrunk(align_corners), {}, image, scales=(scale,)
  )
  np.testing.assert_allclose(
    found, jax.nn.softmax(sized(logits, (37, 49))), atol=1e-6
  )


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_loss_is_of_logits_resized_as_the_network_resizes(align_corners):
  rng = np.random.default_rng(0)
  logits, second = (
    jnp.asarray(rng.normal(size=(1, *size, 3)), jnp.float32)
    for size in ((5, 6), (3, 4))
  )
  labels = jnp.asarray(rng.integers(0, 3, (1, 17, 23)), jnp.int32)
  settings = losses.Settings(auxiliary_weight=0.5, align_corners=align_corners)
  total, _ = jax.jit(functools.partial(losses.of_batch, settings=settings))(
    logits, second, labels, step=jnp.int32(0)
  )
  want = 0.0
  for weight, x in ((1.0, logits), (0.5, second)):
    full = jax.jit(
      lambda x: resize.resize_bilinear(x, (17, 23), align_corners=align_corners)
    )(x)
    taken = jnp.take_along_axis(
      jax.nn.log_softmax(full), labels[..., None], axis=-1
    )
    want -= weight * taken.sum()
  np.testing.assert_allclose(total, want, rtol=1e-5)
