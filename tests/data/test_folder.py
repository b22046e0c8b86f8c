import codecs
from functools import partial
import json
import os
import re
import sys

import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import folder
from deeplax.data import spec
from deeplax.data import views
from deeplax.data.checks import check
from tests import shared
from tests.data import trees


def refused(root, *parts, split="train"):
  with pytest.raises(errors.InputError) as error:
    folder.source(root, split)
  for part in parts:
    assert part in str(error.value)


def test_examples_are_read_in_the_order_of_their_names(tmp_path):
  source = folder.source(trees.folder(tmp_path), "train")
  assert [source[i]["name"] for i in range(len(source))] == ["00", "01", "02"]
  example = source[0]
  assert example["image"].shape == (*trees.SIZE, 3)
  np.testing.assert_array_equal(example["label"], trees.labels(0, 1, 2))


def test_sub_folders_are_part_of_the_name(tmp_path):
  trees.folder(tmp_path, images=0)
  trees.image(tmp_path / "images/train/monday/a.png")
  trees.mask(tmp_path / "labels/train/monday/a.png", trees.labels(1))
  (tmp_path / "images/train/Thumbs.db").write_bytes(b"")
  source = folder.source(tmp_path, "train")
  assert source[0]["name"] == "monday/a"


def split_to_links(root, store, kinds=("images", "labels")):
  """Move the files of train to `store`, and link to it from train/far."""
  for kind in kinds:
    (store / kind).parent.mkdir(exist_ok=True)
    folder_of_kind = root / kind / "train"
    folder_of_kind.rename(store / kind)
    folder_of_kind.mkdir()
    (folder_of_kind / "far").symlink_to(store / kind)


def test_linked_sub_folders_are_part_of_the_split(tmp_path):
  root = trees.folder(tmp_path / "data", images=2)
  split_to_links(root, tmp_path / "store")
  trees.image(root / "images/train/near.jpg")
  trees.mask(root / "labels/train/near.png", trees.labels(0, 1))
  source = folder.source(root, "train")
  assert [pair.name for pair in source.pairs] == ["far/00", "far/01", "near"]
  assert source[0]["label"].shape == trees.SIZE


def test_masks_may_be_linked_where_images_are_not(tmp_path):
  root = trees.folder(tmp_path / "data", images=2)
  split_to_links(root, tmp_path / "store", kinds=("labels",))
  (root / "images/train").rename(root / "images/far")
  (root / "images/train").mkdir()
  (root / "images/far").rename(root / "images/train/far")
  assert len(folder.source(root, "train")) == 2


def test_hidden_copies_are_no_examples(tmp_path):
  root = trees.folder(tmp_path)
  for hidden in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
    trees.image(root / f"images/train/{hidden}/00-checkpoint.jpg")
    trees.mask(
      root / f"labels/train/{hidden}/00-checkpoint.png", trees.labels(0)
    )
    (root / "images" / hidden).mkdir()
  (root / "images/train/._00.jpg").write_bytes(b"resource fork")
  assert len(folder.source(root, "train")) == 3
  assert folder.splits(root) == ["train", "val"]


def test_a_folder_called_like_a_picture_is_searched(tmp_path):
  root = trees.folder(tmp_path)
  trees.image(root / "images/train/scene1.tif/tile.jpg")
  trees.mask(root / "labels/train/scene1.tif/tile.png", trees.labels(0))
  names = [pair.name for pair in folder.source(root, "train").pairs]
  assert names == ["00", "01", "02", "scene1.tif/tile"]


def test_an_accent_is_matched_however_it_is_stored(tmp_path):
  root = trees.folder(tmp_path, images=0)
  trees.image(root / "images/train/stra\u00dfe/caf\u00e9.jpg")
  trees.mask(root / "labels/train/stra\u00dfe/cafe\u0301.png", trees.labels(1))
  source = folder.source(root, "train")
  assert source[0]["name"] == "stra\u00dfe/caf\u00e9"


def test_two_names_that_look_alike_are_an_error_that_says_so(tmp_path):
  root = trees.folder(tmp_path, images=0)
  for name in ("caf\u00e9", "cafe\u0301"):
    trees.image(root / f"images/train/{name}.jpg")
  refused(root, "differ in how an accented letter is stored only", "Rename")
  (root / "images/train/caf\u00e9.jpg").rename(root / "images/train/tea.jpg")
  for name in ("tea", "cafe\u0301"):
    trees.mask(root / f"labels/train/{name}.png", trees.labels(0))
  assert len(folder.source(root, "train")) == 2


@pytest.mark.parametrize("suffix", [".jfif", ".jp2", ".avif", ".ppm", ".JPE"])
def test_every_kind_of_picture_that_is_read_is_found(tmp_path, suffix):
  root = trees.folder(tmp_path, images=0)
  trees.image(root / f"images/train/a{suffix}")
  trees.mask(root / "labels/train/a.png", trees.labels(1))
  assert folder.source(root, "train")[0]["image"].shape == (*trees.SIZE, 3)


