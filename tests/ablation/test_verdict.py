"""What is said of a table's best row, for every state of the results."""

import math

import pytest

from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import tables
from deeplax.ablation import verdict


def outcome(**rows):
  """Return results by row: scores in percent by seed, or a status."""
  lines = [
    {"row": row, "seed": seed}
    | (
      {"status": value, "miou": None}
      if isinstance(value, str)
      else {"status": "finished", "miou": value / 100}
    )
    for row, values in rows.items()
    for seed, value in enumerate(values)
  ]
  how = experiment_lib.Evaluation(16, (1.0,), False, False)
  named = (experiment_lib.Row(row, {}, None, how, None) for row in rows)
  experiment = experiment_lib.Experiment(
    *("x", "About.", "", "", tuple(named), None, (), (), (), False)
  )
  return tables.Outcome(experiment, lines, {})


SAID = (
  # One deviation is sqrt((2 + 2) / 2) = 1.4.
  (
    {"a": (20, 22), "b": (20.5, 22.5)},
    ("b", ("a",)),
    "b scores best, 21.5 ± 1.4 mIoU (2 seeds); the spread of seeds, 1.4 "
    "points, is larger than the differences.",
  ),
  (
    {"a": (20, 22), "b": (20.5, 22.5), "c": (10, 12)},
    ("b", ("a",)),
    "b scores best, 21.5 ± 1.4 mIoU (2 seeds); 1 more row is within the spread "
    "of seeds, 1.4 points.",
  ),
  (
    {"a": (20, 22), "b": (18, 20)},
    ("a", ()),
    "a scores best, 21.0 ± 1.4 mIoU (2 seeds); b is next, 2.0 points below: "
    "more than the spread of seeds, but less than the 2.8 points that so few "
    "seeds tell from chance.",
  ),
  (
    {"a": (20, 22), "b": (10, 12)},
    ("a", ()),
    "a scores best, 21.0 ± 1.4 mIoU (2 seeds); b is next, 10.0 points below, "
    "which is more than chance (2.8 points).",
  ),
  # The best row has one seed, the others tell the spread.
  (
    {"a": (20, 22), "b": (25,)},
    ("b", ()),
    "b scores best, 25.0 mIoU (1 seed); a is next, 4.0 points below, which is "
    "more than chance (3.5 points).",
  ),
  (
    {"a": (20,), "b": (30,)},
    ("b", ()),
    "b scores best, 30.0 mIoU (1 seed); with single seeds the order of the "
    "rows may be chance.",
  ),
  (
    {"a": (20,), "b": ("failed", "not run"), "c": ("not run",), "d": ()},
    None,
    "Only a has a score: 20.0 mIoU (1 seed). Rows without a score: 1 failed, "
    "1 not run, 1 not here.",
  ),
  (
    {"a": ("failed",), "b": ("not run",)},
    None,
    "No row has a score. Rows without a score: 1 failed, 1 not run.",
  ),
)


@pytest.mark.parametrize(("rows", "best", "said"), SAID)
def test_the_sentence_claims_no_more_than_the_seeds_allow(rows, best, said):
  found = outcome(**rows)
  assert verdict.best(found) == best
  assert verdict.sentence(found) == said


def test_the_spread_is_that_of_one_run():
  of_rows = [tables.Scores(2, 20.0, 3.0), tables.Scores(3, 30.0, 1.0)]
  assert verdict.spread(of_rows) == pytest.approx(5**0.5)
  alone = [tables.Scores(1, 20.0, math.nan)]
  assert math.isnan(verdict.spread(alone))
