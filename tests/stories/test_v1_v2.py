"""`:debug` of v1 and v2: trained, evaluated, predicted with, as commands."""

import json

import numpy as np
from PIL import Image
import pytest

from tests import commands

CONFIGS = ("v1_vgg16_largefov", "v2_vgg16", "v2_resnet101")


def command(module, *arguments):
  done = commands.command(module, *arguments, short=True)
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout


@pytest.mark.slow  # three commands, each compiles
@pytest.mark.parametrize("name", CONFIGS)
def test_a_debug_run_trains_evaluates_and_predicts(tmp_path, name):
  workdir, image = tmp_path / "run", tmp_path / "a.png"
  config = f"--config=configs/{name}.py:debug"
  said = command("main", config, f"--workdir={workdir}")
  assert "step 4/4" in said and "labels down to the logits" in said
  per_scale = "one more for each input scale" in said
  assert per_scale == (name == "v2_resnet101")

  command("evaluate", f"--workdir={workdir}", "--crf")
  (found,) = (workdir / "eval").glob("val-00000004-os8-s1.0-crf.json")
  result = json.loads(found.read_text())
  assert result["images"] == 4 and 0 <= result["miou"] <= 1
  fixed = 1.0 if name == "v2_resnet101" else 3.0
  assert result["crf"]["sigma_gamma"] == fixed

  Image.new("RGB", (40, 33)).save(image)
  command("predict", f"--workdir={workdir}", f"--out={tmp_path / 'p'}", image)
  with Image.open(next((tmp_path / "p").rglob("*.png"))) as mask:
    assert mask.size == (40, 33)
    assert np.asarray(mask).max() < 8
