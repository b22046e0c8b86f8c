"""Loading experiments: their rows, cells, recipes and what is refused."""

import json
import pathlib
import re
import sys

from absl import flags as absl_flags
from ml_collections import config_flags
import pytest

from deeplax import errors
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import jobs as jobs_lib
from deeplax.ablation import load
from deeplax.ablation import papers
from deeplax.ablation import recipes
from deeplax.workdir import own_code
from tests import documents
from tests import shared
from tests.commands import ROOT

EXPERIMENTS = load.names()


# An experiment of a user's own: the one that the documents show.
(OWN,) = (
  block.text
  for block in documents.blocks(ROOT / "docs" / "ablations.md")
  if block.language == "python"
)


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
  experiment = load.load(f"{own()}:debug")
  assert (experiment.name, experiment.seeds) == ("my_ablation", (0,))
  assert load.load(str(own())).seeds == (0, 1)
  assert [cell.name for cell in experiment.cells] == [
    "channels=16", "channels=32",
  ]  # fmt: skip
  assert [row.evaluation.flip for row in experiment.rows] == [False, True] * 2


def test_a_row_names_a_file_beside_the_experiment(own, tmp_path, monkeypatch):
  example = experiment_lib.ROOT / "docs" / "examples" / "my_decoder.py"
  (tmp_path / "mine.py").write_text(example.read_text())
  key, value = "model.decoder.kind", "mine.py:MyDecoder(channels=8)"
  path = own({key: "concat"}, {key: value})
  monkeypatch.chdir("/")
  experiment = load.load(f"{path}:debug")
  names = ["kind=concat", "kind=mine.MyDecoder-channels=8"]
  assert [cell.name for cell in experiment.cells] == names
  assert [row.name for row in experiment.rows] == names
  _, cell = experiment.cells
  whole = f"{tmp_path}/{value}"  # commands run in another folder
  assert cell.config.model.decoder.kind == whole
  assert f"--config.{key}={whole}" in cell.flags()
  assert experiment.rows[1].settings == {key: value}  # as reports show it
  # Where the file's folder has another name, it is the same training.
  job = jobs_lib.Job(cell, 0, experiment.rows[1:], (), "", tmp_path / "out")
  config = cell.config.copy_and_resolve_references()
  config.update_from_flattened_dict({key: f"/elsewhere/{value}", "seed": 0})
  job.workdir.mkdir(parents=True)
  (job.workdir / "config.json").write_text(config.to_json())
  own_code.keep(job.workdir, cell.config)
  assert not job.trained()  # and has no result yet
  (tmp_path / "mine.py").write_text("# other\n" + example.read_text())
  with pytest.raises(errors.InputError, match="mine.py has changed since"):
    job.trained()


def test_files_that_differ_in_their_folders_alone_are_two_trainings(
  own, tmp_path
):
  example = experiment_lib.ROOT / "docs" / "examples" / "my_decoder.py"
  for folder in ("a", "b"):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "m.py").write_text(example.read_text())
  rows = [
    {"name": folder, "model.decoder.kind": f"{folder}/m.py:MyDecoder"}
    for folder in ("a", "b")
  ]
  with pytest.raises(errors.InputError, match="two trainings would be called"):
    load.load(f"{own(*rows)}:debug")


def test_a_rows_file_that_fails_is_told_with_its_line(own, tmp_path):
  (tmp_path / "mine.py").write_text("import nothing_of_this_name\n")
  path = own({"model.head": "mine.py:Head"})
  with pytest.raises(errors.InputError, match="line 1: ModuleNotFoundError"):
    load.load(f"{path}:debug")


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


def test_every_experiment_loads_with_one_number_of_the_paper_a_row():
  for name in EXPERIMENTS:
    experiment = load.load(name)
    assert experiment.cells, name
    assert f"COMMAND: python -m experiments.run {name}" in experiment.about
    names = [row.name for row in experiment.rows]
    assert len(set(names)) == len(names), name
    for row in experiment.rows:
      assert (row.cell is None) == bool(row.why), (name, row.name)
    for cell in experiment.cells:
      assert re.fullmatch(r"[\w.=,-]+", cell.name), name


