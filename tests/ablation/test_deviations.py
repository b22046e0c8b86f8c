"""How trainings differ from the papers' protocols."""

from deeplax.ablation import deviations
from deeplax.ablation import load


def test_the_papers_own_protocol_differs_by_the_start_alone():
  experiment = load.load("v3plus_table1")
  shared, own = deviations.recipe(experiment, [])
  assert [line[0] for line in shared] == ["setting", "init"]
  assert own == {}
  scaled = load.load("v3_table9", data="camvid")
  _, own = deviations.recipe(scaled, [])
  assert {table[1][0] for table in own.values()} == {"train.batch_size"}


def test_the_time_of_a_training_counts_once_however_many_rows_it_has():
  line = {"status": "finished", "hardware": "2 x CPU"}
  of_one = [line | {"workdir": "a", "seconds": 60}] * 9
  table = deviations.times([*of_one, line | {"workdir": "b", "seconds": 180}])
  assert table[-1][1:] == ["2.0 minutes", "2 x CPU", "measured"]
