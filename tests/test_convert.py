"""The command deeplax.convert, with real files and what comes after it."""

import numpy as np
from PIL import Image
import pytest

from deeplax import convert
from deeplax.models import build
from deeplax.pretrained import files
from deeplax.workdir import checkpoint
from deeplax.workdir import settings as settings_lib
from tests import commands
from tests import runs
from tests.fixtures import tf_rule
from tests.models import golden
from tests.models import networks
from tests.models import torch_golden
from tests.training import test_conversion


def command(module, *arguments, short=False):
  """Run python -m deeplax.<module>, which has to end well; what it printed."""
  done = commands.command(module, *arguments, short=short)
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--source=tf_deeplab"], "--checkpoint is missing"),
    (["--to=tf_deeplab"], "--out is missing"),
    (["--to=tf_deeplab", "--out=a.npz", "--config.x=1"], "unread arguments"),
    (["--to=tf_deeplab", "--out=a.npz"], "no config.json"),
  ],
)
def test_half_a_command_says_what_is_missing(tmp_path, capsys, flags, message):
  with pytest.raises(SystemExit) as ended:
    convert.main([f"--workdir={tmp_path}", *flags])
  assert ended.value.code == 2
  assert message in capsys.readouterr().err


@pytest.mark.slow  # 20 s: five commands
def test_other_commands_go_on_from_the_workdir(tmp_path):
  with networks.shorten():
    _, loaded = test_conversion.network()
    files.write(str(tmp_path / "w.npz"), test_conversion.arrays())
  out, tuned = tmp_path / "out", tmp_path / "tuned"
  said = command(
    "convert",
    "--source=tf_deeplab",
    f"--checkpoint={tmp_path / 'w.npz'}",
    *runs.SMALL,
    "--config.optim.base_lr=0.003",
    f"--workdir={out}",
    short=True,
  )
  assert "--config.optim.base_lr=0.003 --config.init.checkpoint=" in said
  assert settings_lib.load_config(out).optim.base_lr == 0.003
  assert "mIoU" in command("evaluate", f"--workdir={out}", short=True)
  Image.new("RGB", (33, 33)).save(tmp_path / "a.png")
  command(
    "predict",
    f"--workdir={out}",
    f"--out={tmp_path}",
    tmp_path / "a.png",
    short=True,
  )
  rate = "--config.optim.base_lr=0.0", "--config.optim.slow_start_steps=0"
  runs.train(tuned, *rate, f"--config.init.checkpoint={out}")
  # Nothing was learned at rate 0: these are the converted parameters.
  variables, step = checkpoint.restore_variables(tuned)
  assert step == runs.TOTAL_STEPS
  test_conversion.assert_equal(variables["params"], loaded["params"])
  # And the same configuration goes on in the workdir itself.
  said = runs.train(out, "--config.optim.base_lr=0.003").done.stdout
  assert "resuming from step 0" in said


@pytest.mark.slow  # about 60 s: a file of 0.5 GB
def test_v1_starts_from_an_imagenet_file_of_real_size(tmp_path):
  width = {"1": 64, "2": 128, "3": 256, "4": 512, "5": 512}
  arrays = test_conversion.imagenet_vgg(lambda name: width[name[4]], 4096)
  files.write(str(tmp_path / "w.npz"), arrays)
  workdir = tmp_path / "out"
  said = command(
    "convert",
    "--source=caffe",
    f"--checkpoint={tmp_path / 'w.npz'}",
    "--config=configs/v1_vgg16_largefov.py",
    f"--workdir={workdir}",
  )
  assert "fc6.weight (4096, 25088, 1, 1) to (1024, 512, 3, 3)" in said
  test_conversion.check_v1(workdir, arrays, channels=1024)


# What the configuration must be told of mobilenet_v2_os16.
GOLDEN = (
  "--config=configs/v3plus_mobilenet_v2.py",
  "--config.model.atrous_rates=()",
  "--config.model.decoder.kind=none",
  "--config.eval.pad_to=(65,65)",
)


