"""Rows of one pass: each measured and timed on its own."""

import numpy as np

from deeplax.inference import evaluate
from deeplax.inference import mode as mode_lib
from deeplax.inference import sweep
from deeplax.metrics import measures
from tests.inference import toy

MODES = (mode_lib.Mode(), mode_lib.Mode((0.5,)))
ALL = measures.Measures(trimap=(1, 3), boundary=True, objects=True)


def test_each_row_of_a_pass_is_measured_on_its_own():
  swept = sweep.Sweep(toy.predictor(), MODES)
  rows = evaluate.evaluate_rows(
    swept, toy.Toy(), progress=toy.silent, measured=ALL, step=3
  )
  for scale, row in zip((1.0, 0.5), rows, strict=True):
    predictor, total = toy.predictor(scales=(scale,)), measures.empty(3, ALL)
    for i in range(7):
      example = toy.Toy()[i]
      pair = example["label"], predictor.labels(example["image"])
      total = measures.add(total, measures.count(*pair, 3, ALL))
    expected = measures.scores(total, toy.SPEC.class_names, ALL)
    assert {key: row[key] for key in expected} == expected
    assert row["step"] == 3
  assert rows[0]["boundary_f"] != rows[1]["boundary_f"]


def _image(height, width):
  return np.full((height, width, 3), 100, np.uint8)


def test_one_image_in_some_is_timed_but_none_with_its_compilation():
  predictor = toy.predictor()
  swept = sweep.Sweep(predictor, MODES)
  for i in range(2 * sweep.TIMED + 2):
    swept.submit(_image(20, 60 + i % 2)).result()
  assert swept.timed == 3
  assert swept.size == (65, 65)
  rates = [swept.images_per_second(mode) for mode in MODES]
  assert all(rate is not None and rate > 0 for rate in rates)
  once = sweep.Sweep(predictor, MODES)
  once.submit(_image(20, 60)).result()
  assert once.images_per_second(MODES[0]) is None
