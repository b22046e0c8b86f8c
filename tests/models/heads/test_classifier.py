"""The head `classifier`: whole ImageNet networks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from deeplax import pretrained
from deeplax.models import build
from deeplax.models import conventions
from deeplax.models import cost
from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models.heads import classifier
from tests import shared
from tests.models import networks


def network(num_classes=1000, **settings) -> Any:
  given = {"head": "classifier", "output_stride": 32, "decoder__kind": "none"}
  return networks.network(num_classes, **{**given, **settings})


# Of the paper's costs; parameters do not depend on it.
SIZE = (224, 224)


@pytest.mark.parametrize(
  ("backbone", "parameters"),
  [
    # torchvision's documentation of its ImageNet weights.
    ("mobilenet_v2", 3_504_872),
    ("resnet_v1_50", 25_557_032),
    pytest.param("resnet_v1_101", 44_549_160, marks=networks.SLOW),
  ],
)
def test_an_imagenet_network_has_the_published_parameters(backbone, parameters):
  variables, _ = cost.trace(network(backbone=backbone), SIZE)
  leaves = jax.tree.leaves(variables["params"])
  assert sum(leaf.size for leaf in leaves) == parameters


def test_mobilenet_v2_costs_the_papers_300m_multiply_adds():
  # arXiv:1801.04381, table 4.
  model = network(backbone="mobilenet_v2")
  assert round(cost.multiply_adds(model, SIZE) / 1e6, -1) == 300


@pytest.mark.parametrize(
  ("factor", "expected"), [(0.35, 1280), (1.0, 1280), (1.4, 1792)]
)
def test_the_last_convolution_is_never_narrower_than_1280(
  factor, expected, short
):
  model = network(backbone="mobilenet_v2", depth_multiplier=factor)
  widths = {c.path: c.shape[-1] for c in cost.trace(model, networks.SIZE)[1]}
  assert widths["backbone", "conv_1"] == expected
  assert all(width % 8 == 0 for p, width in widths.items() if p != ("logits",))


def test_segmentation_leaves_the_last_convolution_out(short):
  model = network(backbone="mobilenet_v2", head="aspp")
  paths = {c.path for c in cost.trace(model, networks.SIZE)[1]}
  assert ("backbone", "conv_1") not in paths
  assert ("backbone", "expanded_conv_7", "project") in paths


# Under the first conventions that have it.
ECOSYSTEMS = {
  backbone: name
  for name, row in reversed(conventions.CONVENTIONS.items())
  for backbone in row.backbones
}


# These differ from others in the number of layers or in their widths.
LARGER = ("101", "_65", "_v3_large", "edgetpu")


# VGG-16 classifies by fc6 and fc7.
@pytest.mark.parametrize(
  "backbone",
  [
    pytest.param(
      name, marks=networks.SLOW if any(x in name for x in LARGER) else []
    )
    for name in sorted({*build.BACKBONES} - {"vgg16"})
  ],
)
def test_every_backbone_gives_one_vector_of_logits_per_image(backbone, short):
  model = network(
    num_classes=7, backbone=backbone, conventions=ECOSYSTEMS[backbone]
  )
  logits = jax.eval_shape(
    lambda x: model.init_with_output(
      jax.random.key(0), x, train=False, method="coarse"
    )[0],
    jax.ShapeDtypeStruct((2, 33, 47, 3), jnp.uint8),
  )
  assert (logits.shape, logits.dtype) == ((2, 1, 1, 7), jnp.float32)


def test_a_call_spreads_the_vector_over_the_image():
  class Backbone(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
      return {"high": layers.ConvNorm(3, name="a")(x, train=train)}

  model = network(num_classes=7).clone(backbone=Backbone())
  image = np.random.default_rng(0).integers(0, 256, (2, 5, 9, 3), np.uint8)

  @jax.jit
  def run(image):
    variables = model.init(jax.random.key(0), image, train=False)
    coarse = model.apply(variables, image, train=False, method="coarse")
    return coarse, model.apply(variables, image, train=False)

  coarse, full = map(np.asarray, run(image))
  assert np.abs(coarse).min() > 0
  np.testing.assert_array_equal(full, np.broadcast_to(coarse, (2, 5, 9, 7)))


def test_the_head_gives_means_and_in_training_drops_some_of_them():
  x = np.random.default_rng(0).normal(size=(2, 3, 5, 400)).astype(np.float32)
  model: Any = classifier.Classifier(
    style_lib.Style(layers.Norm(decay=0.9, eps=1e-3)), dropout=0.2
  )
  means = x.mean((1, 2), keepdims=True)
  found = model.apply({}, jnp.asarray(x), train=False)
  np.testing.assert_allclose(found, means, rtol=0, atol=1e-6)
  dropped = np.asarray(
    model.apply(
      {}, jnp.asarray(x), train=True, rngs={"dropout": jax.random.key(0)}
    )
  )
  kept = dropped != 0
  assert 0.7 < kept.mean() < 0.9
  np.testing.assert_allclose(
    dropped[kept], means[kept] / 0.8, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"decoder__kind": "concat"}, "set model.decoder.kind to 'none'"),
    ({"atrous_rates": (6,)}, r"\(6,\) are for the heads aspp,"),
  ],
)
def test_what_a_classifier_has_no_use_for_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    network(**settings)


def test_published_imagenet_weights_name_what_is_in_a_picture():
  with np.load(shared.path("weights/mobilenet_v2_1.0_224_quant.npz")) as file:
    weights = dict(file)
  model = network(num_classes=1001, backbone="mobilenet_v2")
  variables = pretrained.convert_arrays(weights, "tf_deeplab", model=model)

  @jax.jit
  def run(variables, images):
    logits = model.apply(variables, images, train=False, method="coarse")
    return jax.nn.softmax(jnp.asarray(logits)[0, 0, 0])

  # Classes of ILSVRC 2012 in order of their identifiers, after "background":
  # a chickadee and a Samoyed.
  for image, label in (("bird.bmp", 20), ("dog_segmentation_256.bmp", 259)):
    picture = Image.open(shared.path(f"weights/images/{image}")).convert("RGB")
    pixels = np.asarray(picture.resize(SIZE, Image.Resampling.BILINEAR))
    found = np.asarray(run(variables, pixels[None]))
    assert found.argmax() == label, image
    assert found[label] > 0.9, image
