"""Own images train from a published network's real weights."""

import json

import pytest

from tests import shared
from tests.commands import command
from tests.data import trees

# The parts of the file that are used, besides its norms.
NETWORKS = {
  "deeplabv3_mnv2_pascal_quant": {"backbone", "head"},
  "mobilenet_v2_1.0_224_quant": {"backbone"},
}
TINY = (
  "--config.train.total_steps=2",
  "--config.train.batch_size=2",
  "--config.data.crop_size=(33, 33)",
  "--config.eval.every=0",
  "--config.optim.slow_start_steps=0",
  "--config.train.quick_compile=True",
)


def run(name, *flags):
  done = command(name, *flags)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow  # 60 s each: real networks, a training step
@pytest.mark.parametrize("name", NETWORKS)
def test_three_commands_lead_from_a_file_to_a_scored_model(tmp_path, name):
  weights = shared.path(f"weights/{name}.npz")
  data = trees.folder(tmp_path / "data")
  start, mine = tmp_path / "start", tmp_path / "mine"
  config = ("--config=own_data:pretrained", f"--config.data.root={data}")
  run(
    "convert",
    *("--source=tf_deeplab", f"--checkpoint={weights}", *config),
    *("--new=decoder", f"--workdir={start}"),
  )
  record = json.loads((start / "converted.json").read_text())
  assert {path.split("/")[0] for path in record["loaded"]} == NETWORKS[name]
  said = run(
    "main",
    *(*config, *TINY, f"--workdir={mine}"),
    f"--config.init.checkpoint={start}",
  )
  assert f"from {start} step 0, new: none (3 classes)" in said
  assert "mIoU" in run("evaluate", f"--workdir={mine}")


def test_a_file_given_to_a_run_ends_with_the_command_that_takes_it(tmp_path):
  weights = shared.path("weights/deeplabv3_mnv2_pascal_quant.npz")
  data = trees.folder(tmp_path / "data")
  done = command(
    "main",
    *("--config=own_data", f"--config.data.root={data}"),
    *(f"--config.init.checkpoint={weights}", f"--workdir={tmp_path / 'x'}"),
  )
  assert done.returncode == 2
  assert f"--checkpoint={weights} --config=own_data:pretrained" in done.stderr
