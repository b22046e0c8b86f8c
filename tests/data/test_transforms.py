import json

import numpy as np
import pytest

from deeplax.data import transforms
from tests import shared
from tests.fixtures import tf_rule

SETTINGS = transforms.Augmentation(
  crop_size=(60, 70), pad_value=(127.5, 120.2, 1.0)
)


def picture(size=(50, 75), seed=0):
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
  label = rng.integers(0, 21, size, dtype=np.uint8)
  return image, label


def bilinear(image, size):
  """Align-corners resize, one axis after the other, in float64."""
  for axis, new in enumerate(size):
    old = image.shape[axis]
    at = np.arange(new) * ((old - 1) / max(new - 1, 1))
    low = np.floor(at).astype(int)
    part = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
    high = np.minimum(low + 1, old - 1)
    image = np.take(image, low, axis) * (1 - part) + (
      np.take(image, high, axis) * part
    )
  return image


@pytest.mark.parametrize(
  "size", [(50, 75), (25, 37), (100, 150), (33, 80), (1, 9), (7, 1), (300, 2)]
)
def test_resize_is_bilinear_with_aligned_corners(size):
  image, _ = picture()
  exact = bilinear(image.astype(np.float64), size)
  rounded = transforms.resize(image, size)
  assert rounded.dtype == np.uint8
  assert rounded.shape == (*size, 3)
  assert np.abs(rounded - exact).max() < 0.52
  floats = transforms.resize(image.astype(np.float32), size)
  assert np.abs(floats - exact).max() < 0.02


def golden():
  """The reference's pictures and results."""
  image = tf_rule.image(50, 75, seed="pre_image")[0]
  label = tf_rule.labels(50, 75, 21, seed="pre_label")[0, :, :, 0]
  results = json.loads(shared.path("golden/tf_deeplab/ops.json").read_text())
  return image, label.astype(np.uint8), results


def test_random_scale_matches_the_reference():
  image, label, results = golden()
  for case in results["random_scale"]:
    size = transforms.scaled_size((50, 75), case["scale"])
    assert [*size, 3] == case["out"]
    scaled = transforms.resize(image, size)
    np.testing.assert_allclose(
      scaled.sum(dtype=np.float64), case["img_sum"], rtol=1e-6
    )
    labels = transforms.resize_labels(label, size)
    assert labels.sum() == case["label_sum"]
    assert labels[0, :12].tolist() == case["label_row0"]


def test_padding_matches_the_reference():
  image, label, results = golden()
  mean = (127.5, 127.5, 127.5)
  padded, labels = transforms.pad(image, label, size=(60, 80), pad_value=mean)
  assert padded.sum(dtype=np.float64) == results["pad_sum_60x80_127.5"]
  assert (labels[50:] == 255).all() and (labels[:, 75:] == 255).all()
  np.testing.assert_array_equal(labels[:50, :75], label)


def test_scales_are_those_of_the_reference():
  rng = np.random.default_rng(0)
  drawn = {transforms.random_scale(rng, SETTINGS) for _ in range(200)}
  assert drawn == {0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0}


def test_step_zero_draws_any_scale():
  rng = np.random.default_rng(0)
  settings = SETTINGS._replace(scale_step=0.0)
  drawn = [transforms.random_scale(rng, settings) for _ in range(200)]
  assert len(set(drawn)) == 200
  assert 0.5 <= min(drawn) < 0.55 and 1.9 < max(drawn) <= 2.0


def test_bytes_are_padded_with_the_rounded_mean():
  image, label = picture((2, 2))
  padded, _ = transforms.pad(
    image, label, size=(3, 3), pad_value=(127.5, 120.2, 1.0)
  )
  assert padded[2, 2].tolist() == [128, 120, 1]


def step_by_step(image, label, rng, settings):
  """The four steps on whole images, in the reference's order."""
  scale = transforms.random_scale(rng, settings)
  size = transforms.scaled_size(label.shape, scale)
  image = transforms.resize(image, size)
  label = transforms.resize_labels(label, size)
  image, label = transforms.pad(
    image, label, size=settings.crop_size, pad_value=settings.pad_value
  )
  h, w = settings.crop_size
  top = int(rng.integers(label.shape[0] - h + 1))
  left = int(rng.integers(label.shape[1] - w + 1))
  image, label = transforms.crop(image, label, (top, left, h, w))
  if settings.flip and rng.random() < 0.5:
    image, label = transforms.flip(image, label)
  return image, label


@pytest.mark.parametrize("step", [0.25, 0.0])
@pytest.mark.parametrize("size", [(50, 75), (130, 61), (1, 1), (60, 70)])
def test_augment_equals_scale_pad_crop_flip(size, step):
  image, label = picture(size)
  settings = SETTINGS._replace(scale_step=step)
  for seed in range(20):
    found = transforms.augment(
      image, label, np.random.default_rng(seed), settings
    )
    expected = step_by_step(image, label, np.random.default_rng(seed), settings)
    assert found[0].shape == (60, 70, 3)
    np.testing.assert_array_equal(found[1], expected[1])
    # One gray level: positions are rounded from another origin.
    difference = found[0].astype(int) - expected[0]
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01


def test_flip_mirrors_half_of_the_examples_or_none():
  image, label = picture((60, 70))
  still = SETTINGS._replace(min_scale=1.0, max_scale=1.0)
  rngs = [np.random.default_rng(seed) for seed in range(100)]
  mirrored = [
    (transforms.augment(image, label, rng, still)[1] != label).any()
    for rng in rngs
  ]
  assert 30 < sum(mirrored) < 70
  fixed = still._replace(flip=False)
  for rng in rngs:
    found = transforms.augment(image, label, rng, fixed)
    np.testing.assert_array_equal(found[1], label)
    np.testing.assert_array_equal(found[0], image)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 4, 6, 11])
def test_each_of_many_bands_is_resized_alike(bands, dtype):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (50, 75, bands)).astype(dtype)
  window = (3, 5, 40, 60)
  found = transforms.resize(image, (61, 90), window)
  assert found.shape == (40, 60, bands) and found.dtype == dtype
  exact = bilinear(image.astype(np.float64), (61, 90))[3:43, 5:65]
  assert np.abs(found - exact).max() < (0.52 if dtype == "uint8" else 0.02)


def test_many_bands_are_augmented_as_three_are():
  image, label = picture()
  many = np.concatenate([image.astype(np.float32)] * 3, axis=-1)[..., :7]
  settings = SETTINGS._replace(
    pad_value=(127.5, 120.2, 1.0, 127.5, 120.2, 1.0, 2.0)
  )
  for seed in range(8):
    found, labels = transforms.augment(
      many, label, np.random.default_rng(seed), settings
    )
    expected, expected_labels = transforms.augment(
      many[..., :3], label, np.random.default_rng(seed), SETTINGS
    )
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., :3], expected)
    np.testing.assert_array_equal(found[..., 3:6], expected)
    np.testing.assert_array_equal(labels, expected_labels)
    outside = (found[..., :2] == SETTINGS.pad_value[:2]).all(-1)
    assert (found[outside][:, 6] == 2).all()
