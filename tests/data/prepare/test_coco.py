"""Outlines of COCO become masks of VOC's classes."""

import json

import numpy as np
import pytest

from deeplax import errors
from deeplax.data import build
from deeplax.data import spec
from deeplax.data.prepare import coco
from tests.data import trees
from tests.data.prepare import builds


def test_coco_s_outlines_become_voc_s_classes(capsys, tmp_path):
  tree = trees.coco(tmp_path / "coco")
  builds.built(capsys, "coco", tree, tmp_path / "out", "--min_pixels=100")
  found = build.source(builds.data("coco", tmp_path / "out"), "train")
  assert [found[i]["name"] for i in range(len(found))] == ["000000000007"]
  label = found[0]["label"]
  y, x = np.mgrid[0:40, 0:60]
  dog = (x >= 5) & (x < 25) & (y >= 5) & (y < 15)
  edge = (x >= 4) & (x <= 25) & (y >= 4) & (y <= 15) & ~dog
  person = (x >= 10) & (x < 20) & (y >= 30)
  classes = spec.COCO.class_names
  assert (label[dog] == classes.index("dog")).all()
  assert (label[person] == classes.index("person")).all()
  assert (label[~(dog | edge | person)] == 0).all()  # the zebra, too


def test_min_pixels_decides_which_images_of_coco_are_taken(tmp_path):
  tree = trees.coco(tmp_path)
  counts = [
    len(coco.plan(tree, min_pixels=n).splits["train"]) for n in (0, 16, 299)
  ]
  assert counts == [2, 1, 1]
  with pytest.raises(errors.InputError, match="--min_pixels"):
    coco.plan(tree, min_pixels=300)


def test_filled_outlines_differ_from_a_point_test_at_edges_only():
  outline = [3.2, 4.1, 50.7, 9.3, 41.4, 33.8, 20.5, 18.2, 6.9, 36.6]
  found = coco.draw([(1, [outline])], (40, 60), "file") == 1
  corners = np.array(outline).reshape(-1, 2)
  y, x = np.mgrid[0:40, 0:60] + 0.5  # centers
  inside = np.zeros((40, 60), bool)
  distance = np.full((40, 60), np.inf)
  for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
    crosses = (y0 > y) != (y1 > y)
    inside ^= crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / (
      (x1 - x0) ** 2 + (y1 - y0) ** 2
    )
    along = np.clip(along, 0, 1)
    away = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
    distance = np.minimum(distance, away)
  assert found[inside].all()  # never smaller
  assert (distance[found != inside] < 1).all()


def test_where_two_classes_of_coco_overlap_is_ignored():
  box = [0.0, 0.0, 6.0, 0.0, 6.0, 6.0, 0.0, 6.0]
  other = [4.0, 0.0, 9.0, 0.0, 9.0, 6.0, 4.0, 6.0]
  label = coco.draw([(1, [box]), (2, [other]), (2, [other])], (8, 12), "f")
  assert label[2].tolist() == [1, 1, 1, 1, 255, 255, 255, 2, 2, 2, 0, 0]


@pytest.mark.parametrize(
  "region",
  [
    {"counts": [2**40]},
    {"counts": [3, 2**62, 2**62]},
    {"counts": [-16, 32]},
    {"counts": [15]},
    [[0.0, 0.0, 1e300, 0.0, 1.0, 1.0]],
    [[float("nan"), 0.0, 1.0, 1.0]],
    [["x" * 5000, 0.0]],
    {"counts": {}},
  ],
)
def test_regions_that_no_image_holds_are_refused(region):
  with pytest.raises(errors.InputError, match="cannot be drawn") as error:
    coco.draw([(1, region)], (4, 4), "file")
  assert len(str(error.value)) < 400


@pytest.mark.parametrize("height", [2**40, 41, "40", None, 40.5])
def test_a_size_that_is_not_the_image_s_is_refused(tmp_path, height):
  root = trees.coco(tmp_path)
  path = root / "annotations/instances_val2017.json"
  obj = json.loads(path.read_text())
  for picture in obj["images"]:
    picture["height"] = height
  path.write_text(json.dumps(obj))
  source = coco.plan(root, min_pixels=100).splits["val"]
  with pytest.raises(errors.InputError, match=r"but .*7\.jpg is \(40, 60\)"):
    source.mask(0)


def test_compressed_run_lengths_are_refused():
  with pytest.raises(errors.InputError, match="file.*cannot be drawn"):
    coco.draw([(1, {"counts": "0d05", "size": [4, 4]})], (4, 4), "file")