@pytest.mark.parametrize("suffix", [".pgm", ".jp2", ".AVIF"])
def test_a_mask_of_a_kind_that_changes_numbers_is_refused(tmp_path, suffix):
  root = trees.folder(tmp_path)
  path = root / "labels/train/01.png"
  path.rename(path.with_suffix(suffix))
  refused(root, f"01{suffix} is no mask", "Save masks as PNG")
  trees.mask(path, trees.labels(0, 1))
  path.with_suffix(suffix).unlink()
  assert len(folder.source(root, "train")) == 3


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_a_name_that_is_no_utf_8_can_be_printed(tmp_path):
  root = trees.folder(tmp_path, images=0)
  trees.image(root / os.fsdecode(b"images/train/caf\xe9.jpg"))
  trees.mask(root / os.fsdecode(b"labels/train/caf\xe9.png"), trees.labels(1))
  name = folder.source(root, "train")[0]["name"]
  assert name == "caf\\xe9" and name.encode()


def test_what_is_left_out_is_counted_by_suffix(tmp_path):
  root = trees.folder(tmp_path)
  for name in (
    "images/train/a.heic",
    "images/train/b.HEIC",
    "labels/val/a.json",
  ):
    (root / name).write_bytes(b"")
  found = "images/train has 2 .heic"
  assert folder.source(root, "train").left_out == found
  both = views.read_splits(partial(folder.source, root), "train+val")
  assert both.left_out == f"{found}; labels/val has 1 .json"
  note = f"left out, of kinds that are not read: {found}"
  assert note in check.check(folder.source(root, "train")).notes


def test_a_split_of_other_kinds_only_says_what_it_holds(tmp_path):
  root = trees.folder(tmp_path)
  for path in (root / "images/train").iterdir():
    path.rename(path.with_suffix(".heic"))
  refused(root, "holds no picture", "but 3 .heic", "put pictures of one of")
  for i in range(3):
    trees.image(root / f"images/train/{i:02d}.jpg")
  source = folder.source(root, "train")
  assert len(source) == 3 and source.left_out == "images/train has 3 .heic"


def test_classes_without_colors_get_distinct_ones(tmp_path):
  found = folder.spec(trees.folder(tmp_path))
  assert found.class_names == ("ground", "cat", "dog")
  assert found.palette == spec.default_colors(found.class_names)


def test_own_ignore_label_becomes_255_once(tmp_path):
  trees.folder(tmp_path, ignore_label=9)
  trees.mask(tmp_path / "labels/train/00.png", trees.labels(0, 1, 9, 255))
  label = folder.source(tmp_path, "train")[0]["label"]
  # 255 is no number of this data set: training stops on it.
  np.testing.assert_array_equal(label[0, :4], [0, 1, 255, 254])


def test_label_map_turns_255_into_a_class(tmp_path):
  trees.folder(tmp_path, label_map={"255": 1}, ignore_label=None)
  trees.mask(tmp_path / "labels/train/00.png", trees.labels(0, 255))
  label = folder.source(tmp_path, "train")[0]["label"]
  np.testing.assert_array_equal(np.unique(label), [0, 1])


def test_missing_classes_json_is_an_error_with_an_example(tmp_path):
  (trees.folder(tmp_path) / "classes.json").unlink()
  refused(tmp_path, "classes.json", '"names"')


def test_classes_json_may_start_with_a_mark(tmp_path):
  root = trees.folder(tmp_path)
  text = '{"names": ["Stra\u00dfe", "Auto", "Baum"]}'
  (root / "classes.json").write_bytes(codecs.BOM_UTF8 + text.encode())
  assert folder.spec(root).class_names == ("Stra\u00dfe", "Auto", "Baum")


def test_classes_json_in_capitals_is_to_be_renamed(tmp_path):
  root = trees.folder(tmp_path)
  path = root / "classes.json"
  other = path.rename(root / "Classes.JSON")
  if path.exists():
    pytest.skip("this file system has no capitals")
  refused(root, f"no {path}, but {other}: rename it")
  other.rename(path)
  assert len(folder.source(root, "train")) == 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252"])
def test_classes_json_in_another_encoding_is_one_line(tmp_path, encoding):
  root = trees.folder(tmp_path)
  text = '{"names": ["Stra\u00dfe", "Auto", "Baum"]}'
  (root / "classes.json").write_bytes(text.encode(encoding))
  refused(root, "classes.json is not UTF-8", "Save it as UTF-8")


def test_the_example_in_the_messages_about_classes_json_works(tmp_path):
  root = trees.folder(tmp_path, classes=("background", "cat"))
  path = root / "classes.json"
  for wrong in (None, "", "{", "[]", "{}"):
    path.unlink() if wrong is None else path.write_text(wrong)
    with pytest.raises(errors.InputError) as error:
      folder.source(root, "train")
    found = re.search(r"for example (\{.*\})$", str(error.value))
    assert found, str(error.value)
    path.write_text(found[1])
    assert len(folder.source(root, "train")) == 3


