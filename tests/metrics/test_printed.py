"""Scores are printed in one way."""

import re

from deeplax.metrics import printed
from tests import house


def test_a_score_is_a_percentage_with_one_decimal():
  for value, text in (
    (0.7721, "77.2%"),
    (0.125649, "12.6%"),
    (0.0, "0.0%"),
    (1.0, "100.0%"),
    (None, "none"),
  ):
    assert printed.score(value) == text
  assert printed.score(None, "absent") == "absent"


def test_differences_and_deviations_have_one_decimal_too():
  assert printed.points(1.449) == "1.4"
  assert [*map(printed.gain, (0.04, -0.04, -2.53))] == ["+0.0", "+0.0", "-2.5"]
  assert printed.mean(41.0, 1.414) == "41.0 ± 1.4"
  assert printed.mean(41.0, float("nan")) == "41.0"
  assert printed.mean(float("nan"), float("nan")) == ""


def test_a_share_may_be_small():
  assert printed.share(0.0004) == "0.04%"


def test_nothing_else_formats_a_score():
  form = re.compile(r"\{[^{}]*(?:miou|accuracy|iou)\b[^{}]*:[^{}]*\.\d[f%]\}")
  assert form.search("f\"{100 * x['miou']:.2f}\"")
  for path, text in house.sources().items():
    if path.startswith("deeplax/"):
      assert not form.findall(text), path
