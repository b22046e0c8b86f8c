"""What the command refuses, names and writes where."""

import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from deeplax.data import build
from deeplax.data import decoding
from deeplax.data import prepared as prepared_lib
from deeplax.data import spec
from deeplax.data.prepare import command
from deeplax.data.prepare import write
from deeplax.settings import defaults
from tests import conftest
from tests.data import trees
from tests.data.prepare import builds

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
    status, _, told = builds.run(
      capsys, name, f"--source={source}", f"--out={out}", *more
    )
    assert status == 2 and told.startswith("deeplax: ")
    assert not builds.readable(out, name) and not list(out.glob("incomplete*"))
    return told

  return call


@pytest.mark.parametrize("name", builds.MAKE)
def test_a_source_that_is_not_there_is_named(fails, tmp_path, name):
  assert "no folder" in fails(name, tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  told = fails(name, tmp_path / "empty")
  assert str(tmp_path / "empty") in told


@pytest.mark.parametrize("kind", [IMAGE, MASK])
@pytest.mark.parametrize("name", builds.MAKE)
def test_a_lost_file_is_named(fails, tmp_path, name, kind):
  (tmp_path / "tree").mkdir()
  root = builds.MAKE[name](tmp_path / "tree")
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
@pytest.mark.parametrize("name", builds.MAKE)
def test_a_broken_file_is_named(fails, tmp_path, name, kind):
  (tmp_path / "tree").mkdir()
  root = builds.MAKE[name](tmp_path / "tree")
  broken = root / kind[name]
  broken.write_bytes(broken.read_bytes()[:45])
  told = fails(name, root, "--allow_partial", *MORE.get(name, []))
  assert str(broken) in told


@pytest.mark.parametrize("name", ["voc2012", "ade20k", "folder", "cityscapes"])
def test_a_mask_with_a_number_of_no_class_is_named(fails, tmp_path, name):
  (tmp_path / "tree").mkdir()
  root = builds.MAKE[name](tmp_path / "tree")
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
  builds.built(capsys, "voc2012", tree, tmp_path / "out")
  label = build.source(builds.data("voc2012", tmp_path / "out"), "train")[0][
    "label"
  ]
  np.testing.assert_array_equal(label, trees.labels(0, 255))


@pytest.mark.parametrize("name", ["voc2012", "cityscapes", "ade20k"])
def test_a_wrong_count_names_both_numbers(fails, tmp_path, name):
  root = builds.MAKE[name](tmp_path)
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
  status, printed, _ = builds.run(
    capsys, "cityscapes", f"--source={tree}", f"--out={out}"
  )
  assert status == 0 and "train_extra is left out" in printed
  trees.cityscapes(tree, splits=("train_extra",))  # 2 are there, not 9
  told = builds.run(
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
  status, _, told = builds.run(capsys, *argv)
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
  status, _, told = builds.run(capsys, *argv)
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
    assert builds.run(capsys, *argv)[0] == 0
    config = defaults.base().data
    assert isinstance(build.source(config, "train"), prepared_lib.Prepared)
    place = pathlib.Path(variable or tmp_path / "tensorflow_datasets")
    assert builds.readable(place, "voc2012")


def test_help_names_every_data_set_and_the_default(capsys):
  status, out, _ = builds.run(capsys, "--help")
  assert status == 0
  for word in (*command.NAMES, "TFDS_DATA_DIR", "example:", "--allow_partial"):
    assert word in out


def test_the_module_build_is_the_command():
  job = subprocess.run(
    [sys.executable, "-m", "deeplax.data.build", "voc2012", "--source=nowhere"],
    cwd=conftest.ROOT, capture_output=True, text=True,
  )  # fmt: skip
  assert job.returncode == 2 and "nowhere" in job.stderr
  assert "Traceback" not in job.stderr and "Warning" not in job.stderr


def test_a_home_is_understood_in_every_flag(capsys, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  trees.voc(tmp_path)
  trees.sbd(tmp_path)
  sbd = "--sbd=~/benchmark_RELEASE"
  builds.built(capsys, "voc2012", "~/VOCdevkit", "~/out", sbd)
  assert len(builds.prepared("voc2012", tmp_path / "out", "train_aug")) == 3