@pytest.mark.slow  # 30 s each: two commands
@pytest.mark.parametrize(
  ("name", "package"),
  [
    ("w.npz", None),
    ("w.safetensors", None),
    ("w.pth", "torch"),
    ("model.ckpt", "tensorflow"),
  ],
)
def test_a_real_file_predicts_what_the_reference_does(tmp_path, name, package):
  if package:
    pytest.importorskip(package)
  fixture = golden.load("mobilenet_v2_os16")
  gains = fixture.manifest["gains"]
  path = tmp_path / name
  files.write(
    str(path),
    {
      name: tf_rule.value(name, shape, **gains)
      for name, shape, _ in fixture.manifest["variables"]
    }
    | {"global_step": np.array(30_000, np.int64)},
  )
  workdir = tmp_path / "out"
  command(
    "convert",
    "--source=tf_deeplab",
    f"--checkpoint={path}",
    *GOLDEN,
    f"--workdir={workdir}",
  )
  image = tf_rule.image(65, 65)
  model = build.from_config(
    settings_lib.load_config(workdir).model, num_classes=21
  )
  variables, _ = checkpoint.restore_variables(workdir)
  found = model.apply(variables, image, train=False, method="coarse")
  expected = fixture.arrays["65x65/logits"]
  assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()

  Image.fromarray(image[0].astype(np.uint8)).save(tmp_path / "a.png")
  masks = tmp_path / "masks"
  command(
    "predict", f"--workdir={workdir}", f"--out={masks}", tmp_path / "a.png"
  )
  with Image.open(next(masks.rglob("*.png"))) as picture:
    mask = np.asarray(picture)
  # Float noise may turn a pixel whose two best classes are level.
  assert (mask != fixture.arrays["65x65/argmax"][0]).mean() < 1e-3


# Fixtures, and the networks of configs/published.py that they are of.
PEERS = {
  "tv_deeplabv3_mobilenet_v3_large": (
    "torchvision_deeplabv3_mobilenet_v3_large"
  ),
  "smp_deeplabv3plus_mobilenet_v2_os16": "smp_deeplabv3plus_mobilenet_v2",
}


@pytest.mark.slow  # 30 s each: two commands
@pytest.mark.parametrize("name", PEERS)
def test_a_state_dict_of_a_peer_comes_in_and_goes_back_unchanged(
  tmp_path, name
):
  torch = pytest.importorskip("torch")
  fixture = torch_golden.load(name)
  original = torch_golden.arrays(fixture)
  path, workdir = tmp_path / "w.pth", tmp_path / "out"
  torch.save({k: torch.from_numpy(v) for k, v in original.items()}, path)
  source = torch_golden.NETWORKS[name].source
  command(
    "convert",
    f"--source={source}",
    f"--checkpoint={path}",
    f"--config=configs/published.py:{PEERS[name]}",
    f"--workdir={workdir}",
  )
  # tests/models/test_torch_golden.py holds this network, with these
  # variables, against the peer's outputs.
  model = torch_golden.model(name)
  config = settings_lib.load_config(workdir)
  built = build.from_config(
    config.model, num_classes=21, auxiliary=model.auxiliary is not None
  )
  assert built.clone(mean=model.mean, std=model.std) == model
  variables, _ = checkpoint.restore_variables(workdir)
  test_conversion.assert_equal(
    variables, torch_golden.variables(name, model, fixture)
  )

  back = tmp_path / "back.pth"
  command("convert", f"--to={source}", f"--workdir={workdir}", f"--out={back}")
  written = torch.load(back, weights_only=True)
  assert set(original) - set(written) == {
    key for key in original if key.endswith("num_batches_tracked")
  }
  for key, value in written.items():
    np.testing.assert_array_equal(value.numpy(), original[key])
