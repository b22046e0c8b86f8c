"""A few images are learnt by heart, or the reason why not is named."""

import json
from typing import Any

import numpy as np
from PIL import Image
import pytest

from configs import common
from configs import quickstart
from deeplax import overfit_check
from deeplax.metrics import confusion
from tests.test_main import command

NAMES = ("road", "sky", "pole")
TRUTH = np.repeat([0, 1, 2], [60, 37, 3])


def scores(predicted=TRUTH):
  matrix = confusion.count(TRUTH[None], np.asarray(predicted)[None], 3)
  return confusion.scores(matrix, NAMES)


def seen(**changes):
  fields: dict[str, Any] = dict(
    losses=[1.0] * 5 + [0.1] * 5,
    base_lr=0.05,
    evaluated=scores(),
    trained=scores(),
    labelled=0.9,
    frozen=False,
    contradictions=[],
  )
  return overfit_check.Measured(**(fields | changes))


ROAD_ONLY = scores(np.zeros(100, int))
NO_POLE = scores(np.where(TRUTH == 2, 0, TRUTH))


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({}, "still learning: give it more --steps"),
    ({"losses": [1.0] * 10}, "does not fall. Try --config.optim.base_lr=0.5"),
    ({"losses": [1.0, float("nan")]}, "--config.optim.base_lr=0.005"),
    ({"labelled": 0.01}, "only 1.0% of the pixels have a label"),
    ({"frozen": True}, "the norms are frozen"),
    ({"evaluated": ROAD_ONLY}, "1.00 with the batch's own norm statistics"),
    (
      {"evaluated": ROAD_ONLY, "trained": ROAD_ONLY},
      "100.0% of the pixels are predicted as 'road' (truth 60%)",
    ),
    ({"evaluated": NO_POLE, "trained": NO_POLE}, "pole (3.00% of the pixels)"),
    ({"contradictions": [("a", "b")]}, "a and b are the same picture"),
  ],
)
def test_each_cause_is_named_from_what_was_measured(changes, expected):
  found = overfit_check.diagnose(seen(**changes))
  assert any(expected in text for text in found), found


def test_a_sound_run_is_told_nothing_else():
  assert len(overfit_check.diagnose(seen())) == 1


def test_equal_pictures_with_other_masks_contradict_each_other():
  images = np.zeros((3, 2, 2, 3), np.uint8)
  images[1] = 1
  labels = np.zeros((3, 2, 2), np.uint8)
  labels[2, 0, 0] = 1
  batch = {"image": images, "label": labels}
  assert overfit_check.contradictions(batch, "abc") == [("a", "c")]
  labels[2] = 0
  assert overfit_check.contradictions(batch, "abc") == []


def test_the_crops_are_the_middles_of_images_of_any_size():
  class Source:
    split = "train"
    spec = None

    def __len__(self):
      return 2

    def __getitem__(self, index):
      size = ((5, 9), (2, 3))[index]
      label = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
      image = np.repeat(label[..., None], 3, -1)
      return {"image": image, "label": label, "name": str(index)}

  config = common.base()
  config.data.crop_size = (3, 5)
  batch, names = overfit_check.crops(config, Source(), 8)
  assert names == ["0", "1"]
  rows = np.arange(45).reshape(5, 9)[1:4, 2:7]
  np.testing.assert_array_equal(batch["label"][0], rows)
  np.testing.assert_array_equal(batch["image"][0, ..., 0], rows)
  small = np.full((3, 5), 255)
  small[:2, :3] = np.arange(6).reshape(2, 3)
  np.testing.assert_array_equal(batch["label"][1], small)


def test_a_short_run_keeps_an_even_rate_and_a_quick_norm():
  config = quickstart.get_config()
  config.model.batch_norm.decay = 0.9997
  config.optim.slow_start_steps = 1_000
  changed = overfit_check.short(config, 100)
  assert changed.model.batch_norm.decay == overfit_check.NORM_DECAY
  assert changed.optim.slow_start_steps == 10
  assert changed.optim.end_lr == changed.optim.base_lr
  assert config.optim.slow_start_steps == 1_000


def folder(root, *, contradict):
  """Write a data set of 4 pictures; two are alike if they contradict."""
  for kind in ("images", "labels"):
    (root / kind / "train").mkdir(parents=True)
  rng = np.random.default_rng(0)
  for i in range(4):
    picture = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    if contradict:
      picture[:] = 90
    label = np.zeros((40, 40), np.uint8)
    label[:, 10 * i : 10 * i + 10] = 1
    Image.fromarray(picture).save(root / "images" / "train" / f"{i}.png")
    Image.fromarray(label).save(root / "labels" / "train" / f"{i}.png")
  (root / "classes.json").write_text(json.dumps({"names": ["a", "b"]}))
  return root


@pytest.mark.slow  # 30 s: compiles a training step
def test_the_command_fails_with_the_cause(tmp_path):
  done = command(
    "overfit_check",
    "--config=configs/own_data.py",
    f"--config.data.root={folder(tmp_path / 'data', contradict=True)}",
    "--config.data.crop_size=(33, 33)",
    "--config.model.depth_multiplier=0.35",
    "--steps=4",
    "--every=2",
  )
  assert done.returncode == 1, done.stderr
  assert "are the same picture with different masks" in done.stdout
  assert "not learnt: mIoU" in done.stdout


@pytest.mark.slow  # 100 s: about 325 steps on 97x97 crops
def test_the_quickstart_learns_its_pictures():
  done = command("overfit_check", "--config=configs/quickstart.py")
  assert done.returncode == 0, done.stdout + done.stderr
  assert "passed: mIoU" in done.stdout


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=configs/own_data.py", "--images=0"], "--images=0: give 1"),
    (["--config=configs/nothing.py"], "nothing"),
    ([], "--config"),
  ],
)
def test_wrong_input_is_refused_by_name(arguments, message):
  done = command("overfit_check", *arguments)
  assert done.returncode == 2 and message in done.stderr
  assert "Traceback" not in done.stderr