@pytest.mark.parametrize(
  ("text", "part"),
  [
    ("{", "is not JSON"),
    ("[]", "holds a list"),
    ("{}", 'no "names"'),
    ('{"names": "cat"}', "not a list"),
    ('{"names": []}', "0 names"),
    ('{"names": ["a", "a"]}', "has 'a' twice"),
    ('{"names": ["a"], "ignore_lable": 1}', "unknown keys ['ignore_lable']"),
    ('{"names": ["a"], "ignore_label": -1}', '"ignore_label" is -1'),
    ('{"names": ["a"], "ignore_label": 0}', "also the number of the class 'a'"),
    ('{"names": ["a"], "palette": [[1, 2]]}', '"palette" has [1, 2]'),
    ('{"names": ["a"], "palette": [[1,2,3],[1,2,3]]}', "2 colors for 1"),
    ('{"names": ["a"], "label_map": {"x": 0}}', "key 'x'"),
    ('{"names": ["a"], "label_map": {"9": 4}}', "maps 9 to 4"),
    ('{"names": ["a"], "label_map": {"9": null}}', "maps 9 to None"),
    ('{"names": ["a"], "label_map": {"9": 0, "09": 0}}', "number 9 twice"),
    ('{"names": ["a"], "label_map": {"' + "9" * 5000 + '": 0}}', "key '99"),
    ('{"names": ["a"], "palette": 7}', "7, not a list of colors"),
    ('{"names": ["a"], "palette": [0]}', '"palette" has 0'),
    ('{"names": ["a"], "palette": ["#fffff"]}', "has '#fffff'"),
    ('{"names": ["a"], "ignore_label": NaN}', '"ignore_label" is nan'),
    ('{"names": ["a"], "ignore_label": 1e999}', '"ignore_label" is inf'),
    ('{"names": ["a"], "ignore_label": true}', '"ignore_label" is True'),
    ('{"names": ["a\\nb"]}', "a text on one line"),
    ('{"names": [" "]}', "a text on one line"),
    ('{"names": ["a"], "names": ["b"]}', "the key 'names' occurs twice"),
    ('{"names": ["\\ud800"]}', "half a character"),
    ('{"names": ' + "[" * 900 + "]" * 900 + "}", "a text on one line"),
    ('{"names": ["e\u0301", "\u00e9"]}', "look alike"),
  ],
)
def test_wrong_classes_json_is_an_error_that_says_what(tmp_path, text, part):
  (trees.folder(tmp_path) / "classes.json").write_text(text)
  refused(tmp_path, "classes.json", part)


def test_image_without_mask_is_an_error(tmp_path):
  (trees.folder(tmp_path) / "labels/train/01.png").unlink()
  refused(tmp_path, "images/train/01.jpg has no mask", "1 of 3")


def test_mask_without_image_is_an_error(tmp_path):
  (trees.folder(tmp_path) / "images/train/01.jpg").unlink()
  refused(tmp_path, "labels/train/01.png has no image", "1 of 3")


def test_two_images_of_one_name_are_an_error(tmp_path):
  trees.folder(tmp_path)
  trees.image(tmp_path / "images/train/01.png")
  refused(tmp_path, "01.jpg and", "01.png differ in their suffix only")


def test_unknown_split_lists_the_existing_ones(tmp_path):
  refused(trees.folder(tmp_path), "'test'", "['train', 'val']", split="test")


def test_empty_split_is_an_error(tmp_path):
  refused(trees.folder(tmp_path, images=0, splits=()), "no folders")
  (tmp_path / "images/train").mkdir(parents=True)
  refused(tmp_path, "holds no picture")


def test_file_that_vanished_is_an_error_not_a_traceback(tmp_path):
  source = folder.source(trees.folder(tmp_path), "train")
  (tmp_path / "labels/train/00.png").unlink()
  with pytest.raises(errors.InputError, match=r"00\.png cannot be read"):
    source[0]


@pytest.mark.parametrize(
  ("split", "count"), [("train", 367), ("val", 101), ("test", 233)]
)
def test_camvid_has_its_published_counts(split, count):
  root = shared.path("data/camvid")
  source = folder.source(root, split)
  assert len(source) == count
  assert source.spec == spec.Spec(
    "camvid", spec.CAMVID.class_names, spec.CAMVID.palette
  )
  for i in (0, count // 2, count - 1):
    example = source[i]
    assert example["image"].shape == (360, 480, 3)
    raw = np.asarray(Image.open(source.pairs[i].label))
    assert set(np.unique(raw)) <= set(range(12))
    np.testing.assert_array_equal(
      example["label"], np.where(raw == 11, 255, raw)
    )
  classes = json.loads((root / "classes.json").read_text())
  assert classes["splits"][split] == count
