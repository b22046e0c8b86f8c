"""The one prediction function, with networks small enough to reason about."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax import clocks
from deeplax import crf
from deeplax.crf import program
from deeplax.crf import room
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import probabilities
from deeplax.models import build
from deeplax.ops import resize
from tests.fixtures import tf_rule
from tests.models import golden

MEAN = (127.5, 127.5, 127.5)


class Pointwise(nn.Module):
  """Every pixel on its own, taken at each `stride`-th place."""

  stride: int = 1
  classes: int = 5

  @nn.compact
  def coarse(self, images, *, train: bool):
    assert not train
    x = (
      images.astype(jnp.float32)[:, :: self.stride, :: self.stride] / 127.5 - 1
    )
    kernel = self.param(
      "kernel", nn.initializers.normal(3.0), (3, self.classes)
    )
    return x @ kernel


class Directed(nn.Module):
  """Sees the pixel to its right: mirrored images give other logits."""

  @nn.compact
  def coarse(self, images, *, train: bool):
    x = nn.Conv(4, (3, 3), padding=((1, 1), (0, 2)), name="conv")(images / 99.0)
    return x[:, ::2, ::2]


def _network(model, seed=0):
  variables = model.init(
    jax.random.key(seed), jnp.zeros((1, 9, 9, 3)), train=False, method="coarse"
  )
  return model, variables


def _coarse(model, variables, images) -> jax.Array:
  return model.apply(variables, images, train=False, method="coarse")


def _probabilities(network, images, **settings):
  model, variables = network
  function = functools.partial(
    probabilities.predict_probabilities, model, **settings
  )
  return np.asarray(jax.jit(function)(variables, images))


def _image(height, width, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


def _predictor(network, **settings):
  return predictor_lib.Predictor(
    *network, pad_value=MEAN, **{"progress": lambda _: None, **settings}
  )


def test_single_scale_is_the_softmax_of_the_upsampled_logits():
  model, variables = _network(Directed())
  images = _image(11, 8)[None]

  @jax.jit
  def expected(variables, images):
    coarse = _coarse(model, variables, images.astype(jnp.float32))
    return jax.nn.softmax(resize.resize_bilinear(coarse, (11, 8)))

  found = _probabilities((model, variables), images)
  np.testing.assert_allclose(found, expected(variables, images), atol=1e-6)
  np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-6)


@pytest.mark.parametrize("size", [(13, 17), (12, 18)])
def test_scales_and_flips_follow_the_reference_step_by_step(size):
  # predict_labels_multi_scale of the reference with logits at stride 2, one
  # forward pass after the other.
  model, variables = _network(Directed())
  images = _image(*size)[None].astype(np.float32)
  scales = (0.5, 0.75, 1.0, 1.5)

  def times(scale):
    height, width = (resize.scale_dimension(d, scale) for d in size)
    return height, width

  @jax.jit
  def one_after_the_other(variables, images):
    total = []
    for scale in scales:
      scaled = resize.resize_bilinear(images, times(scale))
      for step in (1, -1):
        logits = _coarse(model, variables, scaled[:, :, ::step])[:, :, ::step]
        logits = resize.resize_bilinear(logits, times(max(1.0, scale) / 2))
        total.append(jax.nn.softmax(resize.resize_bilinear(logits, size)))
    return sum(total) / len(total)

  found = _probabilities((model, variables), images, scales=scales, flip=True)
  expected = one_after_the_other(variables, images)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_mirrored_image_gives_the_mirrored_prediction_when_flips_are_on():
  network = _network(Directed())
  images = _image(9, 14)[None]
  plain, mirrored = (
    _probabilities(network, x, scales=(1.0, 1.25), flip=True)
    for x in (images, images[:, :, ::-1])
  )
  np.testing.assert_allclose(plain, mirrored[:, :, ::-1], atol=1e-6)


def test_uint8_and_float_images_are_predicted_alike():
  network = _network(Pointwise())
  images = _image(5, 6)[None]
  np.testing.assert_array_equal(
    _probabilities(network, images),
    _probabilities(network, images.astype(np.float32)),
  )


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0)])
def test_scales_that_are_not_positive_are_refused(scales):
  network = _network(Pointwise())
  with pytest.raises(ValueError, match="scales must be positive"):
    probabilities.predict_probabilities(
      *network, _image(5, 5)[None], scales=scales
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 65), (66, 40)])
def test_padding_changes_nothing_for_a_network_that_looks_at_one_pixel(size):
  network = _network(Pointwise())
  image = _image(*size)
  expected = _probabilities(network, image[None])[0]
  found = _predictor(network)(image)
  assert found.shape == (*size, 5)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_padding_changes_nothing_at_stride_4_when_sizes_are_aligned():
  network = _network(Pointwise(stride=4))
  image = _image(29, 41)
  expected = _probabilities(network, image[None])[0]
  np.testing.assert_allclose(_predictor(network)(image), expected, atol=1e-5)


def test_images_are_padded_with_the_exact_mean_pixel():
  seen = []

  class Spy(nn.Module):
    @nn.compact
    def coarse(self, images, *, train: bool):
      jax.debug.callback(lambda x: seen.append(np.asarray(x)), images)
      return images

  predictor = predictor_lib.Predictor(
    Spy(), {}, pad_value=(123.15, 115.9, 103.06), progress=lambda _: None
  )
  predictor(np.zeros((3, 4, 3), np.uint8))
  jax.effects_barrier()
  assert seen[0].shape == (1, 65, 65, 3)
  assert not seen[0][0, :3, :4].any()
  mean = np.array([123.15, 115.9, 103.06], np.float32)
  assert (seen[0][0, 3:] == mean).all() and (seen[0][0, :, 4:] == mean).all()


@pytest.mark.parametrize(
  ("scales", "flip"), [((1.0,), False), ((0.5, 1), True)]
)
def test_labels_are_the_argmax_of_the_probabilities(scales, flip):
  predictor = _predictor(_network(Directed()), mode=mode_lib.Mode(scales, flip))
  image = _image(30, 21)
  labels = predictor.labels(image)
  assert labels.dtype == np.uint8
  np.testing.assert_array_equal(labels, predictor(image).argmax(-1))


def test_more_than_256_classes_are_16_bit_labels():
  predictor = _predictor(_network(Pointwise(classes=300)))
  labels = predictor.labels(_image(40, 40))
  assert labels.dtype == np.uint16 and labels.max() < 300
  assert labels.max() > 255


def test_each_bucket_is_compiled_once_and_logged():
  lines = []
  predictor = _predictor(_network(Pointwise()), progress=lines.append)
  sizes = [(20, 20), (64, 30), (70, 30), (65, 65)]
  assert predictor.expect(sizes) == 2
  for size in sizes:
    assert predictor.labels(_image(*size)).shape == size
  assert len(lines) == 2
  assert lines[0].startswith("compiled 65x65 in ")
  assert lines[1].startswith("compiled 129x65 in ")
  assert lines[1].endswith("(2 of at most 2)")
  assert predictor.compile_seconds > 0


def test_the_crf_is_compiled_for_several_sizes_and_logged(monkeypatch):
  monkeypatch.setattr(program, "_compiled", {})
  monkeypatch.setattr(room, "_chosen", [])
  monkeypatch.setattr(room, "_of_positions", {})
  lines = []
  network = _network(Pointwise())
  predictor = _predictor(network, progress=lines.append, crf={"iterations": 2})
  network_alone = _predictor(network)
  for size in ((20, 24), (24, 20), (19, 22)):
    image = _image(*size)
    found = predictor.labels(image)
    refined = crf.dense_crf(image, network_alone(image), iterations=2)
    np.testing.assert_array_equal(found, np.asarray(refined).argmax(-1))
    assert found.dtype == np.uint8
  told = [line for line in lines if "CRF" in line]
  assert len(told) == 1
  assert re.fullmatch(
    r"compiled the dense CRF in \d+\.\d s \(1 so far\)", told[0]
  )
  assert predictor.compile_seconds > network_alone.compile_seconds > 0


def test_new_variables_are_used_without_compiling_again():
  lines = []
  model, variables = _network(Pointwise())
  predictor = _predictor((model, {}), progress=lines.append)
  predictor.variables = variables
  image = _image(8, 8)
  before = predictor(image)
  predictor.variables = jax.tree.map(lambda x: -x, variables)
  after = predictor(image)
  assert len(lines) == 1
  assert np.abs(before - after).max() > 0.1


def test_an_image_without_pixels_or_of_other_channels_is_refused():
  predictor = _predictor(_network(Pointwise()))
  with pytest.raises(ValueError, match="0x4"):
    predictor.labels(np.zeros((0, 4, 3), np.uint8))
  for channels in (1, 5):
    with pytest.raises(ValueError, match=f"has {channels} channels, not 3"):
      predictor.labels(np.zeros((4, 4, channels), np.uint8))


def test_images_of_many_bands_are_padded_and_predicted():
  class First(nn.Module):
    @nn.compact
    def coarse(self, images, *, train: bool):
      return images[..., :2] - images[..., 3:]

  mean = (1000.0, 2000.0, 3000.0, 1500.0, 1000.0)
  image = np.random.default_rng(0).uniform(0, 5000, (7, 9, 5))
  image = image.astype(np.float32)
  predictor = predictor_lib.Predictor(
    First(),
    {},
    pad_value=mean,
    mode=mode_lib.Mode((1.0, 2.0)),
    progress=lambda _: None,
  )
  found = predictor.labels(image)
  logits = image[..., :2] - image[..., 3:]
  # Twice the size changes little where the two are far apart.
  sure = np.abs(logits[..., 0] - logits[..., 1]) > 4000
  assert sure.any()
  np.testing.assert_array_equal(found[sure], logits.argmax(-1)[sure])


def test_the_stream_keeps_the_order_and_every_item():
  predictor = _predictor(_network(Pointwise()))
  items = [{"image": _image(9, 5 + i, seed=i), "i": i} for i in range(5)]
  clock = {}
  for n in (0, 1, 7):
    stream = predictor_lib.stream(predictor.submit, items, n=n, clock=clock)
    found = list(stream)
    assert [item["i"] for item, _ in found] == list(range(5))
    for item, labels in found:
      np.testing.assert_array_equal(labels, predictor.labels(item["image"]))
  assert clock["load"] > 0 and clock["compute"] > 0
  assert list(predictor_lib.stream(predictor.submit, [])) == []


def test_progress_is_told_now_and_then_with_the_time_left():
  lines, seconds = [], [0.0]
  report = clocks.Progress(
    40, lines.append, name="evaluated", every=10.0, now=lambda: seconds[0]
  )
  for _ in range(40):
    seconds[0] += 1.0
    report.step()
  assert lines == [
    "evaluated 5/40 images  1.0 images/s  ETA 35 s",
    "evaluated 15/40 images  1.0 images/s  ETA 25 s",
    "evaluated 25/40 images  1.0 images/s  ETA 15 s",
    "evaluated 35/40 images  1.0 images/s  ETA 5 s",
    "evaluated 40/40 images  1.0 images/s  ETA 0 s",
  ]


@pytest.mark.slow  # 20 s: compiles the network at six scales
def test_scales_and_flips_equal_the_reference():
  expected = golden.load("multiscale_mobilenet_v2_os16")
  variant = golden.load(expected.manifest["variant"])
  model = build.from_config(golden.config(variant.manifest), num_classes=21)
  images = tf_rule.image(*expected.manifest["size"])
  found = _probabilities(
    (model, golden.variables(model, variant)),
    images,
    scales=tuple(expected.manifest["eval_scales"]),
    flip=expected.manifest["add_flipped_images"],
  )
  step = expected.manifest["subsample"]["mean_prob"]
  np.testing.assert_allclose(
    found[:, ::step, ::step], expected.arrays["mean_prob"], atol=1e-4
  )
  wrong = found.argmax(-1) != expected.arrays["argmax"]
  # Float noise may turn a pixel whose two best classes are level.
  assert wrong.mean() < 1e-3
