"""What was built is what lies in the tree, byte by byte and pixel by pixel."""

from functools import partial
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import build
from deeplax.data import folder
from deeplax.data import published as published_lib
from deeplax.data.checks import mask_counts
from deeplax.data.prepare import command
from deeplax.data.prepare import write
from tests import conftest
from tests import shared
from tests.data import trees
from tests.data.prepare import builds

VOC = ("train", "val", "trainval")
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
    partial(trees.cityscapes, splits=builds.CITYSCAPES),
    published_lib.cityscapes,
    builds.CITYSCAPES,
  ),
  (
    "cityscapes",
    partial(trees.cityscapes, kind="labelTrainIds"),
    published_lib.cityscapes,
    builds.CITYSCAPES[:3],
  ),
  ("ade20k", trees.ade20k, published_lib.ade20k, ("train", "val")),
]


@pytest.mark.parametrize("name, make, read, splits", TREES)
def test_a_built_data_set_equals_its_tree(
  capsys, tmp_path, name, make, read, splits
):
  root = make(tmp_path / "tree")
  builds.built(capsys, name, root, tmp_path / "out")
  for split in splits:
    found = builds.prepared(name, tmp_path / "out", split)
    builds.assert_equal(found, read(root, split))
  for place in (name, f"{name}/{write.VERSION}"):
    at = build.source(builds.data(name, tmp_path / "out" / place), splits[0])
    assert at[0]["name"] == read(root, splits[0])[0]["name"]


def test_real_voc_pictures_are_stored_as_they_are(capsys, tmp_path):
  tree = shared.path("data/voc_samples")
  builds.built(capsys, "voc2012", tree, tmp_path)
  for split in ("train", "val"):
    found = builds.prepared("voc2012", tmp_path, split)
    expected = published_lib.voc(tree / "VOCdevkit" / "VOC2012", split)
    builds.assert_equal(found, expected)
    stored = mask_counts.by_label(mask_counts.read(found, 0), found.table)
    np.testing.assert_array_equal(
      stored,
      mask_counts.by_label(mask_counts.read(expected, 0), expected.table),
    )


def test_the_same_input_makes_the_same_files(capsys, tmp_path):
  tree = trees.voc(tmp_path / "tree", aug="train_aug.txt")
  for out, threads in (("a", 1), ("b", 5)):
    more = f"--threads={threads}"
    builds.built(capsys, "voc2012", tree, tmp_path / out, more)
  first, second = (
    builds.contents(tmp_path / "a"),
    builds.contents(tmp_path / "b"),
  )
  assert first == second and len(first) > 5


def test_a_split_of_several_shards_keeps_its_order(
  capsys, tmp_path, monkeypatch
):
  tree = trees.folder(tmp_path / "mine", images=7, splits=("train",))
  limit = 3 * (tree / "images/train/00.jpg").stat().st_size
  shards = partial(write.shards, limit=limit)
  monkeypatch.setattr(write, "shards", shards)
  builds.built(capsys, "folder", tree, tmp_path / "out")
  place = tmp_path / "out" / "mine"
  assert len(list(place.rglob("*array_record*"))) == 3
  builds.assert_equal(
    build.source(builds.data("folder", place), "train"),
    folder.source(tree, "train"),
  )


