"""The commands end to end, as a user runs them."""

import json
import pathlib
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys

from PIL import Image
import pytest

from tests import commands
from tests import conftest
from tests import runs
from tests import shared
from tests.commands import DEBUG as DEBUG
from tests.commands import command as command


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
  """A copy of the run, evaluated by the workdir alone; what the command left.

  At the output stride of training, whose result was deleted, and another one.
  """
  workdir = tmp_path_factory.mktemp("evaluated") / "run"
  shutil.copytree(trained.workdir, workdir)
  (workdir / "eval" / "val-00000004-os16-s1.0.json").unlink()
  done = command(
    "evaluate", f"--workdir={workdir}", "--output_strides=16,8", short=True
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir, done


@pytest.fixture(scope="module")
def predicted(trained, tmp_path_factory):
  """Masks of two photographs, one in a folder; what the command left."""
  folder = tmp_path_factory.mktemp("photos")
  (folder / "trip").mkdir()
  Image.new("RGB", (50, 30), (200, 30, 30)).save(folder / "trip" / "a.png")
  Image.new("RGB", (31, 77), (30, 200, 30)).save(folder / "b.jpg")
  out = tmp_path_factory.mktemp("out")
  done = command(
    "predict",
    f"--workdir={trained.workdir}",
    f"--out={out}",
    folder,
    short=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return out, done


def test_training_prints_one_table_and_progress(trained):
  printed = trained.done.stdout
  for word in (
    "data", "devices", "norm", "parameters", "Multiply-Adds", "memory",
    "init: random (the papers start from ImageNet; expect far less)",
    str(trained.workdir),
  ):  # fmt: skip
    assert word in printed, word
  assert re.search(
    r"step 4/4  loss \d.*lr .*images/s  data \d+%  ETA 0 s", printed
  )


def test_the_workdir_holds_all_that_later_commands_need(trained):
  names = {p.name for p in trained.workdir.iterdir()}
  assert names >= {
    "config.json", "env.json", "spec.json", "metrics.jsonl", "checkpoints",
    "eval",
  }  # fmt: skip
  result = json.loads(
    (trained.workdir / "eval" / "val-00000004-os16-s1.0.json").read_text()
  )
  assert 0 <= result["miou"] <= 1 and result["images"] == 4
  assert result["init"].startswith("random")


def test_the_same_command_again_says_finished(trained_copy):
  assert "finished" in runs.train(trained_copy).done.stdout


def test_another_config_in_the_same_workdir_is_refused(trained_copy):
  def train(*flags):
    return command(
      "main", *runs.SMALL, f"--workdir={trained_copy}", *flags, short=True
    )

  done = train("--config.optim.base_lr=0.5", "--config.data.max_scale=1.5")
  assert done.returncode == 2 and "Traceback" not in done.stderr
  assert "optim.base_lr: 0.1 there, 0.5 now" in done.stderr
  # What it advises, in place of the two.
  *_, advised = done.stderr.strip().split("resume that one: ")
  assert "finished: " in train(*shlex.split(advised)).stdout


def test_evaluate_reads_the_workdir_alone(evaluated):
  workdir, _ = evaluated
  result = json.loads(
    (workdir / "eval" / "val-00000004-os8-s1.0.json").read_text()
  )
  assert result["output_stride"] == 8


def test_evaluation_while_training_and_later_agree(trained, evaluated):
  before, after = (
    json.loads((folder / "eval" / "val-00000004-os16-s1.0.json").read_text())
    for folder in (trained.workdir, evaluated[0])
  )
  assert before["miou"] == after["miou"]
  assert before["iou"] == after["iou"]


def test_predict_writes_masks_at_the_images_own_sizes(predicted):
  out, _ = predicted
  with Image.open(out / "trip" / "a_mask.png") as mask:
    assert mask.size == (50, 30) and mask.mode == "P"
  with Image.open(out / "b_mask.png") as mask:
    assert mask.size == (31, 77)


def test_no_tensorflow_in_train_evaluate_and_predict(
  trained, evaluated, predicted
):
  for done in (trained.done, evaluated[1], predicted[1]):
    assert "deeplax.training.run" in done.modules
    assert "tensorflow" not in done.modules


def test_the_bare_debug_command_imports_the_named_libraries(tmp_path):
  # A whole network in a process of its own, by which nothing is imported
  # before the command.
  script = (
    "import atexit, runpy, sys\n"
    "atexit.register(lambda: print('imported', *sys.modules))\n"
    "runpy.run_module('deeplax.main', run_name='__main__', alter_sys=True)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script, DEBUG, f"--workdir={tmp_path / 'run'}"],
    cwd=conftest.ROOT,
    env=commands.environment(HOME=str(tmp_path)),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  printed, _, imported = done.stdout.rpartition("\nimported ")
  assert "step 4/4" in printed and "finished" in printed
  # tensorflow_datasets too, but only where a prepared data set is read.
  for name in (
    "jax", "flax", "optax", "orbax.checkpoint", "ml_collections",
    "clu.metrics",
  ):  # fmt: skip
    assert name in imported.split(), name
  assert "tensorflow" not in imported.split()


def test_a_killed_run_resumes_to_the_same_bits(trained, tmp_path):
  # As step 4 is about to be saved, so that step 2's is the newest, and sealed.
  workdir, same = tmp_path / "killed", "--config.train.deterministic=True"
  killed = command(
    *("main", *runs.SMALL, same, f"--workdir={workdir}"),
    short=True,
    killed_in="deeplax.workdir.saves:_refuse_full",
    call=2,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
  assert "step 4/" in killed.stdout
  # A profile, which changes nothing of it, may come with the next start.
  again = runs.train(workdir, same, "--config.train.profile=3").done
  assert "resuming from step 2 of 4" in again.stdout
  assert "profile of steps 3 to 4: " in again.stdout
  table = again.stdout.partition("calls/step  kernel\n")[2].splitlines()
  shares = [float(row.split()[0].removesuffix("%")) for row in table[:10]]
  assert shares == sorted(shares, reverse=True) and 50 < sum(shares) <= 100.5
  (trace,) = (workdir / "profile").rglob("*.xplane.pb")
  assert trace.parent.name == "step_3"
  runs.assert_same_parameters(trained.workdir, workdir)
  steps = [
    json.loads(line)["step"]
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
    if "loss" in line
  ]
  assert steps == [1, 2, 3, 4]


def test_no_data_is_told_at_once(tmp_path):
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = commands.process(
    "main",
    "--config=configs/v3plus_xception.py",
    f"--workdir={tmp_path / 'run'}",
    HOME=str(tmp_path),
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  assert done.returncode == 2
  for words in (
    "tensorflow_datasets", "DEEPLAX_DATA", "VOCdevkit", "SBD", ":debug",
    "own_data",
  ):  # fmt: skip
    assert words in done.stderr, words
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "run").exists()
  # Before JAX starts or anything compiles. Processor time, since other work
  # may share the machine: about a second.
  assert after.ru_utime - before.ru_utime < 5


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "--config is missing"),
    (["--config=configs/none.py"], "configs/none.py"),
    ([DEBUG, "--config.model.output_strid=8"], "output_strid"),
    ([DEBUG, "--config.train.total_steps", "=", "8"], "total_steps"),
    ([DEBUG, "--confg.seed=1"], "confg"),
    ([DEBUG, "--config.optim.base_lr=fast"], "base_lr"),
    ([DEBUG, "train"], "unread arguments ['train']"),
    ([DEBUG, "--config.model.output_stride=12"], "12"),
    ([DEBUG, "--config.model.backbone=resnet"], "resnet"),
    ([DEBUG, "--config.data.name=pets"], "pets"),
    ([DEBUG, "--config.data.crop_size=321"], "data.crop_size (321,)"),
    ([DEBUG, "--config.data.min_scale=0.0"], "min_scale"),
    ([DEBUG, "--config.eval.output_stride=12"], "12"),
    ([DEBUG, "--config.eval.scales=(0.0,)"], "eval.scales"),
    ([DEBUG, "--config.seed=-1"], "seed -1"),
    ([DEBUG, "--config.train.total_steps=0"], "train.total_steps 0"),
    ([DEBUG, "--config.checkpoint.keep=1"], "checkpoint.keep 1"),
    (["--config=configs/quickstart.py:fast"], "fast"),
    ([DEBUG, "--config.init.checkpoint=runs/nowhere"], "runs/nowhere"),
    ([DEBUG, "--config.train.batch_size=1"], "batch"),
  ],
)
def test_misread_command_lines_end_with_one_message(
  arguments, message, tmp_path
):
  done = command(
    "main", *arguments, f"--workdir={tmp_path / 'run'}", short=True
  )
  assert done.returncode == 2, done.stderr[-2000:]
  assert message in done.stderr
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "run" / "config.json").exists()


