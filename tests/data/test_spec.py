import dataclasses
import json
import math

import cv2
import numpy as np
import pytest

from deeplax.data import spec
from tests import shared

SIZES = {"voc2012": 21, "cityscapes": 19, "ade20k": 150, "camvid": 11}


def test_class_counts_and_splits_are_the_published_ones():
  for name, count in SIZES.items():
    assert spec.SPECS[name].num_classes == count
    assert spec.SPECS[name].ignore_label == 255
  splits = {name: dict(s.splits) for name, s in spec.SPECS.items()}
  assert splits["voc2012"] == {
    "train": 1464,
    "train_aug": 10582,
    "val": 1449,
    "trainval": 2913,
  }
  assert splits["cityscapes"] == {
    "train": 2975,
    "val": 500,
    "test": 1525,
    "train_extra": 19998,
  }
  assert splits["ade20k"] == {"train": 20210, "val": 2000}
  assert splits["camvid"] == {"train": 367, "val": 101, "test": 233}


def test_names_and_colors_are_the_published_ones():
  tables = json.loads(shared.path("data/datasets_meta.json").read_text())
  keys = {"voc2012": "voc", "camvid": "camvid11"}
  for name in SIZES:
    expected = tables[keys.get(name, name)]
    found = spec.SPECS[name]
    assert [list(color) for color in found.palette] == expected["palette"]
    names = [n.replace("screen door", "screen") for n in found.class_names]
    assert names == expected["names"]


def test_coco_has_the_classes_of_voc():
  assert spec.COCO.class_names == spec.VOC2012.class_names


def test_color_map_is_the_one_of_voc():
  assert spec.color_map(22)[15] == (192, 128, 128)  # person
  assert spec.color_map(256)[255] == (224, 224, 192)  # the border


@pytest.mark.parametrize("name", spec.SPECS)
def test_spec_survives_json(name):
  found = spec.SPECS[name]
  text = json.dumps(found.to_json())
  assert spec.Spec.from_json(json.loads(text)) == found


def test_spec_refuses_what_results_could_not_be_keyed_by():
  with pytest.raises(ValueError, match="repeat"):
    spec.Spec("x", ("a", "a"), spec.color_map(2))
  with pytest.raises(ValueError, match="1 colors for 2 classes"):
    spec.Spec("x", ("a", "b"), spec.color_map(1))


def test_a_label_map_of_any_numbers_survives_json():
  numbers = (-9999, 7, math.nan, math.inf, -3.4028234663852886e38, 1.5)
  label_map = tuple((number, 255) for number in numbers)
  before = dataclasses.replace(spec.VOC2012, label_map=label_map)
  after = spec.Spec.from_json(json.loads(json.dumps(before.to_json())))
  # NaN too: all are one, so that a change of its meaning is noticed.
  assert after.label_map == before.label_map


def test_forty_default_colors_are_distinct_and_no_background_s():
  names = [f"class {i}" for i in range(254)]
  colors = spec.default_colors(names)
  assert len(set(colors)) == 254 and (0, 0, 0) not in colors
  # Those of the first classes do not depend on how many there are.
  assert colors[:5] == spec.default_colors(names[:5])
  first = np.array([[*colors[:40], (0, 0, 0), (224, 224, 192)]], np.float32)
  lab = cv2.cvtColor(first / 255, cv2.COLOR_RGB2LAB)[0]
  far = np.linalg.norm(lab[:, None] - lab, axis=-1)
  # VOC's 21 have two colors at a distance of 9.
  assert far[np.triu_indices(42, 1)].min() > 19


def test_a_background_is_one_by_its_name():
  names = ("Background", "cat", "_void_", "others", "otherwise", "unlabelled")
  found = spec.Spec("own", names, spec.default_colors(names))
  assert found.backgrounds == {0, 2, 3, 5}
  black = [i for i, color in enumerate(found.palette) if not any(color)]
  assert black == [0, 2, 3, 5]
  assert spec.VOC2012.backgrounds == {0}
  assert not spec.CITYSCAPES.backgrounds | spec.ADE20K.backgrounds
