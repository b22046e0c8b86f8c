import json
import pathlib

import numpy as np
import pytest
import tensorflow_datasets as tfds

from deeplax import errors
from deeplax.data import prepared as prepared_lib
from deeplax.data import published
from deeplax.data import spec
from tests import shared
from tests.data import trees


def test_voc_palette_masks_are_read_as_indices(tmp_path):
  source = published.voc(trees.voc(tmp_path), "train")
  assert len(source) == 2
  example = source[1]
  assert example["name"] == "2007_000039"
  np.testing.assert_array_equal(
    example["label"], trees.labels(0, 2, 15, 20, 255, size=(21, 30))
  )


@pytest.mark.parametrize("name", published.AUG_LISTS)
def test_train_aug_takes_sbd_s_masks_where_voc_has_none(tmp_path, name):
  source = published.voc(trees.voc(tmp_path, aug=name), "train_aug")
  assert [source[i]["name"] for i in range(2)] == ["2007_000032", "2008_000007"]
  own = trees.labels(0, 1, 15, 20, 255)
  np.testing.assert_array_equal(source[0]["label"], own)
  extra = trees.labels(0, 7, size=(23, 30))
  np.testing.assert_array_equal(source[1]["label"], extra)


def test_train_aug_without_a_list_is_all_masks_but_val(tmp_path):
  root = trees.voc(tmp_path, aug="train_aug.txt")
  (root / "ImageSets/Segmentation/train_aug.txt").unlink()
  folder = root / "SegmentationClassAug"
  trees.mask(folder / "2007_000033.png", trees.labels(0, size=(22, 30)))
  source = published.voc(root, "train_aug")
  assert [source.name(i) for i in range(len(source))] == [
    "2007_000032",
    "2008_000007",
  ]


def test_train_aug_list_may_name_both_files_per_line(tmp_path):
  root = trees.voc(tmp_path, aug="train_aug.txt")
  (root / "ImageSets/Segmentation/train_aug.txt").write_text(
    "/JPEGImages/2008_000007.jpg /SegmentationClassAug/2008_000007.png\n"
  )
  assert published.voc(root, "train_aug")[0]["name"] == "2008_000007"


@pytest.mark.parametrize(
  "line",
  ["2007_000039.jpg", "  2007_000039\r", "\ufeff2007_000039"],
)
def test_a_line_of_a_voc_list_may_be_a_file(tmp_path, line):
  root = trees.voc(tmp_path)
  (root / "ImageSets/Segmentation/train.txt").write_text(line)
  assert [p.name for p in published.voc(root, "train").pairs] == ["2007_000039"]


@pytest.mark.parametrize(
  ("text", "part"),
  [
    ("2007_000032\n2007_000039\n2007_000032\n", "more than once"),
    ("2007_000032 1\n", "2007_000032 1.jpg is missing"),
    ("2007_000032.0\n", "2007_000032.0.jpg is missing"),
    ("/JPEGImages/2007_000032.jpg /x/2007_000039.png", "neither an id"),
    ("../../../evil", "neither an id"),
    ("/etc/evil", "neither an id"),
  ],
)
def test_a_voc_list_is_not_cut(tmp_path, text, part):
  root = trees.voc(tmp_path)
  (root / "ImageSets/Segmentation/train.txt").write_text(text)
  with pytest.raises(errors.InputError, match=part):
    published.voc(root, "train")


def test_train_aug_without_sbd_offers_the_ways_out(tmp_path):
  with pytest.raises(errors.InputError) as error:
    published.voc(trees.voc(tmp_path), "train_aug")
  text = str(error.value)
  assert "benchmark.tgz" in text and "SegmentationClassAug" in text
  assert "deeplax.data.build voc2012" in text and "--sbd=" in text
  assert "--config.data.train_split=train" in text and "1,464" in text


def test_unknown_voc_split_lists_the_existing_ones(tmp_path):
  with pytest.raises(
    errors.InputError, match=r"'test'.*\['train', 'trainval', 'val'\]"
  ):
    published.voc(trees.voc(tmp_path), "test")


@pytest.mark.parametrize(
  "lost", ["JPEGImages/2007_000039.jpg", "SegmentationClass/2007_000039.png"]
)
def test_file_missing_from_voc_is_named(tmp_path, lost):
  root = trees.voc(tmp_path)
  (root / lost).unlink()
  with pytest.raises(errors.InputError) as error:
    published.voc(root, "train")
  assert lost in str(error.value) and "1 of 2" in str(error.value)


def test_real_voc_images_are_read():
  root = shared.path("data/voc_samples/VOCdevkit/VOC2012")
  source = published.voc(root, "val")
  examples = {e["name"]: e for e in (source[i] for i in range(len(source)))}
  # 2007_000129 shows bicycles (2) and persons (15).
  assert set(np.unique(examples["2007_000129"]["label"])) == {0, 2, 15, 255}


@pytest.mark.parametrize("kind", ["labelTrainIds", "labelIds"])
def test_cityscapes_labels_are_train_ids(tmp_path, kind):
  stem = "aachen_000000_000019"
  trees.image(
    tmp_path / f"leftImg8bit/train/aachen/{stem}_leftImg8bit.png", (8, 16)
  )
  ids = trees.labels(7, 8, 33, 4, 0, size=(8, 16))
  train_ids = trees.labels(0, 1, 18, 255, 255, size=(8, 16))
  folder = tmp_path / "gtFine/train/aachen"
  trees.mask(folder / f"{stem}_gtFine_labelIds.png", ids)
  if kind == "labelTrainIds":
    trees.mask(folder / f"{stem}_gtFine_labelTrainIds.png", train_ids)
  source = published.cityscapes(tmp_path, "train")
  assert source[0]["name"] == stem
  np.testing.assert_array_equal(source[0]["label"], train_ids)
  with pytest.raises(errors.InputError, match=r"has \['train'\]"):
    published.cityscapes(tmp_path, "val")


