"""Files of many bands, from the folder to the predictions."""

import json
import re

from etils import epath
import flax.traverse_util
import numpy as np
from PIL import Image
import pytest

from configs import own_data
from deeplax.data import build as data_build
from deeplax.data import spec as spec_lib
from deeplax.models import build
from deeplax.models import variables as variables_lib
from deeplax.training import initial
from deeplax.training import optim
from deeplax.training import state as state_lib
from deeplax.workdir import saves
from deeplax.workdir import settings
from tests.commands import command
from tests.data import tiffs
from tests.data import trees
from tests.models import networks

BANDS = 5
CHANNELS = (3, 0, 4, 2)
SETTINGS = (
  "--config=configs/own_data.py:debug",
  "--config.data.name=folder",
  "--config.model.depth_multiplier=0.1",
  "--config.model.channels=8",
  "--config.model.decoder.kind=none",
  "--config.train.total_steps=2",
)


def images():
  """Return three images of five bands of 16 bit for training, three for val."""
  rng = np.random.default_rng(0)
  return [
    rng.integers(0, 9000, (40 + index % 3, 50, BANDS)).astype(np.uint16)
    for index in range(6)
  ]


def folder(root, *, kind):
  """Write them, with labels by their last band."""
  for index, image in enumerate(images()):
    split, stem = ("train", "val")[index // 3], str(index % 3)
    label = (image[..., -1] > 5000).astype(np.uint8)
    trees.mask(root / "labels" / split / f"{stem}.png", label)
    path = root / "images" / split / f"{stem}.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "npy":
      np.save(path, image)
    else:
      path.write_bytes(tiffs.encoded(image, photometric=1, deflate=True))
  (root / "classes.json").write_text(json.dumps({"names": ["low", "high"]}))
  return root


def succeeds(*arguments):
  done = command(*arguments, short=True)
  assert done.returncode == 0, done.stderr
  return done.stdout


def arrays(variables):
  """Return {path: array}."""
  flat = flax.traverse_util.flatten_dict(variables)
  return {path: np.asarray(value) for path, value in flat.items()}


@pytest.fixture(scope="module", autouse=True)
def _short():
  with networks.shorten():
    yield


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
  """A workdir with an RGB network that was never trained."""
  workdir = tmp_path_factory.mktemp("rgb")
  config = own_data.get_config("debug")
  config.data.name = "folder"
  config.model.depth_multiplier = 0.1
  config.model.channels = 8
  config.model.decoder.kind = "none"
  spec = spec_lib.Spec("rgb", ("a", "b", "c"), spec_lib.color_map(3))
  model = build.from_config(config.model, num_classes=3)
  variables = variables_lib.initial_variables(model, seed=3)
  _, tx = optim.optimizer(config)
  state = state_lib.create(variables, tx, seed=0)
  saves.save_start(workdir, state)
  settings.write_run_files(
    epath.Path(workdir), config, spec, state.params, lambda line: None
  )
  return workdir, config, variables


def test_the_first_kernel_of_an_rgb_network_is_widened_to_the_bands(
  rgb, capsys
):
  workdir, config, old = rgb
  config = config.copy_and_resolve_references()
  config.init.checkpoint = str(workdir)
  config.data.channels = CHANNELS
  config.data.channel_mean = (1.0, 2.0, 3.0, 4.0)
  config.data.channel_std = (5.0, 6.0, 7.0, 8.0)
  model = build.from_config(
    config.model, num_classes=2, channels=data_build.channels(config.data)
  )
  new = initial.variables(config, model, resumed=False)
  first = ("params", "backbone", "conv", "kernel")
  new, old = map(arrays, (new, old))
  assert new[first].shape[2] == 4
  for band in range(4):
    np.testing.assert_allclose(
      new[first][:, :, band], 0.75 * old[first][:, :, band % 3], rtol=1e-6
    )
  same = [path for path in old if path != first and path[1] != "logits"]
  for path in same:
    np.testing.assert_array_equal(new[path], old[path])
  said = capsys.readouterr().out
  assert f"{len(same) + 1} arrays from {workdir}" in said
  assert f"params/backbone/conv/kernel from RGB to bands {CHANNELS}" in said
  assert "mean (127.5, 127.5, 127.5)" in said
  assert "now with (1.0, 2.0, 3.0, 4.0) and (5.0, 6.0, 7.0, 8.0)" in said


@pytest.mark.slow  # compiles a training step and two predictors
@pytest.mark.parametrize(("kind", "start"), [("tif", False), ("npy", True)])
def test_images_of_five_bands_train_evaluate_and_predict(
  tmp_path, rgb, kind, start
):
  data = folder(tmp_path / "data", kind=kind)
  workdir = tmp_path / "run"
  training = [
    "main",
    *SETTINGS,
    f"--config.data.root={data}",
    f"--config.data.channels={CHANNELS}",
    f"--workdir={workdir}",
  ]
  if start:
    training.append(f"--config.init.checkpoint={rgb[0]}")
  said = succeeds(*training)
  assert f"bands {CHANNELS}: mean" in said
  assert ("from RGB to bands" in said) == start
  assert re.search(r"step 2/2  loss \d", said)
  kept = settings.load_config(workdir).data
  pixels = np.concatenate(
    [pixel.reshape(-1, BANDS)[:, CHANNELS] for pixel in images()[:3]]
  )
  np.testing.assert_allclose(kept.channel_mean, pixels.mean(0), rtol=1e-5)
  np.testing.assert_allclose(kept.channel_std, pixels.std(0), rtol=1e-5)
  # The same command finds its run again, though it gives no mean and std.
  assert "finished" in succeeds(*training)
  said = succeeds("evaluate", f"--workdir={workdir}", "--pictures=1")
  assert "3 images" in said
  out = tmp_path / "out"
  succeeds("predict", f"--workdir={workdir}", f"--out={out}", data / "images")
  for path in data.glob("images/*/*"):
    mask = out / path.parent.name / f"{path.stem}_mask.png"
    with Image.open(mask) as picture:
      assert picture.size == (50, 40 + int(path.stem))
