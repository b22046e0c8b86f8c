"""Experiments: their rows, cells, recipes and command lines."""

import argparse
import json
import pathlib
import re
import sys

from absl import flags
from ml_collections import config_flags
import pytest

from deeplax import errors
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import jobs as jobs_lib
from deeplax.ablation import papers
from deeplax.ablation import results as results_lib
from experiments import run
from tests import shared

EXPERIMENTS = experiment_lib.names()
PLAIN = experiment_lib.Evaluation(16, (1.0,), False, False)
SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# An experiment of a user's own: the one that README shows.
OWN = re.findall(
  r"```python\n(.*?)```",
  (experiment_lib.ROOT / "README.md").read_text(),
  re.DOTALL,
)[-1]


@pytest.fixture
def own(tmp_path):
  """A function that writes an experiment of these settings, or `OWN`."""

  def write(*settings):
    path = tmp_path / "my_ablation.py"
    text = OWN
    if settings:
      text = f"BASE = 'quickstart'\ndef sweep():\n  return {list(settings)}\n"
    path.write_text(text)
    return str(path)

  return write


def test_an_ablation_of_ones_own_is_short_and_may_lie_anywhere(own):
  assert len(OWN.splitlines()) < 30
  experiment = experiment_lib.load(f"{own()}:debug")
  assert (experiment.name, experiment.seeds) == ("my_ablation", (0, 1))
  assert [cell.name for cell in experiment.cells] == [
    "channels=16", "channels=32",
  ]  # fmt: skip
  assert [row.evaluation.flip for row in experiment.rows] == [False, True] * 2


def test_every_table_that_can_be_mirrored_is():
  wanted = {
    *(f"v3plus_table{n}" for n in ("1", "2", "3", "5", "7a")),
    *(f"v3_table{n}" for n in (1, 2, 3, 4, 5, 6, 8, 9, 10)),
    *(f"v2_table{n}" for n in (1, 2, 3, 4)),
    *("v1_field_of_view", "v3plus_trimap", "crf_on_off", "upsample_logits"),
    *("atrous_or_not", "decoder_stride", "xception_modifications"),
  }
  assert wanted <= set(EXPERIMENTS)


