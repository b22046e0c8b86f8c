"""Rows that share views: each bit by bit what it is alone, nothing twice."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.inference import averaging
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import probabilities

Mode = mode_lib.Mode
PAPERS = (
  Mode(),
  Mode((0.5, 0.75, 1.0, 1.25)),
  Mode((0.5, 0.75, 1.0, 1.25), True),
)
# No prefix of another, other orders, single views that others share.
MIXED = (
  Mode((1.5, 0.5), True),
  Mode((1.0,), True),
  Mode((1.5,)),
  Mode((0.5, 1.0)),
  Mode((0.5, 1.5)),
)


class Blurred(nn.Module):
  """Convolutions at stride 2: every scale and flip gives something else."""

  @nn.compact
  def coarse(self, images, *, train: bool):
    x = nn.Conv(8, (3, 3), (2, 2), name="first")(images / 64 - 2)
    return nn.Conv(5, (3, 3), name="second")(nn.relu(x)) * 4


@pytest.fixture(scope="module")
def predictor():
  model = Blurred()
  images = jnp.zeros((1, 9, 9, 3))
  variables = model.init(
    jax.random.key(0), images, train=False, method="coarse"
  )
  return predictor_lib.Predictor(
    model, variables, pad_value=(127.5,) * 3, progress=lambda _: None
  )


def _image(height=45, width=37, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("modes", [PAPERS, MIXED])
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@pytest.mark.parametrize("timed", [False, True])
def test_a_row_is_bit_by_bit_what_it_is_alone(predictor, modes, kind, timed):
  seconds = {} if timed else None
  together = predictor.submit_modes(_image(), modes, kind=kind, seconds=seconds)
  found = [pending.result() for pending in together]
  for mode, row in zip(modes, found, strict=True):
    alone = predictor.in_mode(mode).submit(_image(), kind=kind).result()
    assert row.dtype == alone.dtype
    np.testing.assert_array_equal(row, alone)
  assert not np.array_equal(found[0], found[1])
  if seconds is not None:
    assert set(seconds) == set(modes) and min(seconds.values()) > 0


@pytest.mark.parametrize("mode", [Mode(), Mode((1.5, 0.5), True)])
def test_probabilities_are_those_of_the_plain_function(predictor, mode):
  # On an image of a bucket's size, so that nothing is padded.
  image = _image(65, 65)
  function = functools.partial(
    probabilities.predict_probabilities,
    Blurred(),
    scales=mode.scales,
    flip=mode.flip,
  )
  expected = jax.jit(function)(predictor.variables, image[None])
  found = predictor.in_mode(mode)(image)
  np.testing.assert_allclose(found, expected[0], atol=2e-6)


@pytest.mark.parametrize("modes", [PAPERS, MIXED])
def test_each_view_is_computed_once(modes):
  asked = []

  def logits(view):
    asked.append(view)
    return jnp.zeros((1, 2, 2, 3)) + len(asked)

  averaging.predict(modes, logits, labels=True)
  wanted = {view for mode in modes for view in mode.views}
  assert len(asked) == len(set(asked)) and set(asked) == wanted


def test_sums_equal_a_plain_loop_over_the_views():
  def scores(view):
    seed = int(view[1] * 100) + view[0]
    return np.random.default_rng(seed).normal(size=(1, 3, 4, 5))

  found = averaging.predict(
    MIXED, lambda v: jnp.asarray(scores(v), jnp.float32), labels=False
  )
  for mode, row in zip(MIXED, found, strict=True):
    mirrors = (False, True) if mode.flip else (False,)
    total = np.zeros((1, 3, 4, 5))
    for view in itertools.product(mirrors, mode.scales):
      shares = np.exp(scores(view))
      total += shares / shares.sum(-1, keepdims=True)
    expected = total / (len(mirrors) * len(mode.scales))
    np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0, 1.0), (1.0, 0.5, 1)])
def test_scales_that_are_not_positive_or_there_twice_are_refused(scales):
  with pytest.raises(ValueError, match="positive numbers, each once"):
    Mode(scales)


def test_sums_that_no_row_needs_any_more_are_freed():
  alive = []

  def logits(view):
    found = jnp.full((1, 64, 64, 7), view[1])
    jax.block_until_ready(found)
    alive.append(
      sum(x.nbytes for x in jax.live_arrays() if x.shape == found.shape)
    )
    return found

  scales = tuple(0.5 + i / 8 for i in range(12))
  averaging.predict((Mode(scales, True), Mode(scales)), logits, labels=True)
  # 24 views; the logits and shares of one, and the sums before and after it.
  assert max(alive) <= 6 * 64 * 64 * 7 * 4


def test_the_time_of_a_row_leaves_out_what_only_others_need(
  predictor, monkeypatch
):
  ticks = iter(range(1000))
  monkeypatch.setattr(averaging.time, "perf_counter", lambda: next(ticks))
  seconds = {}
  predictor.submit_modes(_image(), PAPERS, seconds=seconds)
  # In ticks: one or more logits, as many sums (no sum for one), and classes.
  assert [seconds[mode] for mode in PAPERS] == [2, 4 + 4 + 1, 8 + 8 + 1]


@pytest.mark.parametrize(
  ("classes", "dtype"), [(256, np.uint8), (300, np.uint16)]
)
def test_the_best_classes_are_those_that_jax_finds(classes, dtype):
  scores = np.random.default_rng(0).random((3, 4, classes)).astype(np.float32)
  scores[0, 0, [7, 200]] = 2.0  # of equal scores the first
  found = averaging.best(scores)
  np.testing.assert_array_equal(found, averaging.classes(jnp.asarray(scores)))
  assert found.dtype == dtype and found[0, 0] == 7
