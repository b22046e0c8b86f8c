"""What was built is what lies in the tree, byte by byte and pixel by pixel."""

import dataclasses
from functools import partial
import json
import pathlib
import signal
import subprocess
import sys
import time

import ml_collections
import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import build
from deeplax.data import decoding
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import prepared as prepared_lib
from deeplax.data import published as published_lib
from deeplax.data import spec
from deeplax.data.checks import mask_counts
from deeplax.data.prepare import coco
from deeplax.data.prepare import command
from deeplax.data.prepare import voc
from deeplax.data.prepare import write
from deeplax.settings import defaults
from tests import shared
from tests.data import trees

ROOT = pathlib.Path(__file__).resolve().parents[3]


def run(capsys, *argv) -> tuple[int, str, str]:
  """Run the command here; return its status and what it printed."""
  with pytest.raises(SystemExit) as end:
    command.main([str(word) for word in argv])
  printed = capsys.readouterr()
  return int(end.value.code or 0), printed.out, printed.err


def built(capsys, name, tree, out, *more) -> None:
  status, _, told = run(
    capsys, name, f"--source={tree}", f"--out={out}", "--allow_partial", *more
  )
  assert status == 0, told


def data(name: str, root: pathlib.Path) -> ml_collections.ConfigDict:
  config = defaults.base().data
  config.name, config.root = name, str(root)
  return config


def prepared(name: str, root: pathlib.Path, split: str) -> files.Decoded:
  """Read what was built, as a run does."""
  found = build.source(data(name, root), split)
  assert isinstance(found, prepared_lib.Prepared)
  return found


def assert_equal(found, expected) -> None:
  """Compare names, bytes of pictures, pixels of pictures and labels."""
  assert len(found) == len(expected) > 0
  for i in range(len(expected)):
    assert found.encoded(i).image == expected.encoded(i).image
    assert found[i]["name"] == expected[i]["name"]
    for key in ("image", "label"):
      np.testing.assert_array_equal(found[i][key], expected[i][key])


VOC = ("train", "val", "trainval")
CITYSCAPES = ("train", "val", "test", "train_extra")
TREES = [
  ("voc2012", trees.voc, published_lib.voc, VOC),
  (
    "voc2012",
    partial(trees.voc, aug="trainaug.txt"),
    published_lib.voc,
    (*VOC, "train_aug"),
  ),
  (
    "cityscapes",
    partial(trees.cityscapes, splits=CITYSCAPES),
    published_lib.cityscapes,
    CITYSCAPES,
  ),
  (
    "cityscapes",
    partial(trees.cityscapes, kind="labelTrainIds"),
    published_lib.cityscapes,
    CITYSCAPES[:3],
  ),
  ("ade20k", trees.ade20k, published_lib.ade20k, ("train", "val")),
]


@pytest.mark.parametrize("name, make, read, splits", TREES)
def test_a_built_data_set_equals_its_tree(
  capsys, tmp_path, name, make, read, splits
):
  root = make(tmp_path / "tree")
  built(capsys, name, root, tmp_path / "out")
  for split in splits:
    found = prepared(name, tmp_path / "out", split)
    assert_equal(found, read(root, split))
  for place in (name, f"{name}/{write.VERSION}"):
    at = build.source(data(name, tmp_path / "out" / place), splits[0])
    assert at[0]["name"] == read(root, splits[0])[0]["name"]


def test_real_voc_pictures_are_stored_as_they_are(capsys, tmp_path):
  tree = shared.path("data/voc_samples")
  built(capsys, "voc2012", tree, tmp_path)
  for split in ("train", "val"):
    found = prepared("voc2012", tmp_path, split)
    expected = published_lib.voc(tree / "VOCdevkit" / "VOC2012", split)
    assert_equal(found, expected)
    stored = mask_counts.by_label(mask_counts.read(found, 0), found.table)
    np.testing.assert_array_equal(
      stored,
      mask_counts.by_label(mask_counts.read(expected, 0), expected.table),
    )