def test_what_does_not_fit_exits_with_what_would(tmp_path):
  done = command(
    "main",
    "--config=configs/v1_vgg16_largefov.py:debug",
    "--config.train.memory_fraction=1e-7",
    f"--workdir={tmp_path / 'run'}",
    short=True,
  )
  assert done.returncode == 2
  # The state alone is larger than that.
  assert "No smaller batch or crop would fit" in done.stderr
  assert not (tmp_path / "run" / "config.json").exists()


def test_voc_without_sbd_offers_train(tmp_path):
  root = shared.path("data/voc_samples")
  done = command(
    "main",
    "--config=configs/v3plus_xception.py",
    f"--config.data.root={root}",
    f"--workdir={tmp_path / 'run'}",
  )
  assert done.returncode == 2
  assert "--config.data.train_split=train" in done.stderr
  assert "SBD" in done.stderr


@pytest.mark.slow  # 60 s: Xception compiles
def test_debug_of_the_main_config_runs_without_data(tmp_path):
  done = command(
    "main",
    "--config=configs/v3plus_xception.py:debug",
    f"--workdir={tmp_path / 'run'}",
    HOME=str(tmp_path),
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert "finished" in done.stdout


@pytest.mark.slow  # 60 s: Xception-65 compiles
def test_the_bare_command_reaches_step_1_on_voc(tmp_path):
  root = shared.path("data/voc_samples")
  done = command(
    "main",
    "--config=configs/v3plus_xception.py",
    f"--config.data.root={root}",
    "--config.data.train_split=train",
    "--config.data.crop_size=(65, 65)",
    "--config.train.batch_size=2",
    "--config.train.total_steps=1",
    f"--workdir={tmp_path / 'run'}",
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert "step 1/1" in done.stdout


def test_every_published_page_of_help_names_its_flags():
  for module in ("main", "evaluate", "predict", "doctor", "check_data"):
    done = command(module, "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
  assert pathlib.Path(conftest.ROOT / "README.md").exists()
