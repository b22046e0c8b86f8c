"""How many programs images of many sizes need, and what is told of them."""

import contextlib

import jax
from jax import monitoring
import numpy as np
import pytest

from deeplax import crf
from deeplax.crf import dense
from deeplax.crf import program
from deeplax.crf import room
from tests.crf import test_dense
from tests.crf import truth

SIZES = ((30, 40), (40, 30), (36, 41), (40, 40), (25, 40), (33, 44))


@pytest.fixture(autouse=True)
def _nothing_compiled(monkeypatch):
  monkeypatch.setattr(room, "_chosen", [])
  monkeypatch.setattr(room, "_of_positions", {})
  monkeypatch.setattr(program, "_compiled", {})
  dense._smoothness.cache_clear()
  yield
  dense._smoothness.cache_clear()


@contextlib.contextmanager
def compilations():
  """Collect the seconds of everything that XLA compiles or reads from disk."""
  found = []

  def listen(event, duration_secs, **_):
    if event == "/jax/core/compile/backend_compile_duration":
      found.append(duration_secs)

  monitoring.register_event_duration_secs_listener(listen)
  try:
    yield found
  finally:
    monitoring.unregister_event_duration_listener(listen)


def photos(sizes, seed=0):
  """Images of more or less grain, and so of more or fewer vertices."""
  for number, size in enumerate(sizes):
    rng = np.random.default_rng(seed + number)
    image, probabilities = test_dense.scene(size, seed=number)
    grain = rng.integers(0, 2 + 5 * (number % 3), image.shape)
    yield (image + grain).astype(np.uint8), probabilities


def test_twelve_photographs_of_six_sizes_need_two_programs():
  told = []
  with compilations() as compiled:
    for image, probabilities in photos(SIZES * 2):
      crf.dense_crf(image, probabilities, compiled=told.append)
  assert 1 <= len(compiled) <= 2
  assert len(told) == len(compiled) and min(told) > 0


def test_arrays_longer_than_an_image_change_nothing():
  for image, probabilities in photos(SIZES[:3]):
    size = image.shape[:2]
    found = crf.dense_crf(image, probabilities)
    # The path of a batch has arrays of just its length.
    exact = crf.dense_crf(image[None], probabilities[None])[0]
    np.testing.assert_allclose(found, exact, atol=1e-6)
    longest = max(x.pixels for x in room._chosen)
    assert longest > size[0] * size[1]


def test_one_program_serves_all_choices_of_as_many_classes():
  rng = np.random.default_rng(0)
  image, _ = test_dense.scene((20, 24))
  with compilations() as compiled:
    for present in ([0, 3], [8, 2, 5]):
      logits = rng.normal(size=(20, 24, 9)) - 9
      logits[..., present] += 9
      probabilities = truth.softmax(logits).astype(np.float32)
      found = np.asarray(crf.dense_crf(image, probabilities, negligible=0.01))
      assert set(np.unique(found.argmax(-1))) <= {*present}
  assert len(compiled) == 1


def test_traced_weights_go_through_the_same_program():
  image, probabilities = test_dense.scene()
  found = jax.jit(lambda w: crf.dense_crf(image, probabilities, w1=w))(2.0)
  expected = crf.dense_crf(image, probabilities, w1=2.0)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_it_runs_inside_jit_beside_what_is_traced():
  ((image, probabilities),) = photos(SIZES[:1])
  expected = np.asarray(crf.dense_crf(image, probabilities, iterations=1))

  @jax.jit
  def scaled(factor):
    return factor * crf.dense_crf(image, probabilities, iterations=1)

  np.testing.assert_allclose(scaled(2.0), 2 * expected, atol=1e-6)
