"""The loss against the reference's values, and what ignored pixels do."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax import losses
from tests import shared


def mean_loss(logits, labels, *, upsample_logits=True):
  logits, labels = losses.match(
    jnp.asarray(logits), jnp.asarray(labels), upsample_logits=upsample_logits
  )
  sums = losses.pixel_sums(logits, labels)
  return sums.loss / jnp.maximum(sums.valid, 1)


def pixel_sums(logits, labels):
  return jax.jit(losses.pixel_sums)(jnp.asarray(logits), jnp.asarray(labels))


def random_case(seed=0, shape=(2, 9, 7), classes=5):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(*shape, classes)).astype(np.float32)
  labels = rng.integers(0, classes, shape).astype(np.int32)
  labels[rng.random(shape) < 0.3] = 255
  return logits, labels


@pytest.mark.parametrize(
  ("case", "upsample"), [("plain_upsample", True), ("downsample_labels", False)]
)
def test_loss_and_gradient_equal_the_reference(case, upsample):
  folder = shared.path("golden/tf_deeplab")
  expected = json.loads((folder / "ops.json").read_text())["loss"][case]
  arrays = np.load(folder / "ops.npz")
  labels = arrays["loss/labels"][..., 0].astype(np.int32)
  loss, grad = jax.value_and_grad(mean_loss)(
    arrays["loss/logits"], labels, upsample_logits=upsample
  )
  np.testing.assert_allclose(loss, expected["loss"], rtol=1e-6)
  np.testing.assert_allclose(
    np.linalg.norm(grad), expected["grad_l2"], rtol=1e-5
  )


def test_what_an_ignored_pixel_predicts_does_not_change_the_loss():
  logits, labels = random_case()
  other = np.where((labels == 255)[..., None], 100.0 * logits, logits)
  np.testing.assert_array_equal(
    mean_loss(logits, labels), mean_loss(other, labels)
  )


def test_ignored_pixels_have_no_gradient():
  logits, labels = random_case()
  grad = jax.grad(mean_loss)(logits, labels)
  assert np.all(np.asarray(grad)[labels == 255] == 0)
  assert np.all(np.abs(np.asarray(grad)[labels != 255]).sum(-1) > 0)


def test_an_all_ignored_batch_has_loss_zero_and_no_gradient():
  logits, labels = random_case()
  labels[:] = 255
  loss, grad = jax.value_and_grad(mean_loss)(logits, labels)
  assert float(loss) == 0 and not np.any(grad)


@pytest.mark.parametrize("illegal", [-1, 5, 21, 254])
def test_illegal_labels_are_counted_and_leave_the_loss_finite(illegal):
  logits, labels = random_case()
  clean = pixel_sums(logits, labels)
  labels[0, :3] = illegal
  sums = pixel_sums(logits, labels)
  assert int(sums.illegal) == 3 * labels.shape[2]
  assert int(clean.illegal) == 0
  assert np.isfinite(sums.loss)


def test_the_sums_equal_a_plain_count():
  logits, labels = random_case()
  sums = pixel_sums(logits, labels)
  valid = labels != 255
  assert int(sums.valid) == valid.sum()
  assert int(sums.correct) == (valid & (logits.argmax(-1) == labels)).sum()