def test_the_papers_numbers_are_those_of_the_reference():
  text = shared.path("reference/paper_tables.json").read_text()
  reference = {table["id"]: table for table in json.loads(text)["tables"]}
  known = json.loads(papers.FILE.read_text())["tables"]
  for name, table in known.items():
    version, _, kind = name.partition("_")
    version = version.replace("v3plus", "v3p")
    other = reference[f"{version}_{kind.replace('table', 't')}"]
    assert (table["rows"], table["columns"]) == (
      other["rows"], other["columns"],
    )  # fmt: skip
    assert "arXiv:" in table["source"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_loads_with_one_number_of_the_paper_a_row(name):
  experiment = experiment_lib.load(name)
  assert experiment.cells
  assert f"COMMAND: python -m experiments.run {name}" in experiment.about
  names = [row.name for row in experiment.rows]
  assert len(set(names)) == len(names)
  for row in experiment.rows:
    assert (row.cell is None) == bool(row.why)
  for cell in experiment.cells:
    assert re.fullmatch(r"[\w.=,-]+", cell.name)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_debug_has_the_same_rows_on_made_up_data_and_no_number(name):
  experiment = experiment_lib.load(f"{name}:debug")
  assert experiment.cells
  for row in experiment.rows:
    assert row.miou is None
    if row.cell:
      config = row.cell.config
      assert config.data.name == "shapes"
      assert config.train.total_steps <= 4 and config.train.batch_size <= 6
      assert max(config.data.crop_size) <= 33
  assert experiment.out().name == f"{name}_debug"


@pytest.mark.parametrize("data", ["camvid", "shapes"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_recipe_refuses_rows_by_name_and_never_trains_one_twice(name, data):
  experiment = experiment_lib.load(name, data=data)
  seen = [cell.config.to_json() for cell in experiment.cells]
  assert len(set(seen)) == len(seen)
  for row in experiment.rows:
    if row.cell is None:
      assert row.why
    else:
      config = row.cell.config
      assert (config.data.name, config.model.backbone) == (data, "mobilenet_v2")
      assert row.cell.file.startswith("experiments/config.py:")


def test_a_recipe_keeps_what_a_table_varies_at_its_own_scale():
  rows = experiment_lib.load("v3plus_table2", data="camvid").rows
  decoders = [row.cell.config.model.decoder for row in rows if row.cell]
  assert [d.channels for d in decoders] == [128, 128, 128, 64, 128, 128]
  assert [d.convs for d in decoders] == [1, 2, 3, 1, 1, 1]
  assert decoders[5].features == (8, 4)
  batches = [
    row.cell.config.train.batch_size
    for row in experiment_lib.load("v3_table9", data="camvid").rows
    if row.cell
  ]
  assert batches == [2, 4, 6, 8]
  steps = [
    (row.cell.config.train.total_steps, row.cell.config.optim.step_every)
    for row in experiment_lib.load("v2_table2", data="camvid", steps=200).rows
    if row.cell
  ]
  assert [total for total, _ in steps] == [60, 60, 100, 100, 200]
  assert steps[0][1] == 20


def test_a_recipe_says_what_the_small_network_cannot_have():
  rows = {
    r.name: r for r in experiment_lib.load("v3_table2", data="camvid").rows
  }
  assert not [row for row in rows.values() if row.cell]
  row = rows["backbone=resnet_v1_101_beta,cascade_blocks=1"]
  assert "cascade" in row.why and "mobilenet_v2" in row.why
  depths = experiment_lib.load("v3plus_table7a", data="camvid").rows
  assert depths[3].cell is None and "xception_71" in depths[3].why
  assert depths[3].why.endswith(
    "have model.backbone mobilenet_v2. The rows of xception_65, the table's "
    "own network, are run so; this one differs from them by xception_71, which "
    "it cannot there"
  )
  # Also where the row asks for what the small network has.
  grids = experiment_lib.load("v3_table5", data="camvid").rows
  assert [row.cell is None for row in grids] == [True] * 2 + [False] * 3
  assert "The rows of (1, 2, 4), the table's" in grids[0].why
  full = experiment_lib.load(
    "v3plus_table7a", data="camvid", full_size=True
  ).rows
  assert full[3].cell and full[3].cell.config.model.backbone == "xception_71"


def test_rows_that_differ_in_evaluation_share_a_training():
  experiment = experiment_lib.load("v3plus_table3")
  assert (len(experiment.rows), len(experiment.cells)) == (14, 4)
  experiment = experiment_lib.load("v2_table1")
  assert (len(experiment.rows), len(experiment.cells)) == (8, 4)
  assert [row.evaluation.crf for row in experiment.rows] == [False, True] * 4


def test_evaluations_are_few_commands_that_cover_all_rows():
  several = PLAIN._replace(scales=SIX)
  flipped = several._replace(flip=True)
  six = "--scales=0.5,0.75,1.0,1.25,1.5,1.75"
  assert jobs_lib.evaluations([]) == []
  # One scale is beside several in a sweep.
  assert jobs_lib.evaluations([PLAIN, several, flipped]) == [
    ["--sweep", "--output_strides=16", six]
  ]
  assert jobs_lib.evaluations([several]) == [
    ["--sweep", "--output_strides=16", six, "--no-flip"]
  ]
  assert jobs_lib.evaluations(
    [PLAIN._replace(output_stride=8), PLAIN._replace(crf=True)]
  ) == [
    ["--no-sweep", "--output_strides=8", "--scales=1.0", "--no-flip"],
    ["--no-sweep", "--output_strides=16", "--scales=1.0", "--no-flip",
     "--crf"],
  ]  # fmt: skip


def test_flips_that_a_configurations_table_leaves_out_are_evaluated_alone():
  flipped = PLAIN._replace(flip=True)
  assert jobs_lib.evaluations([PLAIN, flipped], (False,)) == [
    ["--sweep", "--output_strides=16", "--scales=1.0", "--no-flip"],
    ["--no-sweep", "--output_strides=16", "--scales=1.0", "--flip"],
  ]


def job(experiment, tmp_path, place=0, **settings):
  return results_lib.jobs(experiment, tmp_path, **settings)[place]


def test_a_job_trains_with_its_seed_and_evaluates_what_training_does_not(
  tmp_path,
):
  train, evaluate = job(
    experiment_lib.load("v3plus_table3"), tmp_path, 1, seeds=(3,)
  ).commands()
  assert train[1:3] == ["-m", "deeplax.main"]
  assert "--config=configs/v3plus_resnet101.py" in train
  assert "--config.seed=3" in train
  assert "--config.model.decoder.kind=concat" in train
  assert evaluate[1:3] == ["-m", "deeplax.evaluate"]
  assert "--output_strides=16,8" in evaluate


def test_weights_are_converted_for_each_network_but_not_for_cocos(tmp_path):
  experiment = experiment_lib.load("v3_table6")
  plain, coco = (
    job(experiment, tmp_path, i, weights="tf_deeplab:a.ckpt") for i in (0, 1)
  )
  convert, train, _ = plain.commands()
  assert "--source=tf_deeplab" in convert and "--checkpoint=a.ckpt" in convert
  (start,) = [word for word in train if "init.checkpoint" in word]
  assert f"--workdir={start.partition('=')[2]}" in convert
  assert len(coco.commands()) == 2


def parsed(cell, monkeypatch):
  """Return the configuration that a cell's command line means."""
  monkeypatch.chdir(experiment_lib.ROOT)
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file(
    "config", lock_config=True, flag_values=values
  )
  # ml_collections looks for overrides there and not in what is parsed.
  monkeypatch.setattr(sys, "argv", ["deeplax.main", *cell.flags()])
  assert values(sys.argv) == ["deeplax.main"]
  return holder.value


@pytest.mark.parametrize(
  ("name", "settings"),
  [
    ("v3plus_table2", {}),
    ("v3plus_table2", {"data": "camvid", "steps": 40}),
    ("v2_table1:debug", {}),
    ("v2_table4", {}),
    ("v2_table2", {"data": "shapes"}),
    ("v3plus_table7a", {"data": "voc2012"}),
    ("v3plus_table7a", {"data": "camvid", "full_size": True}),
  ],
)
def test_the_command_line_means_the_cells_configuration(
  name, settings, monkeypatch
):
  for cell in experiment_lib.load(name, **settings).cells:
    found = parsed(cell, monkeypatch)
    assert json.loads(found.to_json()) == json.loads(cell.config.to_json())


def test_tuples_and_none_survive_the_command_line(monkeypatch, own):
  settings = {
    "eval.pad_to": None,  # :debug sets it
    "model.atrous_rates": None,  # None already
    "model.decoder.features": (8, 4),
    "model.multi_grid": (1, 1, 1),
    "data.shapes_size": (33, 65),
    "model.batch_norm.group": "2",
    "optim.base_lr": 1e-5,
  }
  (cell,) = experiment_lib.load(f"{own(settings)}:debug").cells
  assert cell.unset == ("eval.pad_to",)
  found = parsed(cell, monkeypatch)
  assert json.loads(found.to_json()) == json.loads(cell.config.to_json())
  for key, value in settings.items():
    assert experiment_lib.look_up(found, key) == value


@pytest.mark.parametrize(
  "settings",
  [{"model.decoder.chanels": 8}, {"model.deccoder.kind": "none"},
   {"model.decoder.channels": "many"}, {"model.head": "aspp_sum"}],
)  # fmt: skip
def test_a_row_its_configuration_does_not_know_stops_before_any_run(
  settings, own
):
  with pytest.raises(errors.InputError, match="model"):
    experiment_lib.load(own(settings))


@pytest.mark.parametrize(
  ("text", "said"),
  [
    (
      "BASE = 'quickstart'\ndef sweep():\n  yield {'a': b}\n",
      "line 3: Name",
    ),
    ("BASE = 'quickstart'\ndef sweep(:\n", "SyntaxError"),
    ("BASE = 'quickstart'\ndef sweep():\n  return []\n", "yields no row"),
    (f"{OWN}\nMEASURE = ('--trimaps',)", "'--trimaps'.*--boundary"),
    (f"{OWN}\nSAVINGS = (('a', 'b'),)", "'a', which is no row"),
  ],
)
def test_a_mistake_in_ones_own_ablation_is_shown_without_a_traceback(
  text, said, own
):
  path = pathlib.Path(own())
  path.write_text(text)
  with pytest.raises(errors.InputError, match=said) as raised:
    experiment_lib.load(str(path))
  assert str(path) in str(raised.value)


def test_another_argument_has_another_folder():
  assert (
    experiment_lib.load("v3plus_table1:coco").out().name == "v3plus_table1_coco"
  )


def test_the_report_that_is_named_at_the_end_is_of_the_same_run():
  parser = argparse.ArgumentParser()
  run.add_arguments(parser)
  text = "v3_table9 --data=camvid --full_size --steps=5 --seeds=0,4 --set=a=b"
  text += " --out=somewhere/else"
  args = parser.parse_args(text.split())
  assert run.report_command(args) == f"python -m experiments.report {text}"


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["v3plus_table9"], "v3plus_table1"),
    (["nothing.py"], "nothing.py"),
    (["v3plus_table1", "--only", "channels=7"], "low_level_channels=48"),
    (["v3plus_table1", "--shard=5/4"], "5/4"),
    (["v3plus_table1", "--seeds=0,0"], "0,0"),
    (["v3plus_table1", "--steps=0"], "1 or more"),
    (["v3plus_table1", "--full_size"], "--data"),
    (["v3plus_table1:debug", "--data=camvid"], "choose one"),
    (["v3plus_table1:nothing"], "nothing"),
    (["v3plus_table1", "--set", "nothing"], "data.root"),
    (["v3plus_table1", "--set", "data.rot=/a"], "rot"),
  ],
)
def test_bad_input_ends_with_a_message(arguments, said, capsys, tmp_path):
  with pytest.raises(SystemExit) as ended:
    run.main([*arguments, "--dry_run", f"--out={tmp_path}"])
  assert ended.value.code == 2
  assert said in capsys.readouterr().err


