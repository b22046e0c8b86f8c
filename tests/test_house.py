"""The house keeps its rules (ARCHITECTURE.md), and notices a breach."""

import functools
from functools import partial

import pytest

from tests import house

# Of the package's purpose: each must be required and used by the main command.
CARD = (
  *("clu", "flax", "jax", "ml-collections", "optax", "orbax-checkpoint"),
  "tensorflow-datasets",
)
# Of these, what the main command imports only once it reads a prepared set.
LATE = ("tensorflow-datasets",)
# What reads a configuration besides settings.py, build.py and *_from_config.py:
# where a run, a network for it or a table is put together.
CONFIG_READERS = (
  "deeplax/ablation/costs.py",
  "deeplax/ablation/experiment.py",
  "deeplax/ablation/load.py",
  "deeplax/ablation/recipes.py",
  "deeplax/api/config.py",
  "deeplax/api/model.py",
  "deeplax/api/run.py",
  "deeplax/api/train.py",
  "deeplax/inference/open_run.py",
  "deeplax/training/class_balance.py",
  "deeplax/training/conversion.py",
  "deeplax/training/convertible.py",
  "deeplax/training/disk_space.py",
  "deeplax/training/initial.py",
  "deeplax/training/inputs.py",
  "deeplax/training/limits.py",
  "deeplax/training/memory.py",
  "deeplax/training/norm_statistics.py",
  "deeplax/training/optim.py",
  "deeplax/training/overfit.py",
  "deeplax/training/overview.py",
  "deeplax/training/parts.py",
  "deeplax/training/run.py",
  "deeplax/training/validation.py",
  "deeplax/training/written.py",
  "deeplax/workdir/own_code.py",
)

# Longer ones, "path" or "path::function", and why.
EXCEPTIONS = {
  "deeplax/crf/dense.py::dense_crf": "half of it documents its arguments",
  "deeplax/settings/defaults.py::base": "every key once, with its unit",
  "deeplax/training/step.py::make_train_step": "one closure over the model",
}

# "path::function" of more arguments than the rule allows, and why.
MANY_ARGUMENTS = {
  "deeplax/api/run.py::load": "one keyword for each flag of predict",
  "deeplax/crf/dense.py::dense_crf": "the parameters of the papers' CRF",
  "deeplax/models/build.py::from_config": "each part may be given",
}


# Files of deeplax/ whose tests lie elsewhere in tests/: in a story, or in the
# test of their door.
COVERED = {
  "__main__.py": "test_doors.py",
  "ablation/imagenet_table.py": "ablation/test_imagenet.py",
  "ablation/page.py": "ablation/test_report.py",
  "ablation/papers.py": "ablation/test_load.py",
  "ablation/recipes.py": "ablation/test_load.py",
  "ablation/tables.py": "ablation/test_report.py",
  "crf/filtering.py": "crf/test_lattice.py",
  "crf/search.py": "inference/test_crf_search.py",
  "data/checks/data_set.py": "test_check_data.py",
  "data/checks/mask_counts.py": "data/prepare/test_write.py",
  "data/checks/overlap.py": "test_check_data.py",
  "data/files.py": "data/test_folder.py",
  "data/formats/npy.py": "data/test_bands.py",
  "data/mask_folders.py": "test_score.py",
  "data/archives.py": "test_submit.py",
  "flags.py": "test_evaluate.py",
  "inference/asked.py": "test_doors.py",
  "inference/open_run.py": "test_evaluate.py",
  "inference/probabilities.py": "inference/test_predictor.py",
  "inference/settings.py": "test_evaluate.py",
  "machine.py": "test_doctor.py",
  "models/backbones/mobilenet_v2.py": "models/backbones/test_backbones.py",
  "models/backbones/resnet.py": "models/backbones/test_backbones.py",
  "models/backbones/xception.py": "models/backbones/test_backbones.py",
  "models/head_from_config.py": "models/test_variants.py",
  "models/heads/large_fov.py": "models/backbones/test_vgg.py",
  "models/decoder_from_config.py": "models/test_variants.py",
  "models/style.py": "models/test_decoder.py",
  "pretrained/names/smp.py": "pretrained/names/test_torchvision.py",
  "pretrained/names/timm.py": "pretrained/names/test_torchvision.py",
  "pretrained/summary.py": "pretrained/test_rules.py",
  "pretrained/tables.py": "settings/test_published.py",
  "reports/evaluation.py": "test_evaluate.py",
  "reports/gallery.py": "training/test_log.py",
  "reports/label_pictures.py": "test_predict.py",
  "reports/line_plot.py": "test_curves.py",
  "reports/submission.py": "test_submit.py",
  "reports/tables.py": "test_evaluate.py",
  "reports/trimap_curves.py": "test_curves.py",
  "reports/worst_images.py": "reports/test_evaluation_page.py",
  "settings/defaults.py": "test_configs.py",
  "training/convertible.py": "training/test_conversion.py",
  "training/norm_statistics.py": "test_recalibrate.py",
  "training/overfit.py": "test_overfit_check.py",
  "training/scores.py": "training/test_loop.py",
  "training/overfit_diagnosis.py": "test_overfit_check.py",
  "training/overview.py": "test_main.py",
  "training/parts.py": "training/test_loop.py",
  "training/run.py": "test_main.py",
  "training/state.py": "training/test_step.py",
  "training/written.py": "stories/test_nothing_lost.py",
  "workdir/sealed.py": "workdir/test_checkpoint.py",
}

