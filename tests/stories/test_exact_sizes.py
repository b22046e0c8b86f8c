"""Exact sizes: a padded image is predicted as it would be without padding."""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax import errors
from deeplax import parallel
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import probabilities
from deeplax.inference import programs
from deeplax.inference import settings as settings_lib
from deeplax.inference import sizing as sizing_lib
from deeplax.inference import windows
from deeplax.models import build
from deeplax.settings import defaults
from tests.models import networks

MEAN = (127.5, 127.5, 127.5)
TINY = {"channels": 16, "atrous_rates": (2, 3)}


@pytest.fixture(scope="module", autouse=True)
def _short_with_the_forms_of_a_cpu():
  """Few layers, but the convolutions as they are computed here."""
  with networks.few_layers():
    yield


def _network(settings, *, decoder="concat", seed=0):
  """A network with variables drawn so that neighbors matter."""
  config: Any = defaults.base().model
  config.update(settings)
  config.decoder.update({"kind": decoder, "channels": 16})
  model = build.from_config(config, num_classes=4)
  shapes = jax.eval_shape(
    lambda: model.init(
      jax.random.key(0), jnp.zeros((1, 65, 65, 3)), train=False
    )
  )
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name in ("var", "scale"):
      return np.ones(leaf.shape, np.float32)
    if "kernel" not in name:
      return rng.normal(0, 0.3, leaf.shape).astype(np.float32)
    # Smaller than He's: the sums of residual units stay small too.
    deviation = 1 / np.sqrt(np.prod(leaf.shape[-4:-1]))
    return rng.normal(0, deviation, leaf.shape).astype(np.float32)

  return model, jax.tree_util.tree_map_with_path(draw, shapes)


def _image(size, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (*size, 3), np.uint8)


def _alone(network, image, **settings):
  """The probabilities of an image by itself, without any padding."""

  @jax.jit
  def unpadded(variables, images):
    return probabilities.predict_probabilities(
      network[0], variables, images, **settings
    )

  return np.asarray(unpadded(network[1], image[None]))[0]


def _compare(network, size, **settings):
  """The largest gap of each mode's probabilities to the unpadded ones."""
  image = _image(size)
  expected = _alone(network, image, **settings)
  gaps = {}
  for sizes in ("reference", "exact"):
    predictor = predictor_lib.Predictor(
      *network,
      pad_value=MEAN,
      mode=mode_lib.Mode(**settings),
      sizing=sizing_lib.Sizing(sizes),
      progress=lambda _: None,
    )
    found = predictor(image)
    assert found.shape == expected.shape
    gaps[sizes] = float(np.abs(found - expected).max())
  return gaps


MOBILE = {**TINY, "backbone": "mobilenet_v2", "depth_multiplier": 0.35}
NETWORKS = {
  "mobilenet_v2": MOBILE,
  "mobilenet_v3": {**TINY, "backbone": "mobilenet_v3_small_seg"},
  "resnet": {**TINY, "backbone": "resnet_v1_50_beta"},
  "resnet of torchvision": {
    **TINY,
    "backbone": "resnet50",
    "conventions": "torchvision",
    "separable": False,
  },
  "xception": {**TINY, "backbone": "xception_41"},
}


@pytest.mark.slow  # compiles five backbones, padded and not
@pytest.mark.parametrize("name", NETWORKS)
def test_every_backbone_is_predicted_as_without_padding(name):
  decoder = "none" if "torch" in name else "concat"
  network = _network(NETWORKS[name], decoder=decoder)
  gaps = _compare(network, (50, 61))
  assert gaps["exact"] < 1e-4
  assert gaps["reference"] > 1e-2


@pytest.mark.slow  # compiles the network at two scales, padded and not
def test_scales_and_flips_are_exact_too():
  network = _network(MOBILE)
  gaps = _compare(network, (50, 61), scales=(0.5, 1.25), flip=True)
  assert gaps["exact"] < 1e-4
  assert gaps["reference"] > 1e-2


