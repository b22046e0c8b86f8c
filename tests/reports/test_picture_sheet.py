"""The sheet of an evaluation: the same images, predicted once."""

import numpy as np

from deeplax.inference import evaluate
from deeplax.reports import picture_sheet
from tests.inference import toy


def _counting(predictor):
  """Let a predictor count the images that it is given."""
  submit, given = predictor.submit_modes, []

  def counted(image, modes, **settings):
    given.append(image.shape)
    return submit(image, modes, **settings)

  predictor.submit_modes = counted
  return given


def test_a_sheet_shows_what_evaluation_predicted_without_predicting_again():
  source, predictor = toy.Toy(9), toy.predictor()
  given = _counting(predictor)
  sheet = picture_sheet.PictureSheet(source, 3)
  for _ in range(2):
    given.clear()
    evaluate.evaluate(predictor, source, progress=toy.silent, keep=sheet.keep)
    assert len(given) == 9
    drawn = np.asarray(sheet.draw(predictor))
    assert len(given) == 9
    np.testing.assert_array_equal(drawn, toy.as_drawn(source, [0, 3, 6]))
  assert not np.array_equal(drawn, toy.as_drawn(source, [0, 3, 6], spoil=1))


def test_a_sheet_shows_the_same_images_however_many_are_evaluated():
  source, predictor = toy.Toy(9), toy.predictor()
  sheet = picture_sheet.PictureSheet(source, 3)
  given = _counting(predictor)
  evaluate.evaluate(
    predictor, source, max_images=2, progress=toy.silent, keep=sheet.keep
  )
  assert len(given) == 2  # images 0 and 4; 3 and 6 are shown as well
  drawn = np.asarray(sheet.draw(predictor))
  assert len(given) == 4
  np.testing.assert_array_equal(drawn, toy.as_drawn(source, [0, 3, 6]))