RULES = {
  "doors": house.doors_hold_flags_and_one_call,
  "choices": house.choices_load_nothing,
  "ends": house.doors_lead_nowhere,
  "floors": house.imports_never_go_up,
  "circles": house.files_load_in_any_order,
  "leaves": house.leaves_know_nothing_else,
  "outside": house.the_package_knows_no_other,
  "configs": house.configs_import_settings_alone,
  "readers": partial(house.few_files_read_a_config, readers=CONFIG_READERS),
  "lengths": partial(house.nothing_is_too_long, allowed=EXCEPTIONS),
  "arguments": partial(
    house.no_function_takes_too_much, allowed=MANY_ARGUMENTS
  ),
  "tests": partial(house.every_file_has_its_test, covered=COVERED),
  "workdir": house.one_room_knows_a_workdirs_files,
  "optional": house.optional_packages_wait_for_a_call,
  "required": house.everything_imported_is_required,
}
TREE = house.sources()


@functools.cache
def present(rule: str) -> list[str]:
  """Return the breaches of the checkout as it is."""
  return RULES[rule](TREE)


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_its_rule(rule):
  breaches = present(rule)
  assert not breaches, "\n".join(breaches)


DOOR = """\
from deeplax import errors

@errors.command
def main():
  from deeplax.training import run
"""
ROOM_AT_THE_TOP = f"from deeplax.metrics import confusion\n{DOOR}"
LONG = "x = 1\n" * 401
LONG_FUNCTION = "def f():\n" + "  x = 1\n" * 80
NINE = "a, b, c, d, e, f, g, h, i"
FILES = "from deeplax.data import files"
OPS = "from deeplax.ops import resize"
UP = "def f():\n  from deeplax.inference import predictor"


BREACHES = [
  ("doors", "deeplax/new.py", "x = 1", "no main under errors.command"),
  ("doors", "deeplax/new.py", DOOR.replace("@", "# "), "no main under"),
  ("doors", "deeplax/new.py", DOOR + "\n" * 100, "105 lines"),
  ("doors", "deeplax/new.py", ROOM_AT_THE_TOP, "imports deeplax.metrics"),
  ("doors", "deeplax/new.py", f"import jax\n{DOOR}", "imports jax"),
  ("doors", "deeplax/flags.py", "import jax", "imports jax"),
  (
    "doors",
    "experiments/new.py",
    "import jax\ndef main(): ...",
    "imports jax",
  ),
  ("doors", "deeplax/data/shapes.py", "x = 1", "shapes: no main"),
  ("doors", "deeplax/crf/search.py", "x = 1", "no main under"),
  ("choices", "deeplax/data/spec.py", "import numpy as np", "numpy"),
  ("choices", "deeplax/settings/protocols.py", OPS, "deeplax.ops"),
  ("ends", "deeplax/reports/new.py", "from deeplax import score", "the door"),
  ("ends", "experiments/new.py", "import deeplax.predict", "the door"),
  ("ends", "deeplax/crf/new.py", "import deeplax.crf.search", "the door"),
  ("ends", "deeplax/data/new.py", "from deeplax import flags", "doors share"),
  ("floors", "deeplax/models/new.py", UP, "higher floor"),
  ("floors", "deeplax/data/new.py", "import deeplax.models.build", "same"),
  ("floors", "deeplax/models/new.py", "import deeplax.data.spec", "same"),
  ("floors", "deeplax/metrics/new.py", OPS, "same"),
  ("floors", "deeplax/atomic.py", "import deeplax.data.spec", "higher"),
  ("floors", "deeplax/ablation/new.py", "import experiments.run", "higher"),
  ("floors", "deeplax/training/new.py", "import deeplax.api.run", "higher"),
  ("floors", "deeplax/api/new.py", "import deeplax.ablation.load", "same"),
  ("floors", "deeplax/core/new.py", "x = 1", "no floor for core"),
  ("circles", "deeplax/data/decoding.py", FILES, "data/decoding.py: imports"),
  ("leaves", "deeplax/training/losses.py", UP, "deeplax.inference"),
  ("leaves", "deeplax/data/spec.py", "import deeplax.atomic", "atomic"),
  ("leaves", "deeplax/crf/new.py", "import deeplax.clocks", "clocks"),
  ("outside", "deeplax/data/new.py", "import configs.common", "configs"),
  ("outside", "deeplax/data/new.py", "import tests.shared", "tests"),
  ("configs", "configs/new.py", "from configs import common", "configs"),
  ("configs", "configs/new.py", "from deeplax.models import cost", "models"),
  ("configs", "configs/new.py", "import numpy", "numpy"),
  ("readers", "deeplax/reports/new.py", "def f(config): ...", "reads a"),
  ("readers", "deeplax/data/new.py", "def f(x: m.ConfigDict): ...", "reads"),
  ("readers", "deeplax/ops/build.py", "import ml_collections", "reads a"),
  ("readers", "deeplax/crf/new.py", "import ml_collections", "reads a"),
  ("readers", CONFIG_READERS[0], "x = 1", "listed in vain"),
  ("lengths", "configs/new.py", LONG, "401 lines"),
  ("lengths", "benchmarks/new.py", LONG_FUNCTION, "::f: 81 lines"),
  ("lengths", "deeplax/training/step.py", "x = 1", "listed in vain"),
  ("arguments", "configs/new.py", f"def f({NINE}): ...", "::f: 9 arguments"),
  ("arguments", "deeplax/crf/new.py", f"def f(*, {NINE}): ...", "::f: 9"),
  ("arguments", "deeplax/crf/dense.py", "x = 1", "listed in vain"),
  ("tests", "deeplax/data/new.py", LONG, "tests/data/test_new.py"),
  ("tests", "deeplax/flags.py", "x = 1", "listed in vain"),
  ("tests", "tests/test_flags.py", "x = 1", "listed in vain"),
  ("workdir", "deeplax/reports/new.py", "f('spec.json')", "'spec.json'"),
  ("workdir", "deeplax/reports/new.py", "f('env.json')", "'env.json'"),
  ("workdir", "experiments/new.py", "x / 'metrics.jsonl'", "'metrics"),
  ("optional", "deeplax/data/new.py", "import tensorflow as tf", "tensorf"),
  ("optional", "configs/new.py", "from clu import metric_writers", "clu"),
  ("required", "experiments/new.py", "def f():\n  import pandas", "pandas"),
]