def test_train_aug_is_voc_s_train_and_what_sbd_adds(capsys, tmp_path):
  tree, sbd = trees.voc(tmp_path), trees.sbd(tmp_path)
  status, out, _ = run(
    capsys,
    "voc2012",
    f"--source={tmp_path}",
    f"--sbd={sbd}",
    f"--out={tmp_path / 'out'}",
    "--allow_partial",
  )
  assert status == 0
  assert "2 of VOC's train and 1 of SBD make 3 (SBD has 3 masks" in out
  found = prepared("voc2012", tmp_path / "out", "train_aug")
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
    (tree / "JPEGImages" / f"{name}.jpg").touch()
  for name in ids["train"]:
    (tree / "SegmentationClass" / f"{name}.png").touch()
  # SBD has masks of some of VOC's train, and of some of its val.
  for name in ids["train_aug"][::2] + ids["train_aug"][1::2] + ids["val"][:900]:
    (cls / f"{name}.mat").touch()
  source, note = voc.augmented(tree, sbd)
  assert {p.name for p in source.pairs} == set(ids["train_aug"])
  assert "1464 of VOC's train and 9118 of SBD make 10582" in note
  plan = write.Plan("voc2012", spec.VOC2012, {"train_aug": source})
  counts = [s for s in spec.VOC2012.splits if s[0] == "train_aug"]
  only = dataclasses.replace(spec.VOC2012, splits=tuple(counts))
  write.check_counts(dataclasses.replace(plan, spec=only), tmp_path)


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
  status, out, _ = run(
    capsys, "folder", f"--source={tree}", f"--out={tmp_path / 'out'}"
  )
  assert status == 0 and "test is left out" in out
  place = tmp_path / "out" / "my_photos_2"
  assert f"--config.data.root={place}" in out
  for root in (place, place / write.VERSION):
    config = data("folder", root)
    assert build.spec(config) == expected["train"].spec
    for split, source in expected.items():
      assert_equal(build.source(config, split), source)
  assert_equal(build.at(place, "val"), expected["val"])


def test_coco_s_outlines_become_voc_s_classes(capsys, tmp_path):
  tree = trees.coco(tmp_path / "coco")
  built(capsys, "coco", tree, tmp_path / "out", "--min_pixels=100")
  found = build.source(data("coco", tmp_path / "out"), "train")
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
  y, x = np.mgrid[0:40, 0:60] + 0.5  # centres
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


def test_compressed_run_lengths_are_refused():
  with pytest.raises(errors.InputError, match="file.*cannot be drawn"):
    coco.draw([(1, {"counts": "0d05", "size": [4, 4]})], (4, 4), "file")


