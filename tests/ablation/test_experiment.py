"""What an experiment is: rows that share trainings, and its folder."""

from deeplax.ablation import load


def test_rows_that_differ_in_evaluation_share_a_training():
  experiment = load.load("v3plus_table3")
  assert (len(experiment.rows), len(experiment.cells)) == (14, 4)
  experiment = load.load("v2_table1")
  assert (len(experiment.rows), len(experiment.cells)) == (8, 4)
  assert [row.evaluation.crf for row in experiment.rows] == [False, True] * 4


def test_another_argument_has_another_folder():
  assert load.load("v3plus_table1:coco").out().name == "v3plus_table1_coco"