def test_a_planted_breach_is_told():
  for rule, path, text, told in BREACHES:
    found = set(RULES[rule]({**TREE, path: text})) - set(present(rule))
    assert any(told in breach for breach in found), (rule, path, told, found)


ALLOWED = [
  ("doors", "deeplax/new.py", DOOR),
  ("doors", "deeplax/new.py", f"from deeplax.data import spec\n{DOOR}"),
  ("ends", "tests/test_new.py", "from deeplax import score, flags"),
  ("floors", "deeplax/training/new.py", UP),
  ("floors", "deeplax/workdir/new.py", "from deeplax.data import spec"),
  ("arguments", "deeplax/crf/new.py", f"def f(self, {NINE[3:]}): ..."),
  ("configs", "configs/new.py", "from deeplax.settings import defaults"),
  ("readers", "deeplax/reports/settings.py", "def f(config): ..."),
  ("workdir", "deeplax/data/new.py", '"""Reads config.json."""'),
  ("optional", "deeplax/data/new.py", "def f():\n  import tensorflow"),
]


def test_what_is_allowed_is_no_breach():
  for rule, path, text in ALLOWED:
    assert RULES[rule]({**TREE, path: text}) == present(rule), (rule, path)


def test_floors_are_seven_at_most_and_sideways_steps_go_one_way():
  assert len(house.FLOORS) <= 7  # the ground and six; doors are the seventh
  assert not {(b, a) for a, b in house.SIDEWAYS} & set(house.SIDEWAYS)


@functools.cache
def loaded_by_main() -> set[str]:
  """Return what the main command imports until it trains."""
  return house.loaded_by("import deeplax.main, deeplax.training.run")


def test_importing_deeplax_loads_neither_jax_nor_a_room():
  loaded = house.loaded_by("import deeplax")
  assert "jax" not in loaded
  assert not [n for n in loaded if n.startswith("deeplax.")]


def test_each_name_of_deeplax_is_loaded_when_it_is_used():
  loaded = house.loaded_by(
    "import deeplax, sys\n"
    "assert issubclass(deeplax.InputError, Exception)\n"
    "assert not {*deeplax.__all__} - {*dir(deeplax)}\n"
    "assert deeplax.config.__name__ == 'config'\n"
    "assert deeplax.scores.__name__ == 'scores'\n"
    "assert 'jax' not in sys.modules\n"
    "assert all(callable(getattr(deeplax, n)) for n in deeplax.__all__)\n"
    "try:\n"
    "  deeplax.nothing\n"
    "except AttributeError as error:\n"
    "  assert 'nothing' in str(error)\n"
    "else:\n"
    "  raise SystemExit('no error')"
  )
  assert "deeplax.api.run" in loaded


@pytest.mark.parametrize("package", CARD)
def test_each_package_of_the_card_is_required_and_used_by_main(package):
  assert package in house.requirements()
  names = {"orbax-checkpoint": "orbax.checkpoint"}
  name = names.get(package) or package.replace("-", "_")
  loaded = loaded_by_main()
  assert (name in loaded) == (package not in LATE)
  reached = [
    path
    for path in house.of(TREE, "deeplax", "configs")
    if house.module(path) in loaded
  ]
  assert any(
    house.within(imported, (name,))
    for path in reached
    for imported in house.imports(TREE[path])
  ), f"nothing that main reaches imports {name}"


def test_main_leaves_tensorflow_and_torch_alone():
  assert not loaded_by_main() & set(house.OPTIONAL)
