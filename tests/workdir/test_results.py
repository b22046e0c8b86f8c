"""Results of evaluations: their names, and whole or not at all."""

import json

import numpy as np
import pytest

from deeplax.metrics import confusion
from deeplax.workdir import results as results_lib
from tests.inference import toy


def _result(**fields):
  result = confusion.scores(np.eye(3, dtype=np.int64), toy.SPEC.class_names)
  return {
    **result,
    "images": 7,
    "split_images": 7,
    "step": 400,
    "output_stride": 16,
    "scales": [1.0],
    "flip": False,
    **fields,
  }


@pytest.mark.parametrize(
  ("fields", "name"),
  [
    ({}, "val-00000400-os16-s1.0"),
    (
      {"scales": (0.5, 0.75, 1), "flip": True, "output_stride": 8},
      "val-00000400-os8-s0.5_0.75_1.0-flip",
    ),
    ({"images": 3}, "val-00000400-os16-s1.0-n3"),
    ({"crf": {"w1": 4.0}}, "val-00000400-os16-s1.0-crf"),
    (
      {"crf": {"w1": 4.0}, "flip": True, "images": 3},
      "val-00000400-os16-s1.0-flip-crf-n3",
    ),
  ],
)
def test_the_file_name_tells_what_was_evaluated(tmp_path, fields, name):
  path = results_lib.write_result(tmp_path, "val", _result(**fields))
  assert path.name == f"{name}.json"
  written = json.loads(path.read_text())
  assert written["miou"] == 1.0 and written["iou"]["red"] == 1.0


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
  path = results_lib.write_result(tmp_path, "val", _result())
  before = path.read_text()
  with pytest.raises(TypeError):
    results_lib.write_result(tmp_path, "val", _result(extra=object()))
  assert path.read_text() == before
  assert [p.name for p in (tmp_path / "eval").iterdir()] == [path.name]


@pytest.mark.parametrize(
  "text", ["", "{", "[0.5]", "{}", '{"miou": null}', "\0" * 99, '{"miou": []}']
)
def test_a_broken_result_ends_no_command_that_mentions_it(tmp_path, text):
  path = results_lib.write_result(tmp_path, "val", _result())
  assert "100.0%" in results_lib.known_miou(tmp_path, 400, 16)
  path.write_text(text)
  assert "mIoU not known" in results_lib.known_miou(tmp_path, 400, 16)
  assert path.stem in results_lib.known_miou(tmp_path, 400, 16)
