"""A loss of a user's own takes the place of the cross entropy."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplax import errors
from deeplax.settings import own
from deeplax.training import losses
from deeplax.training import own_loss

pytestmark = pytest.mark.usefixtures("trusting")
CLASSES = 5
FILE = """\
import jax.numpy as jnp
import optax


def plain(logits, labels, *, ignore_label):
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def focal(logits, labels, *, ignore_label, gamma=2.0):
  entropy = plain(logits, labels, ignore_label=ignore_label)
  return (1 - jnp.exp(-entropy)) ** gamma * entropy


class Scaled:
  def __init__(self, factor):
    self.factor = factor

  def __call__(self, logits, labels, *, ignore_label):
    return self.factor * plain(logits, labels, ignore_label=ignore_label)


def mean(logits, labels, *, ignore_label):
  return jnp.mean(logits)


def wrong(logits, labels, *, ignore_label):
  return logits @ labels


def other(logits, labels):
  return labels
"""


@pytest.fixture
def file(tmp_path) -> pathlib.Path:
  path = tmp_path / "my_losses.py"
  path.write_text(FILE)
  return path


def loaded(file: pathlib.Path, value: str) -> Any:
  reference = own.parsed("train.loss", f"{file}:{value}")
  return own_loss.from_file(reference, CLASSES)


def case() -> tuple[jax.Array, np.ndarray]:
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 9, 7, CLASSES)).astype(np.float32)
  labels = rng.integers(0, CLASSES, (2, 9, 7)).astype(np.int32)
  labels[rng.random(labels.shape) < 0.3] = 255
  labels[0, 0, 0] = CLASSES  # illegal
  return jnp.asarray(logits), labels


def value_and_grad(logits, labels, **settings) -> tuple[Any, Any]:
  def total(logits):
    return losses.pixel_sums(
      logits, jnp.asarray(labels), losses.Settings(**settings)
    )

  sums, back = jax.vjp(lambda x: total(x).loss, logits)
  return (sums, total(logits)), back(jnp.float32(1))[0]


def test_one_that_is_the_cross_entropy_gives_the_same(file):
  logits, labels = case()
  weights = (1.0, 2.0, 0.5, 1.0, 3.0)
  for settings in ({}, {"class_weights": weights}):
    (loss, sums), grad = value_and_grad(logits, labels, **settings)
    (mine, counts), own_grad = value_and_grad(
      logits, labels, own=loaded(file, "plain"), **settings
    )
    np.testing.assert_allclose(mine, loss, rtol=1e-6)
    np.testing.assert_allclose(own_grad, grad, atol=1e-6)
    assert [*map(int, counts[1:])] == [*map(int, sums[1:])]
    assert int(counts.illegal) == 1


def test_keywords_and_classes_reach_the_loss(file):
  logits, labels = case()
  valid = labels < CLASSES
  entropy = optax.softmax_cross_entropy_with_integer_labels(
    logits, jnp.where(valid, labels, 0)
  )
  for value, each in (
    ("focal(gamma=1.0)", (1 - jnp.exp(-entropy)) * entropy),
    ("Scaled(factor=3.0)", 3 * entropy),
  ):
    mine = loaded(file, value)
    (loss, _), grad = value_and_grad(logits, labels, own=mine)
    np.testing.assert_allclose(loss, jnp.sum(each[valid]), rtol=1e-5)
    assert np.isfinite(grad).all() and not np.asarray(grad)[~valid].any()
  words = losses.Settings(own=mine, hard_pixels=0.5).describe()
  assert words == "own: Scaled, hardest 50% of each device's pixels"
  assert losses.Settings(own=loaded(file, "focal(gamma=1.0)")).describe() == (
    "own: focal"
  )


def test_the_hardest_pixels_are_those_of_the_own_loss(file):
  logits, labels = case()
  (whole, _), _ = value_and_grad(logits, labels, own=loaded(file, "plain"))
  settings = losses.Settings(own=loaded(file, "plain"))
  sums = losses.pixel_sums(
    logits, jnp.asarray(labels), settings, hard_share=0.1
  )
  assert int(sums.counted) == int(0.1 * labels.size)
  assert 0.1 * whole < sums.loss < whole


WRONG = {
  "mean": (
    r"returns \(\) of float32 for logits of \(2, 5, 7, 5\) .*"
    r"each pixel, \(2, 5,"
  ),
  "wrong": "line 27: ValueError: Incompatible types",
  "other": "TypeError: other\\(\\) got an unexpected keyword .*'ignore_label'",
  "Scaled": "missing 1 required positional argument: 'factor'",
  "focal(gama=1)": "unexpected keyword argument 'gama'",
  "nothing": "has no nothing; it has plain, focal, Scaled, mean, wrong, other",
}


@pytest.mark.parametrize("value", WRONG)
def test_what_is_no_loss_is_one_message(value, file):
  with pytest.raises(errors.InputError, match=WRONG[value]) as caught:
    loaded(file, value)
  assert str(caught.value).startswith(f"train.loss {file}:{value}: ")