def dry_run(capsys, *arguments):
  with pytest.raises(SystemExit) as ended:
    run.main([*arguments, "--dry_run"])
  assert ended.value.code == 0
  return capsys.readouterr().out.splitlines()


def test_a_dry_run_shows_every_command_and_writes_nothing(capsys, tmp_path):
  lines = dry_run(capsys, "v3plus_table1", f"--out={tmp_path}")
  assert len(lines) == 15  # three seeds
  assert all(
    line.startswith("python -m deeplax.main --config=configs/v3plus_resnet101")
    for line in lines
  )
  assert not list(tmp_path.iterdir())


def test_shards_share_the_trainings_without_overlap(capsys, tmp_path):
  whole = dry_run(capsys, "v3plus_table1", f"--out={tmp_path}")
  shards = [
    dry_run(capsys, "v3plus_table1", f"--out={tmp_path}", f"--shard={i}/4")
    for i in (1, 2, 3, 4)
  ]
  assert sorted(sum(shards, [])) == sorted(whole)


def test_only_some_rows_and_settings_of_all(capsys, tmp_path):
  lines = dry_run(
    capsys, "v3plus_table1", f"--out={tmp_path}", "--seeds=1", "--only",
    "*=8", "*=64", "--set", "data.root=/data", "--steps=50",
  )  # fmt: skip
  assert len(lines) == 2
  assert all("--config.data.root=/data" in line for line in lines)
  assert all("--config.train.total_steps=50" in line for line in lines)


def test_of_a_training_only_the_rows_that_are_asked_for_are_evaluated(
  capsys, tmp_path
):
  given = ("v3plus_table3", f"--out={tmp_path}", "--seeds=0", "--only")
  (train,) = dry_run(capsys, *given, "16-16-decoder")
  assert "deeplax.main" in train
  _, evaluate = dry_run(capsys, *given, "16-16-decoder", "16-8-decoder")
  assert "--output_strides=8 --scales=1.0" in evaluate
  _, evaluate = dry_run(capsys, *given, "output_stride=16,kind=concat")
  assert "--sweep --output_strides=16,8" in evaluate


def test_rows_that_cannot_run_are_said(capsys, tmp_path):
  lines = dry_run(capsys, "v3plus_table5", "--data=camvid", f"--out={tmp_path}")
  said = [line for line in lines if line.startswith("#")]
  assert len(said) == 8
  assert sum("JFT-300M" in line for line in said) == 4
