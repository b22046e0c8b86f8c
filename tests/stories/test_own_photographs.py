"""Real photographs of many sizes and kinds train with no code written."""

import json

import numpy as np
from PIL import Image
import pytest

from deeplax import atomic
from deeplax.data import spec
from tests import shared
from tests.commands import command

# Of a published network; its masks stand in for annotations.
NETWORK = "deeplabv3_mnv2_pascal_quant"


def photograph_folder(root):
  """Make images/, labels/ and classes.json of the photographs there are."""
  photos = shared.path("weights/images")
  masks = sorted(shared.path("weights/expected").glob(f"*__{NETWORK}.npz"))
  for index, file in enumerate(masks):
    name = file.name.split("__")[0]
    split = "val" if index % 3 == 2 else "train"
    for kind in ("images", "labels"):
      (root / kind / split).mkdir(parents=True, exist_ok=True)
    photo = next(photos.glob(f"{name}.*"))
    (root / "images" / split / photo.name).write_bytes(photo.read_bytes())
    with np.load(file) as arrays, Image.open(photo) as image:
      height, width = arrays["valid_hw"]
      mask = Image.fromarray(arrays["jax_label"][:height, :width])
      mask = mask.resize(image.size, Image.Resampling.NEAREST)
    mask.save(root / "labels" / split / f"{name}.png")
  names = {"names": list(spec.VOC2012.class_names), "ignore_label": 255}
  (root / "classes.json").write_text(json.dumps(names))
  return root


def image_size(path):
  with Image.open(path) as image:
    return image.size


@pytest.mark.slow  # compiles a training step and four image sizes
def test_photographs_of_changing_sizes_train_evaluate_and_predict(tmp_path):
  data = photograph_folder(tmp_path / "photos")
  sizes = {image_size(path) for path in data.glob("images/*/*")}
  assert len(sizes) >= 4
  workdir = tmp_path / "run"
  done = command(
    "main",
    "--config=configs/own_data.py",
    f"--config.data.root={data}",
    "--config.train.total_steps=4",
    "--config.train.batch_size=2",
    "--config.data.crop_size=(129, 97)",
    "--config.model.depth_multiplier=0.35",
    "--config.eval.every=2",
    f"--workdir={workdir}",
    short=True,
  )
  assert done.returncode == 0, done.stderr
  lines = list(atomic.read_jsonl(workdir / "metrics.jsonl"))
  assert sum("miou" in line for line in lines) == 2
  assert [line["step"] for line in lines if "loss" in line] == [4]
  out = tmp_path / "predictions"
  shown = command(
    "predict",
    f"--workdir={workdir}",
    f"--out={out}",
    data / "images",
    short=True,
  )
  assert shown.returncode == 0, shown.stderr
  for photo in data.glob("images/*/*"):
    (mask,) = out.rglob(f"{photo.stem}_mask.png")
    assert image_size(mask) == image_size(photo)
