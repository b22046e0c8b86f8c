"""The loss against the reference's values, and what ignored pixels do."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.training import losses
from tests import shared


def mean_loss(logits, labels, *, step=0, auxiliary=None, **settings):
  loss, sums = losses.of_batch(
    jnp.asarray(logits),
    auxiliary,
    jnp.asarray(labels),
    losses.Settings(**settings),
    step=jnp.int32(step),
  )
  return loss / jnp.maximum(sums.valid, 1)


def pixel_sums(logits, labels):
  return jax.jit(losses.pixel_sums)(jnp.asarray(logits), jnp.asarray(labels))


def random_case(seed=0, shape=(2, 9, 7), classes=5):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(*shape, classes)).astype(np.float32)
  labels = rng.integers(0, classes, shape).astype(np.int32)
  labels[rng.random(shape) < 0.3] = 255
  return logits, labels


def loss_cases():
  path = shared.path("golden/tf_deeplab/ops.json")
  cases = json.loads(path.read_text())["loss"]
  return cases, np.load(path.with_suffix(".npz"))


NAMES = (
  *("plain_upsample", "downsample_labels", "label_weights", "all_ignored"),
  *("hem_top25_direct", "hem_top25_ramp100_at_step50"),
  *("hem_top25_ramp100_at_step500", "hem_top95"),
)


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_equal_the_reference(name):
  cases, arrays = loss_cases()
  assert set(cases) == set(NAMES)
  case = cases[name]
  args = case["args"]
  labels = arrays["loss/labels"][..., 0].astype(np.int32)
  if case["all_ignore"]:
    labels = np.full_like(labels, 255)
  weights = args.get("loss_weight")
  loss, grad = jax.value_and_grad(mean_loss)(
    arrays["loss/logits"],
    labels,
    step=case["global_step"],
    upsample_logits=args.get("upsample_logits", True),
    class_weights=None if weights is None else tuple(weights),
    hard_pixels=args.get("top_k_percent_pixels", 1.0),
    hard_pixel_steps=args.get("hard_example_mining_step", 0),
  )
  np.testing.assert_allclose(loss, case["loss"], rtol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(grad), case["grad_l2"], rtol=1e-5)


def test_hard_pixels_are_those_of_the_largest_loss():
  logits, labels = random_case()
  sums = losses.pixel_sums(
    jnp.asarray(logits), jnp.asarray(labels), hard_share=0.2
  )
  each = -jax.nn.log_softmax(logits)
  each = np.take_along_axis(
    np.asarray(each), np.where(labels == 255, 0, labels)[..., None], -1
  )[..., 0]
  each = np.sort(np.where(labels == 255, 0, each).ravel())[::-1]
  count = int(0.2 * labels.size)
  assert int(sums.counted) == count
  np.testing.assert_allclose(sums.loss, each[:count].sum(), rtol=1e-6)
  assert int(sums.valid) == (labels != 255).sum()


def test_no_pixel_is_hard_in_an_all_ignored_batch():
  logits, labels = random_case()
  labels[:] = 255
  loss, grad = jax.value_and_grad(mean_loss)(logits, labels, hard_pixels=0.25)
  assert float(loss) == 0 and not np.any(grad)


def test_the_auxiliary_loss_is_added_with_its_weight():
  logits, labels = random_case()
  small = np.random.default_rng(1).normal(size=(2, 3, 2, 5))
  small = jnp.asarray(small, jnp.float32)
  both = mean_loss(logits, labels, auxiliary=small, auxiliary_weight=0.4)
  alone = mean_loss(logits, labels)
  beside = mean_loss(small, labels)
  np.testing.assert_allclose(both, alone + 0.4 * beside, rtol=1e-6)


def test_the_auxiliary_loss_sees_all_pixels_beside_hard_ones():
  logits, labels = random_case()
  small = jnp.asarray(logits[:, ::2, ::2])
  both = mean_loss(
    logits, labels, auxiliary=small, auxiliary_weight=0.4, hard_pixels=0.25
  )
  alone = mean_loss(logits, labels, hard_pixels=0.25)
  beside = mean_loss(small, labels)
  np.testing.assert_allclose(both, alone + 0.4 * beside, rtol=1e-6)


@pytest.mark.parametrize("upsample_logits", [True, False])
def test_each_scale_has_the_mean_loss_of_its_own_pixels(upsample_logits):
  logits, labels = random_case()
  parts = tuple(jnp.asarray(logits[:, ::step, ::step]) for step in (1, 2))
  settings = {"upsample_logits": upsample_logits}
  found = mean_loss(logits, labels, auxiliary=parts, per_scale=True, **settings)
  each = [mean_loss(part, labels, **settings) for part in (logits, *parts)]
  np.testing.assert_allclose(found, sum(each), rtol=1e-6)


def test_the_loss_in_words_says_what_is_added_to_it():
  assert losses.Settings().describe() == "cross entropy"
  words = losses.Settings(per_scale=True, upsample_logits=False).describe()
  assert words == (
    "cross entropy, one more for each input scale, labels down to the logits"
  )


def test_a_class_of_weight_zero_is_not_learned_from():
  logits, labels = random_case()
  grad = jax.grad(mean_loss)(
    logits, labels, class_weights=(1.0, 0.0, 1.0, 1.0, 1.0)
  )
  assert not np.any(np.asarray(grad)[labels == 1])
  assert np.all(np.abs(np.asarray(grad)[labels == 2]).sum(-1) > 0)


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
