"""train_aug: VOC's own masks and those of SBD."""

import dataclasses

import numpy as np

from deeplax.data import published as published_lib
from deeplax.data import spec
from deeplax.data.checks import mask_counts
from deeplax.data.prepare import voc
from deeplax.data.prepare import write
from tests import shared
from tests.data import trees
from tests.data.prepare import builds


def test_train_aug_is_voc_s_train_and_what_sbd_adds(capsys, tmp_path):
  tree, sbd = trees.voc(tmp_path), trees.sbd(tmp_path)
  status, out, _ = builds.run(
    capsys,
    "voc2012",
    f"--source={tmp_path}",
    f"--sbd={sbd}",
    f"--out={tmp_path / 'out'}",
    "--allow_partial",
  )
  assert status == 0
  assert "2 of VOC's train and 1 of SBD make 3 (SBD has 3 masks" in out
  found = builds.prepared("voc2012", tmp_path / "out", "train_aug")
  examples = {e["name"]: e for e in (found[i] for i in range(len(found)))}
  assert list(examples) == [*trees.VOC_TRAIN, trees.SBD_ONLY]
  own = published_lib.voc(tree, "train")
  for i, name in enumerate(trees.VOC_TRAIN):  # not SBD's of the same name
    np.testing.assert_array_equal(examples[name]["label"], own[i]["label"])
  extra = examples[trees.SBD_ONLY]
  expected = trees.labels(0, 7, 20, size=(23, 30))
  np.testing.assert_array_equal(extra["label"], expected)
  pixels = (tree / "JPEGImages" / f"{trees.SBD_ONLY}.jpg").read_bytes()
  assert found.encoded(2).image == pixels


def test_pictures_that_voc_lacks_come_from_sbd(tmp_path):
  tree, sbd = trees.voc(tmp_path), trees.sbd(tmp_path)
  (tree / "JPEGImages" / f"{trees.SBD_ONLY}.jpg").unlink()
  for place in (sbd, sbd / "dataset", tmp_path):
    source, _ = voc.augmented(tree, place)
    assert source.pairs[2].image.parent == sbd / "dataset" / "img"
    assert mask_counts.read(source, 2).values.tolist() == [0, 7, 20]


def test_the_published_lists_add_up_to_10582(tmp_path):
  ids = {
    name: shared.path(f"data/lists/voc_{name}_ids.txt").read_text().split()
    for name in ("train", "val", "train_aug")
  }
  tree, sbd = tmp_path / "VOC2012", tmp_path / "sbd"
  lists, cls = tree / "ImageSets" / "Segmentation", sbd / "dataset" / "cls"
  for path in (lists, cls, tree / "JPEGImages", tree / "SegmentationClass"):
    path.mkdir(parents=True)
  for split in ("train", "val"):
    (lists / f"{split}.txt").write_text("\n".join(ids[split]))
  for name in ids["train_aug"]:
    open(f"{tree}/JPEGImages/{name}.jpg", "x").close()
  for name in ids["train"]:
    open(f"{tree}/SegmentationClass/{name}.png", "x").close()
  # SBD has masks of some of VOC's train, and of some of its val.
  for name in ids["train_aug"][::2] + ids["train_aug"][1::2] + ids["val"][:900]:
    open(f"{cls}/{name}.mat", "x").close()
  source, note = voc.augmented(tree, sbd)
  assert {p.name for p in source.pairs} == set(ids["train_aug"])
  assert "1464 of VOC's train and 9118 of SBD make 10582" in note
  plan = write.Plan("voc2012", spec.VOC2012, {"train_aug": source})
  counts = [s for s in spec.VOC2012.splits if s[0] == "train_aug"]
  only = dataclasses.replace(spec.VOC2012, splits=tuple(counts))
  write.check_counts(dataclasses.replace(plan, spec=only), tmp_path)
