"""Published networks: the classes are those that their own program gives."""

import functools
from functools import partial

import jax
import numpy as np
from PIL import Image
import pytest

from deeplax import pretrained
from deeplax.data import spec
from deeplax.models import build
from deeplax.ops import resize
from deeplax.settings import defaults
from deeplax.settings import published
from tests import shared

# Settings, classes, and how often the class is that of the original: always
# for the float network; those of 8 bits round every activation, and the worst
# picture of some differs by this much.
NETWORKS = {
  "deeplabv3_257_mv_gpu": (
    {"backbone": "mobilenet_v2", "depth_multiplier": 0.5, "output_stride": 8},
    21,
    1.0,
  ),
  "deeplabv3_mnv2_dm05_pascal_quant": (
    {"backbone": "mobilenet_v2", "depth_multiplier": 0.5},
    21,
    0.913,
  ),
  "deeplabv3_mnv2_pascal_quant": ({"backbone": "mobilenet_v2"}, 21, 0.977),
  "deeplab_mobilenet_edgetpu_slim_cityscapes_quant": (
    {
      "backbone": "mobilenet_edgetpu",
      "depth_multiplier": 0.75,
      "channels": 128,
    },
    19,
    0.979,
  ),
}
FLOAT, *QUANTIZED = NETWORKS
# The published network that each is of.
ROWS = {
  "deeplabv3_257_mv_gpu": "mobilenetv2_dm05_coco_voc_trainaug",
  "deeplabv3_mnv2_dm05_pascal_quant": "mobilenetv2_dm05_coco_voc_trainaug",
  "deeplabv3_mnv2_pascal_quant": "mobilenetv2_coco_voc_trainaug",
  "deeplab_mobilenet_edgetpu_slim_cityscapes_quant": (
    "edgetpu_slim_cityscapes_trainfine"
  ),
  "mobilenet_v2_1.0_224_quant": "mobilenet_v2_imagenet",
}


@functools.lru_cache(maxsize=1)
def network(name):
  """Return the model and its variables."""
  settings, num_classes, _ = NETWORKS[name]
  config = defaults.base().model
  config.update(settings)
  config.atrous_rates = ()
  config.decoder.kind = "none"
  model = build.from_config(config, num_classes=num_classes)
  with np.load(shared.path("weights") / f"{name}.npz") as file:
    arrays = dict(file)
  return model, pretrained.convert_arrays(arrays, "tf_deeplab", model=model)


def test_a_published_network_says_so_if_its_real_weights_are_checked_here():
  rows = published.NETWORKS
  assert {name for name in rows if rows[name].checked} == set(ROWS.values())
  for name, (settings, num_classes, _) in NETWORKS.items():
    row = rows[ROWS[name]]
    assert spec.SPECS[row.data or ""].num_classes == num_classes
    # One set of parameters serves all output strides.
    known = row.settings | {"output_stride": settings.get("output_stride", 16)}
    assert settings.items() <= known.items(), name


def pictures(name):
  """Yield (image [1, h, w, 3], slices without its padding, expected arrays)."""
  found = sorted(shared.path("weights/expected").glob(f"*__{name}.npz"))
  assert found
  for path in found:
    with np.load(path) as file:
      expected = dict(file)
    height, width = expected["valid_hw"]
    yield expected["input_uint8"][None], (slice(height), slice(width)), expected


@partial(jax.jit, static_argnums=0)
def coarse_logits(model, variables, image):
  return model.apply(variables, image, train=False, method="coarse")


def run(model, variables, image):
  """Return the coarse logits and the classes at the image's size."""
  coarse = coarse_logits(model, variables, image)
  full = resize.resize_bilinear(coarse, image.shape[1:3])
  return coarse, np.asarray(full).argmax(-1)[0]


def assert_equal(model, variables, name):
  """Assert that logits and classes are right; yield these and what is known."""
  for image, valid, expected in pictures(name):
    coarse, classes = run(model, variables, image)
    low = resize.resize_bilinear(coarse, expected["logits_lowres"].shape[:2])[0]
    error = np.abs(low - expected["logits_lowres"]).max()
    assert error <= 1e-5 * np.abs(low).max()
    np.testing.assert_array_equal(classes[valid], expected["jax_label"][valid])
    yield classes[valid], expected["tflite_label"][valid]


def test_the_float_network_gives_every_class_of_the_original():
  model, variables = network(FLOAT)
  for found in assert_equal(model, variables, FLOAT):
    np.testing.assert_array_equal(*found)


@pytest.mark.slow  # 30 s together: three networks at 513x513, five pictures
@pytest.mark.parametrize("name", QUANTIZED)
def test_networks_of_8_bits_give_the_classes_as_often_as_floats_can(name):
  model, variables = network(name)
  for image, valid, expected in pictures(name):
    _, classes = run(model, variables, image)
    same = classes[valid] == expected["tflite_label"][valid]
    assert same.mean() >= NETWORKS[name][2]


@pytest.mark.slow  # 30 s together: with the one above
@pytest.mark.parametrize("name", QUANTIZED)
def test_networks_of_8_bits_are_exact_with_their_own_normalization(name):
  model, variables = network(name)
  # Their zero is the byte 128, not 127.5.
  model = model.clone(mean=(128.0,) * 3, std=(128.0,) * 3)
  assert list(assert_equal(model, variables, name))


# Numbers of ImageNet's classes, counted from 1: 0 is none of them.
PICTURES = {
  "2007_000129.jpg": 445,  # tandem bicycle
  "bird.bmp": 20,  # chickadee
  "g3doc_image2.jpg": 160,  # Rhodesian ridgeback
  "vainf_1.png": 896,  # warplane
}


@pytest.mark.slow  # 10 s: one compilation
def test_an_imagenet_network_names_what_is_in_a_picture():
  config = defaults.base().model
  config.update({"backbone": "mobilenet_v2", "head": "classifier"})
  config.output_stride = 32
  config.decoder.kind = "none"
  model = build.from_config(config, num_classes=1001)
  with np.load(shared.path("weights/mobilenet_v2_1.0_224_quant.npz")) as file:
    arrays = dict(file)
  variables = pretrained.convert_arrays(arrays, "tf_deeplab", model=model)
  for name, label in PICTURES.items():
    with Image.open(shared.path("weights/images") / name) as picture:
      small = picture.convert("RGB").resize(
        (224, 224), Image.Resampling.BILINEAR
      )
    logits = coarse_logits(model, variables, np.asarray(small)[None])
    assert int(np.asarray(logits).argmax()) == label, name