def test_a_run_sees_the_same_batches_and_resumes_in_them(capsys, tmp_path):
  tree = trees.folder(tmp_path / "mine", images=5)
  built(capsys, "folder", tree, tmp_path / "out")
  config = defaults.debug(defaults.base())
  place = tmp_path / "out" / "mine"
  streams = [
    build.train_loader(
      config,
      build.source(data("folder", root), "train"),
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


def contents(root: pathlib.Path) -> dict[str, bytes]:
  return {
    p.relative_to(root).as_posix(): p.read_bytes()
    for p in root.rglob("*")
    if p.is_file()
  }


def test_the_same_input_makes_the_same_files(capsys, tmp_path):
  tree = trees.voc(tmp_path / "tree", aug="train_aug.txt")
  for out, threads in (("a", 1), ("b", 5)):
    more = f"--threads={threads}"
    built(capsys, "voc2012", tree, tmp_path / out, more)
  first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
  assert first == second and len(first) > 5


def test_a_split_of_several_shards_keeps_its_order(
  capsys, tmp_path, monkeypatch
):
  tree = trees.folder(tmp_path / "mine", images=7, splits=("train",))
  limit = 3 * (tree / "images/train/00.jpg").stat().st_size
  shards = partial(write.shards, limit=limit)
  monkeypatch.setattr(write, "shards", shards)
  built(capsys, "folder", tree, tmp_path / "out")
  place = tmp_path / "out" / "mine"
  assert len(list(place.rglob("*array_record*"))) == 3
  assert_equal(
    build.source(data("folder", place), "train"), folder.source(tree, "train")
  )


def test_shards_hold_every_image_once():
  for count, total in ((1, 10), (7, 10**9), (20_000, 46 * 10**9)):
    found = write.shards([total // count] * count)
    assert [i for part in found for i in part] == list(range(count))
    assert all(len(part) for part in found)
    largest = max(len(part) for part in found) * (total // count)
    assert largest < 1.1 * write.SHARD_BYTES or len(found) == count


def readable(out: pathlib.Path, name: str) -> bool:
  return prepared_lib.newest(out / name) is not None


def test_a_broken_mask_ends_the_build_and_leaves_nothing(capsys, tmp_path):
  tree = trees.voc(tmp_path / "tree")
  mask = tree / "SegmentationClass" / f"{trees.VOC_VAL[0]}.png"
  good = mask.read_bytes()
  mask.write_bytes(good[: len(good) // 2])
  out = tmp_path / "out"
  argv = ("voc2012", f"--source={tree}", f"--out={out}", "--allow_partial")
  status, _, told = run(capsys, *argv)
  assert status == 2 and str(mask) in told
  assert not readable(out, "voc2012") and not contents(out)
  mask.write_bytes(good)
  assert run(capsys, *argv)[0] == 0 and readable(out, "voc2012")


def test_a_killed_build_leaves_nothing_that_looks_whole(capsys, tmp_path):
  tree = trees.folder(tmp_path / "mine")
  code = (
    "import sys, time\n"
    "from deeplax.data.prepare import command, write as prepare\n"
    "example = prepare._example\n"
    "def slow(source, index):\n"
    "  if source.split == 'val':\n"
    "    print('val', flush=True, file=sys.stderr)\n"
    "    time.sleep(60)\n"
    "  return example(source, index)\n"
    "prepare._example = slow\n"
    f"command.main(['folder', '--source={tree}', '--out={tmp_path}/out'])\n"
  )
  job = subprocess.Popen(
    [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  with job:
    assert job.stderr
    for line in job.stderr:  # train is written, val is not
      if line == "val\n":
        break
    job.send_signal(signal.SIGKILL)
  assert job.returncode == -signal.SIGKILL
  out = tmp_path / "out"
  assert contents(out) and not readable(out, "mine")
  with pytest.raises(errors.InputError):
    build.source(data("folder", out / "mine"), "train")
  built(capsys, "folder", tree, out)
  assert_equal(
    build.source(data("folder", out / "mine"), "val"),
    folder.source(tree, "val"),
  )
  assert [p.name for p in out.iterdir()] == ["mine"]


def test_what_is_there_is_kept_until_overwrite(capsys, tmp_path):
  tree = trees.folder(tmp_path / "mine")
  built(capsys, "folder", tree, tmp_path / "out")
  before = contents(tmp_path / "out")
  argv = ("folder", f"--source={tree}", f"--out={tmp_path / 'out'}")
  status, _, told = run(capsys, *argv)
  assert status == 2 and "is there already" in told and "--overwrite" in told
  broken = tree / "images/train/00.jpg"
  good = broken.read_bytes()
  broken.write_bytes(b"")
  assert run(capsys, *argv, "--overwrite")[0] == 2
  assert contents(tmp_path / "out") == before  # the old one is still there
  broken.write_bytes(good)
  (tree / "images/train/01.jpg").unlink()
  (tree / "labels/train/01.png").unlink()
  assert run(capsys, *argv, "--overwrite")[0] == 0
  place = tmp_path / "out" / "mine"
  assert len(build.source(data("folder", place), "train")) == 2


MAKE = {
  "voc2012": lambda root: trees.voc(root),
  "cityscapes": lambda root: trees.cityscapes(root),
  "ade20k": lambda root: trees.ade20k(root),
  "folder": lambda root: trees.folder(root / "mine"),
  "coco": lambda root: trees.coco(root),
}
IMAGE = {
  "voc2012": "JPEGImages/2007_000039.jpg",
  "cityscapes": "leftImg8bit/val/aachen/aachen_000000_000019_leftImg8bit.png",
  "ade20k": "images/training/ADE_training_00000001.jpg",
  "folder": "images/train/01.jpg",
  "coco": "train2017/000000000007.jpg",
}
MASK = {
  "voc2012": "SegmentationClass/2007_000039.png",
  "cityscapes": "gtFine/val/aachen/aachen_000000_000019_gtFine_labelIds.png",
  "ade20k": "annotations/training/ADE_training_00000001.png",
  "folder": "labels/train/01.png",
  "coco": "annotations/instances_train2017.json",
}
MORE = {"coco": ["--min_pixels=100"]}


@pytest.fixture
def fails(capsys, tmp_path):
  """Build what must fail, see that nothing is left, return the message."""

  def call(name, source, *more) -> str:
    out = tmp_path / "out"
    status, _, told = run(
      capsys, name, f"--source={source}", f"--out={out}", *more
    )
    assert status == 2 and told.startswith("deeplax: ")
    assert not readable(out, name) and not list(out.glob("incomplete*"))
    return told

  return call


@pytest.mark.parametrize("name", MAKE)
def test_a_source_that_is_not_there_is_named(fails, tmp_path, name):
  assert "no folder" in fails(name, tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  told = fails(name, tmp_path / "empty")
  assert str(tmp_path / "empty") in told


@pytest.mark.parametrize("kind", [IMAGE, MASK])
@pytest.mark.parametrize("name", MAKE)
def test_a_lost_file_is_named(fails, tmp_path, name, kind):
  (tmp_path / "tree").mkdir()
  root = MAKE[name](tmp_path / "tree")
  lost = root / kind[name]
  images = IMAGE[name].rsplit("/", 1)[0]
  lost.unlink()
  if name in ("ade20k", "cityscapes") and kind is IMAGE:
    # Images are what the folder has: one less is a wrong count.
    told = fails(name, root)
    published = dict(spec.SPECS[name].splits)
    assert any(str(n) in told for n in published.values())
    return
  told = fails(name, root, "--allow_partial", *MORE.get(name, []))
  assert lost.stem in told and (kind is MASK or images in told)


@pytest.mark.parametrize("kind", [IMAGE, MASK])
@pytest.mark.parametrize("name", MAKE)
def test_a_broken_file_is_named(fails, tmp_path, name, kind):
  (tmp_path / "tree").mkdir()
  root = MAKE[name](tmp_path / "tree")
  broken = root / kind[name]
  broken.write_bytes(broken.read_bytes()[:45])
  told = fails(name, root, "--allow_partial", *MORE.get(name, []))
  assert str(broken) in told


@pytest.mark.parametrize("name", ["voc2012", "ade20k", "folder", "cityscapes"])
def test_a_mask_with_a_number_of_no_class_is_named(fails, tmp_path, name):
  (tmp_path / "tree").mkdir()
  root = MAKE[name](tmp_path / "tree")
  mask = root / MASK[name]
  raw = decoding.decode_label(mask.read_bytes(), "")
  trees.mask(mask, np.where(raw == raw[0, 0], np.uint8(177), raw))
  told = fails(name, root, "--allow_partial")
  assert str(mask) in told and "177" in told


def test_a_black_and_white_mask_of_a_legal_kind_is_built(capsys, tmp_path):
  # 0 and 255 are background and border: fishy in all masks, fine in one.
  tree = trees.voc(tmp_path / "tree")
  mask = tree / "SegmentationClass" / f"{trees.VOC_TRAIN[0]}.png"
  trees.mask(mask, trees.labels(0, 255))
  built(capsys, "voc2012", tree, tmp_path / "out")
  label = build.source(data("voc2012", tmp_path / "out"), "train")[0]["label"]
  np.testing.assert_array_equal(label, trees.labels(0, 255))


@pytest.mark.parametrize("name", ["voc2012", "cityscapes", "ade20k"])
def test_a_wrong_count_names_both_numbers(fails, tmp_path, name):
  root = MAKE[name](tmp_path)
  told = fails(name, root)
  split, published = spec.SPECS[name].splits[0]
  assert f"{split} of {name} has 2 images" in told
  assert str(published) in told and "--allow_partial" in told


def test_a_missing_split_is_a_wrong_count(capsys, fails, tmp_path, monkeypatch):
  published = (("train", 2), ("val", 2), ("test", 2), ("train_extra", 9))
  small = dataclasses.replace(spec.CITYSCAPES, splits=published)
  monkeypatch.setattr(spec, "CITYSCAPES", small)
  tree = trees.cityscapes(tmp_path / "tree", splits=("train", "val"))
  assert "test of cityscapes has 0 images" in fails("cityscapes", tree)
  trees.cityscapes(tree)
  out = tmp_path / "out"
  status, printed, _ = run(
    capsys, "cityscapes", f"--source={tree}", f"--out={out}"
  )
  assert status == 0 and "train_extra is left out" in printed
  trees.cityscapes(tree, splits=("train_extra",))  # 2 are there, not 9
  told = run(
    capsys, "cityscapes", f"--source={tree}", f"--out={out}", "--overwrite"
  )
  assert told[0] == 2 and "train_extra of cityscapes has 2" in told[2]


def test_sbd_that_is_not_sbd_or_damaged_is_named(fails, tmp_path):
  tree, sbd = trees.voc(tmp_path), trees.sbd(tmp_path)
  told = fails("voc2012", tree, f"--sbd={tmp_path / 'nowhere'}")
  assert "benchmark_RELEASE" in told and "nowhere" in told
  mask = sbd / "dataset" / "cls" / f"{trees.SBD_ONLY}.mat"
  for content in (b"", b"x" * 300, mask.read_bytes()[:250]):
    mask.write_bytes(content)
    told = fails("voc2012", tree, f"--sbd={sbd}", "--allow_partial")
    assert str(mask) in told and "benchmark.tgz" in told


@pytest.mark.parametrize(
  "change, words",
  [
    ({"rename": "voc2012"}, "other classes"),
    ({"split": "a b"}, "'a b'"),
    ({"split": "all"}, "'all'"),
  ],
)
def test_a_folder_that_cannot_keep_its_name_says_so(
  fails, tmp_path, change, words
):
  root = tmp_path / change.get("rename", "mine")
  trees.folder(root, splits=(change.get("split", "train"),))
  told = fails("folder", root)
  assert words in told


def test_a_full_disk_is_told_beforehand(fails, tmp_path, monkeypatch):
  free = type("Usage", (), {"free": 1000})
  monkeypatch.setattr(write.shutil, "disk_usage", lambda path: free)
  assert "GB free" in fails("folder", trees.folder(tmp_path / "mine"))


def test_a_place_that_cannot_be_written_is_named(capsys, tmp_path):
  (tmp_path / "file").write_text("")
  tree = trees.folder(tmp_path / "mine")
  argv = ("folder", f"--source={tree}", f"--out={tmp_path / 'file'}")
  status, _, told = run(capsys, *argv)
  assert status == 2 and "cannot write" in told and "--out" in told


@pytest.mark.parametrize(
  "argv, words",
  [
    (["pets"], "invalid choice"),
    (["voc2012"], "--source"),
    (["ade20k", "--source=x", "--sbd=y"], "--sbd is for voc2012"),
    (["ade20k", "--source=x", "--min_pixels=9"], "--min_pixels is for coco"),
    (["ade20k", "--source=x", "--threads=0"], "--threads"),
  ],
)
def test_wrong_flags_are_refused(capsys, argv, words):
  status, _, told = run(capsys, *argv)
  assert status == 2 and words in told


def test_the_default_place_is_where_configurations_look(
  capsys, tmp_path, monkeypatch
):
  monkeypatch.delenv("DEEPLAX_DATA", raising=False)
  monkeypatch.setenv("HOME", str(tmp_path))
  tree = trees.voc(tmp_path / "tree")
  argv = ("voc2012", f"--source={tree}", "--allow_partial")
  for variable in ("", str(tmp_path / "tfds")):
    monkeypatch.setenv("TFDS_DATA_DIR", variable)
    assert run(capsys, *argv)[0] == 0
    config = defaults.base().data
    assert isinstance(build.source(config, "train"), prepared_lib.Prepared)
    place = pathlib.Path(variable or tmp_path / "tensorflow_datasets")
    assert readable(place, "voc2012")


def test_help_names_every_data_set_and_the_default(capsys):
  status, out, _ = run(capsys, "--help")
  assert status == 0
  for word in (*command.NAMES, "TFDS_DATA_DIR", "example:", "--allow_partial"):
    assert word in out


def test_the_module_build_is_the_command():
  job = subprocess.run(
    [sys.executable, "-m", "deeplax.data.build", "voc2012", "--source=nowhere"],
    cwd=ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert job.returncode == 2 and "nowhere" in job.stderr
  assert "Traceback" not in job.stderr and "Warning" not in job.stderr


def test_progress_tells_the_time_left(capsys, tmp_path, monkeypatch):
  lines = []
  clock = iter(range(0, 10_000, 20))
  monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
  monkeypatch.setattr(
    write.progress_lib,
    "Progress",
    partial(write.progress_lib.Progress, now=time.perf_counter),
  )
  tree = trees.folder(tmp_path / "mine")
  plan = command.folder_lib.plan(tree)
  write.write(plan, tmp_path / "out", say=lines.append)
  assert lines and all("ETA" in line for line in lines)
  assert lines[-1].startswith("wrote mine 6/6 images")
  assert capsys.readouterr().out == ""  # nothing of TFDS


def test_several_splits_are_read_as_one(capsys, tmp_path):
  tree = trees.cityscapes(tmp_path / "tree", splits=CITYSCAPES)
  built(capsys, "cityscapes", tree, tmp_path / "out")
  for root in (tree, tmp_path / "out"):
    config = data("cityscapes", root)
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
  found = build.source(data("voc2012", tmp_path), "train_aug+val")
  names = [found[i]["name"] for i in range(len(found))]
  assert names == [trees.VOC_TRAIN[0], trees.SBD_ONLY, *trees.VOC_VAL]


def test_own_splits_are_joined_too(tmp_path):
  config = data("folder", trees.folder(tmp_path))
  assert len(build.source(config, "train+val")) == 6


@pytest.mark.parametrize("split", ["train+train", "train+", "+"])
def test_a_split_is_joined_with_another_only(tmp_path, split):
  trees.voc(tmp_path)
  with pytest.raises(errors.InputError, match="different names"):
    build.source(data("voc2012", tmp_path), split)


def test_masks_of_two_kinds_are_not_joined(tmp_path):
  trees.cityscapes(tmp_path, kind="labelTrainIds", splits=("train",))
  trees.cityscapes(tmp_path, splits=("train_extra",))
  with pytest.raises(errors.InputError, match=r"deeplax\.data\.build city"):
    build.source(data("cityscapes", tmp_path), "train+train_extra")


def test_what_was_prepared_is_taken_before_the_tree(capsys, tmp_path):
  tree = trees.voc(tmp_path)
  built(capsys, "voc2012", tree, tmp_path)
  found = build.source(data("voc2012", tmp_path), "train")
  assert isinstance(found, prepared_lib.Prepared)


def test_prepared_by_others_has_no_classes_to_read(capsys, tmp_path):
  built(capsys, "folder", trees.folder(tmp_path / "mine"), tmp_path / "out")
  path = tmp_path / "out" / "mine" / write.VERSION / "metadata.json"
  for text in ("{", "[]", json.dumps({"name": "mine"})):
    path.write_text(text)
    with pytest.raises(errors.InputError, match="names no classes"):
      build.spec(data("folder", tmp_path / "out" / "mine"))


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
  subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_middle_leaves_nothing(
  capsys, tmp_path, monkeypatch, error
):
  tree, out = trees.ade20k(tmp_path), tmp_path / "out"
  example = write._example

  def broken(source, index):
    if source.split == "val":  # train is written
      raise error("in the middle")
    return example(source, index)

  with monkeypatch.context() as patch:
    patch.setattr(write, "_example", broken)
    with pytest.raises(error, match="in the middle"):
      built(capsys, "ade20k", tree, out)
  assert not list(out.iterdir())
  built(capsys, "ade20k", tree, out)
  expected = published_lib.ade20k(tree, "val")
  assert_equal(prepared("ade20k", out, "val"), expected)


def test_photos_turned_by_exif_are_stored_as_they_are(capsys, tmp_path):
  tree = trees.folder(tmp_path / "mine", images=1, splits=("train",))
  exif = Image.Exif()
  exif[274] = 6  # a quarter turn
  trees.image(tree / "images/train/00.jpg", exif=exif)
  upright = trees.labels(0, 1, 2, size=trees.SIZE[::-1])
  trees.mask(tree / "labels/train/00.png", upright)
  built(capsys, "folder", tree, tmp_path / "out")
  found = build.source(data("folder", tmp_path / "out" / "mine"), "train")
  assert_equal(found, folder.source(tree, "train"))
  assert found[0]["image"].shape == (*upright.shape, 3)


def test_a_home_is_understood_in_every_flag(capsys, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  trees.voc(tmp_path)
  trees.sbd(tmp_path)
  sbd = "--sbd=~/benchmark_RELEASE"
  built(capsys, "voc2012", "~/VOCdevkit", "~/out", sbd)
  assert len(prepared("voc2012", tmp_path / "out", "train_aug")) == 3