@pytest.mark.slow  # compiles four programs
def test_sizes_of_one_bucket_share_a_program_and_are_exact():
  # No atrous branches and no decoder: compiled in seconds.
  settings = {**MOBILE, "atrous_rates": ()}
  network = _network(settings, decoder="none")
  lines = []
  predictor = predictor_lib.Predictor(
    *network,
    pad_value=MEAN,
    sizing=sizing_lib.Sizing("exact"),
    progress=lines.append,
  )
  model, variables = network
  for size in ((50, 61), (65, 34)):
    image = _image(size)
    unpadded = jax.jit(
      lambda v, x: probabilities.predict_probabilities(model, v, x)
    )
    expected = np.asarray(unpadded(variables, image[None]))[0]
    np.testing.assert_allclose(predictor(image), expected, atol=1e-5)
  assert len(lines) == 1
  assert lines[0].startswith("compiled 65x65 for exact sizes in ")
  other = predictor_lib.Predictor(
    *network, pad_value=MEAN, progress=lambda _: None
  )
  assert np.abs(other(image) - expected).max() > 1e-3


def test_the_padding_is_not_read_whatever_is_in_it():
  settings = {**MOBILE, "atrous_rates": ()}
  network = _network(settings, decoder="none")
  model, variables = network
  size = (40, 47)
  exact = programs.Programs(
    model,
    mesh=parallel.mesh(),
    channels=3,
    batch=1,
    exact=True,
    progress=lambda _: None,
  )
  found = []
  for value in (0.0, 255.0):
    padded = np.full((1, 65, 65, 3), value, np.float32)
    padded[0, : size[0], : size[1]] = _image(size)
    exact.compile(variables, (65, 65), {1.0})
    logits = exact.run(
      variables, exact.put(padded), np.zeros(1, bool), size=size, scale=1.0
    )
    found.append(np.asarray(logits)[0, : size[0], : size[1]])
  np.testing.assert_array_equal(found[0], found[1])


def test_pooling_over_windows_is_refused():
  settings = {**MOBILE, "atrous_rates": (), "image_pooling_crop": (33, 33)}
  network = _network(settings, decoder="none")
  predictor = predictor_lib.Predictor(
    *network, pad_value=MEAN, sizing=sizing_lib.Sizing("exact")
  )
  with pytest.raises(
    errors.InputError, match="windows of 3x3 has no exact form"
  ):
    predictor.labels(_image((40, 47)))


def test_an_unknown_way_of_sizes_is_refused():
  with pytest.raises(ValueError, match="'exakt' not in"):
    sizing_lib.Sizing("exakt")
  config = defaults.base()
  config.eval.sizes = "exakt"
  with pytest.raises(errors.InputError, match="'exakt' in the config must be"):
    settings_lib.sizing(config)


def test_flags_win_over_the_config():
  config = defaults.base()
  config.eval.sizes, config.eval.window = "exact", 65
  found = settings_lib.sizing(config)
  assert found.sizes == "exact"
  assert found.windows == windows.Windows(65, 16)
  args = argparse.Namespace(sizes="reference", window=0, overlap=None)
  assert settings_lib.sizing(config, args) == sizing_lib.Sizing(
    sizes="reference", pad_to=None, windows=None
  )


@pytest.mark.slow  # compiles a ResNet at three sizes
def test_what_caffes_pooling_refuses_is_predicted_unpadded_as_it_says():
  # v2 by kazuto1011: pooling that rounds up has no exact form.
  settings = {**TINY, "backbone": "resnet50", "conventions": "kazuto"}
  settings |= {"head": "aspp_sum", "channels": 0}
  network = _network(settings, decoder="none")
  sizes, image = "exact", _image((50, 61))

  def predict():
    predictor = predictor_lib.Predictor(
      *network,
      pad_value=MEAN,
      sizing=sizing_lib.Sizing(sizes),
      progress=lambda _: None,
    )
    return predictor(image)

  with pytest.raises(errors.InputError, match="exact sizes: ") as raised:
    predict()
  sizes = str(raised.value).rpartition("--sizes=")[2]
  found = predict()
  np.testing.assert_allclose(found, _alone(network, image), atol=1e-5)
  sizes = "reference"  # the network saw the padding
  assert np.abs(predict() - found).max() > 1e-2


def test_unpadded_images_have_a_program_for_each_size():
  network = _network({**MOBILE, "atrous_rates": ()}, decoder="none")
  lines = []
  predictor = predictor_lib.Predictor(
    *network,
    pad_value=MEAN,
    sizing=sizing_lib.Sizing("unpadded", pad_to=(65, 65)),
    progress=lines.append,
  )
  assert predictor.expect([(33, 40), (40, 33), (33, 40)]) == 2
  image = _image((33, 40))
  expected = _alone(network, image)
  np.testing.assert_allclose(predictor(image), expected, atol=1e-5)
  assert predictor.sizing.fields == {"sizes": "unpadded", "window": None}
  assert lines[0].startswith("compiled 33x40 in ")
