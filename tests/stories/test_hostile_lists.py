"""Lists of names and JSON files of the user, as chance or malice changes them.

DEEPLAX_MUTATIONS=2000 in the environment makes them many.
"""

import argparse
import json
import pathlib

import pytest

from deeplax.data import classes_json
from deeplax.data import mask_folders
from deeplax.data import prepared
from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data.prepare import coco
from deeplax.inference import settings as asked
from deeplax.settings import defaults
from deeplax.training import convertible
from tests import hostile
from tests import hostile_json
from tests.data import trees

MEMORY = 2**22  # beyond ten times the file
CLASSES = {
  "names": ["Straße", "car", "tree"],
  "palette": [[0, 0, 0], [255, 0, 0], [0, 255, 0]],
  "ignore_label": 255,
  "label_map": {"7": 1, "9": 255},
  "note": "made by hand",
}


def check(read, path, valid, *, json_too: bool = True) -> None:
  """Read changed files; some must be refused, or nothing was tested."""
  text = valid if isinstance(valid, bytes) else json.dumps(valid).encode()
  changed = [*hostile.mutations(text)]
  if json_too:
    changed += hostile_json.mutations(valid)
  outcome = hostile.check(read, path, changed, memory=MEMORY)
  assert outcome.refused > len(changed) / 10, outcome


def test_classes_json(tmp_path):
  path = tmp_path / "classes.json"
  path.write_text(json.dumps(CLASSES))
  assert classes_json.read(path)[0].class_names[0] == "Straße"

  def read(file):
    spec, table = classes_json.read(pathlib.Path(file))
    # What tables, pages and JSON lines are written with.
    "".join(spec.class_names).encode()
    assert len(spec.palette) == spec.num_classes and table.array.shape == (256,)

  check(read, tmp_path / "in" / "classes.json", CLASSES)
  colors = {
    "colors": {"Straße": [128, 64, 128], "Auto": ["#00008e", [0, 0, 70]]},
    "ignore_color": [0, 0, 0],
    "palette": [[0, 0, 0], "#808080"],
  }
  check(read, tmp_path / "in" / "classes.json", colors)


def test_a_list_of_masks(tmp_path):
  names = [f"städte/im {i}.v2" for i in range(9)] + ["a", "b.png"]
  for name in names:
    trees.mask(tmp_path / "labels" / f"{name}.png", trees.labels(0))
    trees.mask(tmp_path / "masks" / f"{name}_mask.png", trees.labels(0))

  def read(file):
    masks, labels = tmp_path / "masks", tmp_path / "labels"
    pairs = mask_folders.pairs(masks, labels, listed=pathlib.Path(file))
    assert len({pair.label for pair in pairs}) == len(pairs) > 0

  text = "\n".join(names).encode()
  check(read, tmp_path / "in" / "list.txt", text, json_too=False)


@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{0}.jpg /Masks/{0}.png"])
def test_a_list_of_voc(tmp_path, line):
  root = trees.voc(tmp_path)
  lists = root / "ImageSets" / "Segmentation"
  for path in lists.iterdir():
    path.unlink()
  text = "\n".join(line.format(name) for name in trees.VOC_TRAIN).encode()
  check(
    lambda _: published.voc(root, "train"),
    lists / "train.txt",
    text,
    json_too=False,
  )


def test_classes_of_a_foreign_checkpoint(tmp_path):
  def read(file):
    names = convertible.source_classes(file, "torchvision")
    assert names and all(isinstance(name, str) for name in names)

  check(read, tmp_path / "in" / "names.json", {"names": ["road", "car"]})
  check(read, tmp_path / "in2" / "names.json", ["road", "car", "sky"])


def test_the_result_of_a_crf_search(tmp_path):
  config = defaults.base()

  def read(file):
    args = argparse.Namespace(crf=False, crf_file=file, crf_negligible=None)
    found = asked.crf_parameters(config, args)
    assert found is not None and found["negligible"] < 1

  known = config.eval.crf.to_dict()
  best = {key: value for key, value in known.items() if key != "negligible"}
  check(read, tmp_path / "in" / "crf.json", {"best": best})


def test_the_classes_of_a_prepared_data_set(tmp_path):
  check(
    lambda file: prepared.spec(pathlib.Path(file).parent),
    tmp_path / "in" / "metadata.json",
    spec_lib.CAMVID.to_json(),
  )


def test_the_annotations_of_coco(tmp_path):
  root = trees.coco(tmp_path)
  annotations = root / "annotations"
  path = annotations / "instances_val2017.json"
  valid = json.loads(path.read_text())
  (annotations / "instances_train2017.json").unlink()
  for picture in (root / "train2017").iterdir():
    picture.unlink()
  (root / "train2017").rmdir()

  def read(_):
    source = coco.plan(root, min_pixels=100).splits["val"]
    for index in range(len(source)):
      source.mask(index)

  check(read, path, valid)
