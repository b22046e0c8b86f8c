"""Images that are predicted together: when, and which result is whose."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.inference import groups
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import sizing
from deeplax.inference import windows
from tests.inference import toy


class Calls(list):
  """Notes what a group predicts: the images' first channel, and its double."""

  def __call__(self, images):
    self.append(images)
    padded = np.full((3, 5, 5), 7.0, np.float32)
    for place, image in enumerate(images):
      padded[place, : image.shape[0], : image.shape[1]] = image[..., 0]
    return [jnp.asarray(padded), jnp.asarray(2 * padded)]


def _group(calls):
  return groups.Group(3, calls)


def _image(value, height=4, width=3):
  return np.full((height, width, 1), value, np.uint8)


def test_a_full_group_is_predicted_at_once_and_each_image_gets_its_part():
  calls = Calls()
  group = _group(calls)
  places = [group.add(_image(v, 2 + v, 5 - v)) for v in range(3)]
  assert [len(images) for images in calls] == [3]
  for value, place in enumerate(places):
    for mode in (0, 1):
      found = group.result(place, mode)
      assert found.shape == (2 + value, 5 - value)
      assert (found == value * (1 + mode)).all()
  assert len(calls) == 1


def test_a_result_asked_for_early_does_not_wait():
  calls = Calls()
  group = _group(calls)
  place = group.add(_image(1))
  assert not calls
  assert (group.result(place, 0) == 1).all()
  assert [len(images) for images in calls] == [1]


def test_a_failure_is_told_to_each_that_asks():
  def fail(images):
    raise RuntimeError(f"{len(images)} images")

  group = groups.Group(3, fail)
  places = [group.add(_image(1)), group.add(_image(2))]
  for place in places:
    with pytest.raises(RuntimeError, match="2 images"):
      group.result(place, 0)


def _predictor(batch, **keywords):
  return predictor_lib.Predictor(
    toy.Brightest(),
    {},
    pad_value=(127.5,) * 3,
    batch=batch,
    progress=toy.silent,
    **keywords,
  )


def _pictures(count):
  rng = np.random.default_rng(0)
  # Two padded sizes, 65x65 and 65x129, mixed.
  return [
    rng.integers(0, 256, (20 + i, 60 + i % 3 * 5, 3), np.uint8)
    for i in range(count)
  ]


def test_several_at_once_are_labeled_as_one_at_a_time_in_any_order():
  images = _pictures(11)
  expected = [image.argmax(-1) for image in images]
  for batch in (1, 2, 4, 16):
    predictor = _predictor(batch)
    pending = [predictor.submit(image) for image in images]
    for i in (3, *reversed(range(11))):
      np.testing.assert_array_equal(pending[i].result(), expected[i])
    streamed = predictor_lib.stream(
      predictor.submit,
      ({"image": image} for image in images),
      n=predictor.look_ahead,
    )
    for (_, found), labels in zip(streamed, expected, strict=True):
      np.testing.assert_array_equal(found, labels)


def test_so_many_images_run_at_once_and_no_more_wait_than_four_groups():
  predictor = _predictor(4)
  assert predictor.look_ahead() == 1
  ran = []
  run = predictor._programs.run
  predictor._programs.run = lambda *args, **keywords: (
    ran.append(len(args[1])) or run(*args, **keywords)
  )
  taken = []

  def items():
    for image in _pictures(40):
      taken.append(image)
      yield {"image": image[:, :60]}

  waiting = [
    len(taken) - given
    for given, _ in enumerate(
      predictor_lib.stream(predictor.submit, items(), n=predictor.look_ahead),
      1,
    )
  ]
  assert ran == [4] * 10
  assert max(waiting) == predictor.look_ahead() == 15


def test_images_that_wait_are_predicted_with_the_variables_of_their_time():
  predictor = predictor_lib.Predictor(
    toy.Weighted(),
    toy.Weighted.best(0),
    pad_value=(127.5,) * 3,
    batch=2,
    progress=toy.silent,
  )
  image = np.full((5, 5, 3), 9, np.uint8)
  before = predictor.submit(image)
  predictor.variables = toy.Weighted.best(2)
  after = predictor.submit(image)
  assert (before.result() == 0).all() and (after.result() == 2).all()


def test_windows_of_an_image_run_together():
  cut = sizing.Sizing(windows=windows.Windows(65, 16))
  image = np.random.default_rng(1).integers(0, 256, (150, 150, 3), np.uint8)
  predictor = _predictor(4, sizing=cut)
  found = predictor.labels(image)
  np.testing.assert_array_equal(found, image.argmax(-1))
  assert predictor.at_once((65, 65)) == 4


def test_exact_sizes_run_together_only_with_their_own():
  images = _pictures(6)[::3] * 2
  exact = _predictor(4, sizing=sizing.Sizing("exact"))
  pending = [exact.submit(image) for image in images]
  for result, image in zip(pending, images, strict=True):
    np.testing.assert_array_equal(result.result(), image.argmax(-1))


def test_sizes_to_come_count_windows_and_images_that_run_alone_once():
  cut = sizing.Sizing(windows=windows.Windows(65, 16))
  predictor = _predictor(0, sizing=cut)
  assert predictor.expect([(60, 60), (40, 50), (150, 150)]) == 1
  assert predictor._programs.expected == {(65, 65): 1 + 9}
  whole = _predictor(0)
  assert whole.expect([(60, 60), (40, 50), (150, 150)]) == 2
  assert whole._programs.expected == {(65, 65): 2, (193, 193): 1}
  predictor.expect_images(7)
  whole.expect_images(7)
  assert (predictor._programs.images, whole._programs.images) == (0, 7)
