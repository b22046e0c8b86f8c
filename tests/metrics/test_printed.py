"""Scores are printed in one way."""

import re

from deeplax.metrics import printed
from tests import house


def test_a_score_is_a_percentage_with_two_decimals():
  for value, text in (
    (0.7721, "77.21%"),
    (0.125649, "12.56%"),
    (0.0, "0.00%"),
    (1.0, "100.00%"),
    (None, "none"),
  ):
    assert printed.score(value) == text
  assert printed.score(None, "absent") == "absent"


# Where a score stands in a table beside the papers' numbers, or in a drawing.
PAPERS = ("deeplax/ablation/page.py", "deeplax/ablation/tables.py")


def test_nothing_else_formats_a_score():
  form = re.compile(r"\{[^{}]*(?:miou|accuracy|iou)\b[^{}]*:[^{}]*\.\d[f%]\}")
  assert form.search("f\"{100 * x['miou']:.2f}\"")
  for path, text in house.sources().items():
    if path.startswith("deeplax/") and path not in PAPERS:
      assert not form.findall(text), path
