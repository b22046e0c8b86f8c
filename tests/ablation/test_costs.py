"""What rows cost, beside what the papers say."""

import pytest

from deeplax.ablation import costs as costs_lib
from deeplax.ablation import load
from experiments import report as report_door


def test_costs_stand_beside_the_papers_and_name_what_contradicts_it():
  experiment = load.load("v3plus_table3")
  wanted = {
    row.name: {
      "multiply_adds": 1,
      "multiply_adds_paper": row.multiply_adds * 1e9 * 1.001,
      "parameters": 1,
    }
    for row in experiment.rows
    if row.multiply_adds
  }
  first, *others = costs_lib.verdicts(experiment, wanted)
  assert "12 rows are within 0.3%" in first
  assert len(others) == 2
  assert all("101.28" in line for line in others)
  wanted["16-8"]["multiply_adds_paper"] *= 1.01
  assert any(
    line.startswith("16-8: +1.10%")
    for line in costs_lib.verdicts(experiment, wanted)
  )


def test_separable_convolutions_save_a_third():
  experiment = load.load("v3plus_table5")
  rows = {row.name: row for row in experiment.rows}
  pair = experiment.savings[0]
  found = {name: costs_lib.of_row(rows[name]) for name in pair}
  found |= {name: {} for name in rows if name not in found}
  for name in pair:
    share = costs_lib.against_paper(rows[name], found[name])
    assert share is not None and abs(share) < costs_lib.TOLERANCE
  speed = {name: {"images_per_second": 1.0 + i} for i, name in enumerate(pair)}
  _, line, *_ = costs_lib.savings(experiment, found, speed)
  assert line[2:7] == ["-37.7%", "-39.7%", "-39.7%", "-25.0%", "+100.0%"]


@pytest.mark.slow  # 40 s: 60 traces
@pytest.mark.parametrize(
  ("name", "beyond"), [("v3plus_table3", {"32-32"}), ("v3plus_table5", set())]
)
def test_multiply_adds_of_a_whole_table_are_the_papers(name, beyond):
  experiment = load.load(name)
  costs = costs_lib.of(experiment)
  contradicted = experiment.paper.inconsistent if experiment.paper else ()
  found = set()
  for row in experiment.rows:
    share = costs_lib.against_paper(row, costs[row.name])
    assert share is not None
    if row.multiply_adds not in contradicted:
      # The papers' profiler counted up to 0.25B more than convolutions.
      assert abs(share * (row.multiply_adds or 0)) < 0.25 or (
        abs(share) < costs_lib.TOLERANCE
      )
      found |= {row.name} if abs(share) > costs_lib.TOLERANCE else set()
  assert found == beyond


def test_field_of_view_is_the_papers():
  rows = load.load("v1_field_of_view").rows
  # v1, table 2: receptive fields.
  assert [
    costs_lib.of_row(row, field_of_view=True)["field_of_view"] for row in rows
  ] == [224, 128, 224, 224]


@pytest.mark.slow  # traces whole networks
def test_without_rates_the_same_network_sees_less():
  rows = load.load("atrous_or_not:debug").rows[1:3]
  costs = [costs_lib.of_row(row, field_of_view=True) for row in rows]
  atrous, dropped = (c.pop("field_of_view") for c in costs)
  true = [(c["multiply_adds"], c["parameters"]) for c in costs]
  assert true[0] == true[1]
  # The three 3x3 of block4 at rate 1 and not 2, on features of stride 16, reach
  # 16 pixels less to each side.
  assert atrous - dropped == 3 * 2 * 16


def test_costs_alone_need_no_run(tmp_path, capsys):
  with pytest.raises(SystemExit) as ended:
    report_door.main(["v3_table9:debug", "--costs-only", f"--out={tmp_path}"])
  assert ended.value.code == 0
  assert "Multiply-Adds, B" in (tmp_path / "costs.md").read_text()
  assert (tmp_path / "costs.html").exists() and (
    tmp_path / "costs.csv"
  ).exists()
  assert not (tmp_path / "report.html").exists()
  assert "costs.html" in capsys.readouterr().out