def test_shards_hold_every_image_once():
  for count, total in ((1, 10), (7, 10**9), (20_000, 46 * 10**9)):
    found = write.shards([total // count] * count)
    assert [i for part in found for i in part] == list(range(count))
    assert all(len(part) for part in found)
    largest = max(len(part) for part in found) * (total // count)
    assert largest < 1.1 * write.SHARD_BYTES or len(found) == count


def test_a_broken_mask_ends_the_build_and_leaves_nothing(capsys, tmp_path):
  tree = trees.voc(tmp_path / "tree")
  mask = tree / "SegmentationClass" / f"{trees.VOC_VAL[0]}.png"
  good = mask.read_bytes()
  mask.write_bytes(good[: len(good) // 2])
  out = tmp_path / "out"
  argv = ("voc2012", f"--source={tree}", f"--out={out}", "--allow_partial")
  status, _, told = builds.run(capsys, *argv)
  assert status == 2 and str(mask) in told
  assert not builds.readable(out, "voc2012") and not builds.contents(out)
  mask.write_bytes(good)
  assert builds.run(capsys, *argv)[0] == 0 and builds.readable(out, "voc2012")


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
    [sys.executable, "-c", code],
    cwd=conftest.ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  with job:
    assert job.stderr
    for line in job.stderr:  # train is written, val is not
      if line == "val\n":
        break
    job.send_signal(signal.SIGKILL)
  assert job.returncode == -signal.SIGKILL
  out = tmp_path / "out"
  assert builds.contents(out) and not builds.readable(out, "mine")
  with pytest.raises(errors.InputError):
    build.source(builds.data("folder", out / "mine"), "train")
  builds.built(capsys, "folder", tree, out)
  builds.assert_equal(
    build.source(builds.data("folder", out / "mine"), "val"),
    folder.source(tree, "val"),
  )
  assert [p.name for p in out.iterdir()] == ["mine"]


def test_what_is_there_is_kept_until_overwrite(capsys, tmp_path):
  tree = trees.folder(tmp_path / "mine")
  builds.built(capsys, "folder", tree, tmp_path / "out")
  before = builds.contents(tmp_path / "out")
  argv = ("folder", f"--source={tree}", f"--out={tmp_path / 'out'}")
  status, _, told = builds.run(capsys, *argv)
  assert status == 2 and "exists already" in told and "--overwrite" in told
  broken = tree / "images/train/00.jpg"
  good = broken.read_bytes()
  broken.write_bytes(b"")
  assert builds.run(capsys, *argv, "--overwrite")[0] == 2
  assert (
    builds.contents(tmp_path / "out") == before
  )  # the old one is still there
  broken.write_bytes(good)
  (tree / "images/train/01.jpg").unlink()
  (tree / "labels/train/01.png").unlink()
  assert builds.run(capsys, *argv, "--overwrite")[0] == 0
  place = tmp_path / "out" / "mine"
  assert len(build.source(builds.data("folder", place), "train")) == 2


def test_progress_tells_the_time_left(capsys, tmp_path, monkeypatch):
  lines = []
  clock = iter(range(0, 10_000, 20))
  monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
  monkeypatch.setattr(
    write.clocks,
    "Progress",
    partial(write.clocks.Progress, now=time.perf_counter),
  )
  tree = trees.folder(tmp_path / "mine")
  plan = command.folder_lib.plan(tree)
  write.write(plan, tmp_path / "out", progress=lines.append)
  assert lines and all("ETA" in line for line in lines)
  assert lines[-1].startswith("wrote mine 6/6 images")
  assert capsys.readouterr().out == ""  # nothing of TFDS


@pytest.mark.parametrize(
  ("error", "ends"),
  [(RuntimeError, RuntimeError), (KeyboardInterrupt, SystemExit)],
)
def test_an_exception_in_the_middle_leaves_nothing(
  capsys, tmp_path, monkeypatch, error, ends
):
  tree, out = trees.ade20k(tmp_path), tmp_path / "out"
  example = write._example

  def broken(source, index):
    if source.split == "val":  # train is written
      raise error("in the middle")
    return example(source, index)

  with monkeypatch.context() as patch:
    patch.setattr(write, "_example", broken)
    with pytest.raises(ends):
      command.main(
        ["ade20k", f"--source={tree}", f"--out={out}", "--allow_partial"]
      )
  assert not list(out.iterdir())
  builds.built(capsys, "ade20k", tree, out)
  expected = published_lib.ade20k(tree, "val")
  builds.assert_equal(builds.prepared("ade20k", out, "val"), expected)


def test_photos_turned_by_exif_are_stored_as_they_are(capsys, tmp_path):
  tree = trees.folder(tmp_path / "mine", images=1, splits=("train",))
  exif = Image.Exif()
  exif[274] = 6  # a quarter turn
  trees.image(tree / "images/train/00.jpg", exif=exif)
  upright = trees.labels(0, 1, 2, size=trees.SIZE[::-1])
  trees.mask(tree / "labels/train/00.png", upright)
  builds.built(capsys, "folder", tree, tmp_path / "out")
  found = build.source(
    builds.data("folder", tmp_path / "out" / "mine"), "train"
  )
  builds.assert_equal(found, folder.source(tree, "train"))
  assert found[0]["image"].shape == (*upright.shape, 3)