def test_debug_has_the_same_rows_on_made_up_data_and_no_number():
  for name in EXPERIMENTS:
    experiment = load.load(f"{name}:debug")
    assert experiment.cells, name
    for row in experiment.rows:
      told = (name, row.name)
      assert row.miou is None, told
      if row.cell:
        config = row.cell.config
        assert config.data.name == "shapes", told
        assert config.train.total_steps <= 4, told
        assert config.train.batch_size <= 6, told
        assert max(config.data.crop_size) <= 33, told
    assert experiment.out().name == f"{name}_debug"


@pytest.mark.parametrize(
  "data", ["camvid", pytest.param("shapes", marks=pytest.mark.slow)]
)
def test_a_recipe_refuses_rows_by_name_and_never_trains_one_twice(data):
  for name in EXPERIMENTS:
    experiment = load.load(name, data=data)
    seen = [cell.config.to_json() for cell in experiment.cells]
    assert len(set(seen)) == len(seen), name
    for row in experiment.rows:
      told = (name, row.name)
      if row.cell is None:
        assert row.why, told
      else:
        config = row.cell.config
        found = (config.data.name, config.model.backbone)
        assert found == (data, "mobilenet_v2"), told
        assert row.cell.file.startswith("experiments/config.py:"), told


def test_a_recipe_keeps_what_a_table_varies_at_its_own_scale():
  rows = load.load("v3plus_table2", data="camvid").rows
  decoders = [row.cell.config.model.decoder for row in rows if row.cell]
  assert [d.channels for d in decoders] == [128, 128, 128, 64, 128, 128]
  assert [d.convs for d in decoders] == [1, 2, 3, 1, 1, 1]
  assert decoders[5].features == (8, 4)
  batches = [
    row.cell.config.train.batch_size
    for row in load.load("v3_table9", data="camvid").rows
    if row.cell
  ]
  assert batches == [2, 4, 6, 8]
  steps = [
    (row.cell.config.train.total_steps, row.cell.config.optim.step_every)
    for row in load.load("v2_table2", data="camvid", steps=200).rows
    if row.cell
  ]
  assert [total for total, _ in steps] == [60, 60, 100, 100, 200]
  assert steps[0][1] == 20


def test_a_recipe_says_what_the_small_network_cannot_have():
  rows = {r.name: r for r in load.load("v3_table2", data="camvid").rows}
  assert not [row for row in rows.values() if row.cell]
  row = rows["backbone=resnet_v1_101_beta,cascade_blocks=1"]
  assert "cascade" in row.why and "mobilenet_v2" in row.why
  depths = load.load("v3plus_table7a", data="camvid").rows
  assert depths[3].cell is None and "xception_71" in depths[3].why
  assert depths[3].why.endswith(
    "have model.backbone mobilenet_v2. The rows of xception_65, the table's "
    "own network, are run so; this one differs from them by xception_71, which "
    "it cannot there"
  )
  # Also where the row asks for what the small network has.
  grids = load.load("v3_table5", data="camvid").rows
  assert [row.cell is None for row in grids] == [True] * 2 + [False] * 3
  assert "The rows of (1, 2, 4), the table's" in grids[0].why
  full = load.load("v3plus_table7a", data="camvid", full_size=True).rows
  assert full[3].cell and full[3].cell.config.model.backbone == "xception_71"


def parsed(cell, monkeypatch):
  """Return the configuration that a cell's command line means."""
  monkeypatch.chdir(experiment_lib.ROOT)
  values = absl_flags.FlagValues()
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
  for cell in load.load(name, **settings).cells:
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
  (cell,) = load.load(f"{own(settings)}:debug").cells
  assert cell.unset == ("eval.pad_to",)
  found = parsed(cell, monkeypatch)
  assert json.loads(found.to_json()) == json.loads(cell.config.to_json())
  for key, value in settings.items():
    assert recipes.look_up(found, key) == value


@pytest.mark.parametrize(
  "settings",
  [{"model.decoder.chanels": 8}, {"model.deccoder.kind": "none"},
   {"model.decoder.channels": "many"}, {"model.head": "aspp_sum"}],
)  # fmt: skip
def test_a_row_its_configuration_does_not_know_stops_before_any_run(
  settings, own
):
  with pytest.raises(errors.InputError, match="model"):
    load.load(own(settings))


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
    load.load(str(path))
  assert str(path) in str(raised.value)


def test_every_word_of_a_row_is_known():
  # A mistyped "crf" would be taken for a key of the configuration.
  assert set(load.WORDS) == {"name", "base", "crf", "not_here"}
  assert jobs_lib.LOG_LINES > 3
