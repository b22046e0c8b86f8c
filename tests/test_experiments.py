"""A sweep's cells, their command lines, what is run again and what is told."""

import json
import pathlib
import subprocess
import sys

from absl import flags
from ml_collections import config_flags
import pytest

from deeplax import errors
from experiments import report
from experiments import run
from tests import shared

# What a cell's command does here in place of training: write the results.
FAKE_RUN = """
import json, pathlib, sys
workdir = pathlib.Path(sys.argv[1])
(workdir / "eval").mkdir(parents=True)
(workdir / "config.json").write_text(sys.argv[2])
(workdir / "env.json").write_text('{"commit": "abc"}')
step = json.loads(sys.argv[2])["train"]["total_steps"]
result = dict(miou=0.5, step=step, output_stride=16, scales=[1.0], flip=False,
              images=4, split_images=4, split="val", init="random")
(workdir / "eval" / f"val-{step:08d}-os16-s1.0.json").write_text(
    json.dumps(result))
"""


@pytest.fixture
def cells(monkeypatch):
  """Three cells whose commands take no time."""

  def command(cell, out):
    code = "raise SystemExit('no luck')"
    if cell.settings["model.decoder.low_level_channels"] != 16:
      code = FAKE_RUN
    config = cell.config.to_json()
    return [sys.executable, "-c", code, str(cell.workdir(out)), config]

  monkeypatch.setattr(run.Cell, "command", command)
  return run.load("v3plus_table1")[:3]


def test_table1_has_the_papers_numbers():
  tables = json.loads(shared.path("reference/paper_tables.json").read_text())
  rows = next(t["rows"] for t in tables["tables"] if t["id"] == "v3p_t1")
  key = "model.decoder.low_level_channels"
  assert [[c.settings[key], c.paper] for c in run.load("v3plus_table1")] == rows


def test_an_argument_has_no_number_of_the_paper():
  assert [cell.paper for cell in run.load("v3plus_table1:debug")] == [None] * 5


def test_each_cell_differs_from_its_configuration_only_where_it_says():
  for cell in run.load("v3plus_table1:debug"):
    decoder = cell.config.model.decoder
    assert decoder.low_level_channels == int(cell.name.split("=")[1])
    assert decoder.convs == 1
    assert cell.config.data.name == "shapes"


def test_tuples_and_none_survive_the_command_line(monkeypatch, tmp_path):
  monkeypatch.chdir(run.ROOT)
  settings = {
    "eval.pad_to": None,  # :debug sets it
    "model.atrous_rates": None,  # None already
    "data.root": None,
    "model.decoder.features": (8, 4),
    "model.multi_grid": (1, 2, 4),
    "data.crop_size": (33, 65),
    "eval.scales": (0.5, 1.0),
    "eval.flip": True,
    "model.batch_norm.group": "2",
    "optim.base_lr": 1e-5,
  }
  cell = run.make_cell("a", "quickstart:debug", settings, None, "")
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file(
    "config", lock_config=True, flag_values=values
  )
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  # ml_collections looks for overrides there and not in what is parsed.
  monkeypatch.setattr(sys, "argv", cell.command(tmp_path)[2:])
  assert values(sys.argv) == ["deeplax.main"]
  assert json.loads(holder.value.to_json()) == json.loads(cell.config.to_json())
  for key, value in settings.items():
    assert run.look_up(holder.value, key) == value


@pytest.mark.parametrize(
  "settings",
  [{"model.decoder.chanels": 8}, {"model.deccoder.kind": "none"},
   {"model.decoder.channels": "many"}],
)  # fmt: skip
def test_a_cell_its_configuration_does_not_know_stops_before_any_run(settings):
  with pytest.raises(errors.InputError, match="model"):
    run.make_cell("a", "quickstart", settings, None, "")


def test_an_unknown_sweep_is_refused_with_the_known_ones():
  with pytest.raises(errors.InputError, match="v3plus_table1"):
    run.load("v3plus_table9")


def test_a_failed_cell_is_recorded_and_the_others_still_run(cells, tmp_path):
  results = run.run(cells, tmp_path)
  assert [line["status"] for line in results] == [
    *("finished", "failed", "finished"),
  ]
  assert [line["miou"] for line in results] == [0.5, None, 0.5]
  assert report.read(tmp_path) == results
  assert results[0]["commit"] == "abc"
  assert results[0]["workdir"] == "runs/low_level_channels=8"


def test_a_second_run_leaves_finished_cells_alone(cells, tmp_path, monkeypatch):
  first = run.run(cells, tmp_path)
  trained = []
  monkeypatch.setattr(
    run, "train", lambda cell, out: trained.append(cell.name) or "failed"
  )
  second = run.run(cells, tmp_path)
  assert trained == ["low_level_channels=16"]
  assert second[0] == first[0]
  assert second[2] == first[2]


def test_a_workdir_of_other_settings_is_not_taken_for_a_result(cells, tmp_path):
  run.run(cells[:1], tmp_path)
  path = cells[0].workdir(tmp_path) / "config.json"
  config = json.loads(path.read_text())
  config["model"]["decoder"]["convs"] = 2
  path.write_text(json.dumps(config))
  with pytest.raises(errors.InputError, match="convs=2"):
    run.run(cells[:1], tmp_path)


def test_the_table_has_a_row_for_each_cell_and_no_number_without_a_run(
  cells, tmp_path
):
  table = report.markdown(run.run(cells, tmp_path)).splitlines()
  assert table[0] == (
    "| low_level_channels | mIoU | paper | step | init | status |"
  )
  assert table[2] == "| 8 | 50.00 | 77.61 | 30000 | random | finished |"
  assert table[3] == "| 16 |  | 77.92 |  |  | failed |"


def test_the_commands_need_no_training_to_be_seen(tmp_path):
  result = subprocess.run(
    [sys.executable, "-m", "experiments.run", "v3plus_table1", "--dry_run",
     f"--out={tmp_path}"],
    cwd=run.ROOT, capture_output=True, text=True, check=True,
  )  # fmt: skip
  lines = result.stdout.splitlines()
  assert len(lines) == 5
  assert all(
    line.startswith(
      "python -m deeplax.main --config=configs/v3plus_resnet101.py"
    )
    for line in lines
  )
  assert not list(pathlib.Path(tmp_path).iterdir())


@pytest.mark.slow  # 100 s of CPU: five networks are compiled
def test_the_debug_sweep_runs_end_to_end(tmp_path):
  subprocess.run(
    [sys.executable, "-m", "experiments.run", "v3plus_table1:debug",
     f"--out={tmp_path}"],
    cwd=run.ROOT, check=True,
  )  # fmt: skip
  results = report.read(tmp_path)
  assert [line["status"] for line in results] == ["finished"] * 5
  assert all(0 <= line["miou"] <= 1 for line in results)