def test_hidden_files_of_published_trees_are_left_out(tmp_path):
  city, ade = trees.cityscapes(tmp_path), trees.ade20k(tmp_path)
  images = ade / "images/training"
  (images / "._ADE_training_00000000.jpg").write_bytes(b"resource fork")
  train = city / "leftImg8bit/train"
  trees.image(train / ".ipynb_checkpoints/a_leftImg8bit.png")
  (train / "aachen/._a_leftImg8bit.png").write_bytes(b"resource fork")
  assert len(published.ade20k(ade, "train")) == 2
  assert len(published.cityscapes(city, "train")) == 2


def test_linked_folders_of_published_trees_are_read(tmp_path):
  root = trees.cityscapes(tmp_path / "tree", splits=("train",))
  for kind in ("leftImg8bit", "gtFine"):
    (root / kind / "train/aachen").rename(tmp_path / kind)
    (root / kind / "train/aachen").symlink_to(tmp_path / kind)
  assert len(published.cityscapes(root, "train")) == 2


def test_train_extra_is_read_from_the_coarse_annotations(tmp_path):
  trees.cityscapes(tmp_path, splits=("train", "train_extra"))
  source = published.cityscapes(tmp_path, "train_extra")
  assert "gtCoarse" in str(source.pairs[0].label)
  expected = trees.labels(0, 1, 18, 255, 255, size=(8, 16))
  np.testing.assert_array_equal(source[0]["label"], expected)


def test_every_cityscapes_id_is_mapped_as_published(tmp_path):
  tables = json.loads(shared.path("data/datasets_meta.json").read_text())
  stem = "aachen_000000_000019"
  trees.image(
    tmp_path / f"leftImg8bit/val/aachen/{stem}_leftImg8bit.png", (1, 34)
  )
  ids = np.arange(34, dtype=np.uint8)[None]
  trees.mask(tmp_path / f"gtFine/val/aachen/{stem}_gtFine_labelIds.png", ids)
  label = published.cityscapes(tmp_path, "val")[0]["label"]
  expected = tables["cityscapes"]["id_to_train_id"]
  assert label[0].tolist() == [expected[str(i)] for i in range(34)]


def test_ade20k_number_k_is_class_k_minus_1_and_0_is_ignored(tmp_path):
  for split in ("training", "validation"):
    trees.image(tmp_path / f"images/{split}/ADE_1.jpg")
    raw = trees.labels(0, 1, 150, 151)
    trees.mask(tmp_path / f"annotations/{split}/ADE_1.png", raw)
  for split in ("train", "val"):
    label = published.ade20k(tmp_path, split)[0]["label"]
    assert label[0, :4].tolist() == [255, 0, 149, 254]
  (tmp_path / "annotations/training/ADE_1.png").unlink()
  with pytest.raises(errors.InputError, match="1 of 1 images"):
    published.ade20k(tmp_path, "train")


def test_camvid_is_read_as_segnet_distributes_it(tmp_path):
  trees.image(tmp_path / "train/0001TP_006690.png")
  raw = trees.labels(0, 10, 11)
  trees.mask(tmp_path / "trainannot/0001TP_006690.png", raw)
  source = published.camvid(tmp_path, "train")
  assert source.spec is spec.CAMVID
  np.testing.assert_array_equal(source[0]["label"], trees.labels(0, 10, 255))
  folder = trees.folder(tmp_path / "own", classes=spec.CAMVID.class_names)
  assert len(published.camvid(folder, "val")) == 3


class Voc2012(tfds.core.GeneratorBasedBuilder):
  """The tiny VOC tree as a prepared data set."""

  VERSION = tfds.core.Version("1.0.0")
  name = "voc2012"
  tree = pathlib.Path()

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(),
          "label": tfds.features.Image(shape=(None, None, 1)),
          "name": tfds.features.Text(),
        }
      )
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples("train")}

  def _generate_examples(self, split):
    for pair in published.voc(self.tree, split).pairs:
      yield (
        pair.name,
        {
          "image": str(pair.image),
          "label": str(pair.label),
          "name": pair.name,
        },
      )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A folder that holds voc2012/1.0.0, and the tree it was made from."""
  root = tmp_path_factory.mktemp("prepared")
  Voc2012.tree = trees.voc(root)
  builder = Voc2012(data_dir=root, file_format="array_record")
  builder.download_and_prepare()
  return root, Voc2012.tree


def test_prepared_data_set_equals_the_tree(prepared):
  root, tree = prepared
  path = root / "voc2012" / "1.0.0"
  assert prepared_lib.find(root, "voc2012") == path
  found = prepared_lib.Prepared(spec.VOC2012, path, "train")
  expected = published.voc(tree, "train")
  order = sorted(range(len(found)), key=found.name)
  assert len(found) == len(expected)
  for i, j in enumerate(order):
    assert found[j]["name"] == expected[i]["name"]
    for key in ("image", "label"):
      np.testing.assert_array_equal(found[j][key], expected[i][key])


def test_prepared_data_set_lists_its_splits(prepared):
  with pytest.raises(errors.InputError, match=r"'val'.*\['train'\]"):
    path = prepared[0] / "voc2012" / "1.0.0"
    prepared_lib.Prepared(spec.VOC2012, path, "val")


def test_nothing_prepared_is_nothing(tmp_path):
  assert prepared_lib.find(tmp_path, "voc2012") is None
