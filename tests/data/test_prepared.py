"""What was built is read as its tree is, alone and joined."""

import json
import subprocess
import sys

import numpy as np
import pytest

from deeplax import errors
from deeplax.data import build
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import prepared as prepared_lib
from deeplax.data import published as published_lib
from deeplax.data.checks import mask_counts
from deeplax.data.prepare import write
from deeplax.settings import defaults
from tests import conftest
from tests import hostile
from tests.data import trees
from tests.data.prepare import builds


def test_own_data_is_read_without_its_folder(capsys, tmp_path):
  tree = trees.folder(
    tmp_path / "My photos 2",
    palette=[[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    label_map={"9": 1},
    ignore_label=200,
  )
  trees.mask(tree / "labels/train/00.png", trees.labels(0, 9, 2, 200))
  trees.image(tree / "images/test/x.jpg")  # has no masks
  expected = {s: folder.source(tree, s) for s in ("train", "val")}
  status, out, _ = builds.run(
    capsys, "folder", f"--source={tree}", f"--out={tmp_path / 'out'}"
  )
  assert status == 0 and "test is left out" in out
  place = tmp_path / "out" / "my_photos_2"
  assert f"--config.data.root={place}" in out
  for root in (place, place / write.VERSION):
    config = builds.data("folder", root)
    assert build.spec(config) == expected["train"].spec
    for split, source in expected.items():
      builds.assert_equal(build.source(config, split), source)
  builds.assert_equal(build.at(place, "val"), expected["val"])


def test_a_run_sees_the_same_batches_and_resumes_in_them(capsys, tmp_path):
  tree = trees.folder(tmp_path / "mine", images=5)
  builds.built(capsys, "folder", tree, tmp_path / "out")
  config = defaults.debug(defaults.base())
  place = tmp_path / "out" / "mine"
  streams = [
    build.train_loader(
      config,
      build.source(builds.data("folder", root), "train"),
      pad_value=(1.0, 2.0, 3.0),
    )
    for root in (tree, place)
  ]
  for _ in range(2):
    expected, found = map(next, streams)
    np.testing.assert_array_equal(found["image"], expected["image"])
    np.testing.assert_array_equal(found["label"], expected["label"])
  state = streams[0].get_state()
  third = next(streams[0])
  streams[1].set_state(state)
  np.testing.assert_array_equal(next(streams[1])["image"], third["image"])


def test_several_splits_are_read_as_one(capsys, tmp_path):
  tree = trees.cityscapes(tmp_path / "tree", splits=builds.CITYSCAPES)
  builds.built(capsys, "cityscapes", tree, tmp_path / "out")
  for root in (tree, tmp_path / "out"):
    config = builds.data("cityscapes", root)
    found = build.source(config, "train+val+train_extra")
    assert isinstance(found, files.Decoded)
    assert found.split == "train+val+train_extra" and len(found) == 6
    parts = [
      published_lib.cityscapes(tree, s) for s in ("train", "val", "train_extra")
    ]
    expected = [part[i] for part in parts for i in range(2)]
    for i, example in enumerate(expected):
      assert found[i]["name"] == found.name(i) == example["name"]
      np.testing.assert_array_equal(found[i]["label"], example["label"])
      assert found.encoded(i).image == parts[i // 2].encoded(i % 2).image
      counted = mask_counts.by_label(mask_counts.read(found, i), found.table)
      assert counted.sum() == counted[:19].sum() + counted[255] > 0
    with pytest.raises(IndexError):
      found[6]
    assert len(build.at(root, "val+test")) == 4


def test_trainval_aug_is_train_aug_and_val(tmp_path):
  trees.voc(tmp_path, aug="train_aug.txt")
  found = build.source(builds.data("voc2012", tmp_path), "train_aug+val")
  names = [found[i]["name"] for i in range(len(found))]
  assert names == [trees.VOC_TRAIN[0], trees.SBD_ONLY, *trees.VOC_VAL]


def test_own_splits_are_joined_too(tmp_path):
  config = builds.data("folder", trees.folder(tmp_path))
  assert len(build.source(config, "train+val")) == 6


@pytest.mark.parametrize("split", ["train+train", "train+", "+"])
def test_a_split_is_joined_with_another_only(tmp_path, split):
  trees.voc(tmp_path)
  with pytest.raises(errors.InputError, match="different names"):
    build.source(builds.data("voc2012", tmp_path), split)


def test_masks_of_two_kinds_are_not_joined(tmp_path):
  trees.cityscapes(tmp_path, kind="labelTrainIds", splits=("train",))
  trees.cityscapes(tmp_path, splits=("train_extra",))
  with pytest.raises(errors.InputError, match=r"deeplax\.data\.build city"):
    build.source(builds.data("cityscapes", tmp_path), "train+train_extra")


def test_what_was_prepared_is_taken_before_the_tree(capsys, tmp_path):
  tree = trees.voc(tmp_path)
  builds.built(capsys, "voc2012", tree, tmp_path)
  found = build.source(builds.data("voc2012", tmp_path), "train")
  assert isinstance(found, prepared_lib.Prepared)


def test_prepared_by_others_has_no_classes_to_read(capsys, tmp_path):
  builds.built(
    capsys, "folder", trees.folder(tmp_path / "mine"), tmp_path / "out"
  )
  path = tmp_path / "out" / "mine" / write.VERSION / "metadata.json"
  for text in ("{", "[]", json.dumps({"name": "mine"})):
    path.write_text(text)
    with pytest.raises(errors.InputError, match="names the classes if"):
      build.spec(builds.data("folder", tmp_path / "out" / "mine"))


@pytest.mark.parametrize(
  "name",
  [
    "dataset_info.json",
    # 5 s: what a feature says it is may load TensorFlow.
    pytest.param("features.json", marks=pytest.mark.slow),
  ],
)
def test_damaged_files_of_a_prepared_data_set_are_one_message(
  capsys, tmp_path, name
):
  builds.built(capsys, "folder", trees.folder(tmp_path / "a"), tmp_path / "out")
  place = tmp_path / "out" / "a" / write.VERSION
  path, spec = place / name, prepared_lib.spec(place)
  valid, refused = path.read_bytes(), 0
  for data in hostile.mutations(valid, count=hostile.COUNT // 4):
    path.write_bytes(data)
    try:
      source = prepared_lib.Prepared(spec, place, "train")
      for i in range(len(source)):
        source.encoded(i)
    except errors.InputError as error:
      refused += 1
      assert str(place) in str(error) and len(str(error)) < hostile.LONGEST
  assert refused


def test_a_shard_that_is_gone_is_told_and_the_advice_works(capsys, tmp_path):
  tree, out = trees.folder(tmp_path / "mine"), tmp_path / "out"
  builds.built(capsys, "folder", tree, out)
  for path in (out / "mine" / write.VERSION).glob("*train.array_record*"):
    path.unlink()
  source = build.source(builds.data("folder", out / "mine"), "train")
  with pytest.raises(errors.InputError, match="again, with --overwrite"):
    source[0]
  status, _, _ = builds.run(
    capsys, "folder", f"--source={tree}", f"--out={out}", "--overwrite"
  )
  assert status == 0
  source = build.source(builds.data("folder", out / "mine"), "train")
  assert source[0]["name"] == "00"


def test_building_and_reading_need_no_tensorflow(tmp_path):
  tree = trees.ade20k(tmp_path)
  code = (
    "import sys\n"
    "from configs import common\n"
    "from deeplax.data import build\n"
    "from deeplax.data.prepare import command\n"
    "try:\n"
    f"  command.main(['ade20k', '--source={tree}', '--out={tmp_path}/out',"
    " '--allow_partial'])\n"
    "except SystemExit as end:\n"
    "  assert not end.code\n"
    "data = common.base().data\n"
    f"data.name, data.root = 'ade20k', '{tmp_path}/out'\n"
    "assert build.source(data, 'train')[0]['label'].max() == 255\n"
    "assert 'tensorflow_datasets' in sys.modules\n"
    "assert 'tensorflow' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", code], cwd=conftest.ROOT, check=True)
