import functools

import numpy as np
import pytest

from deeplax import check_data
from deeplax import clocks
from deeplax import errors
from deeplax.data import folder
from deeplax.data import published
from deeplax.data import shapes
from deeplax.data.checks import check
from deeplax.metrics import confusion
from tests import shared
from tests.data import trees


def test_good_masks_give_the_share_of_each_class(tmp_path):
  trees.folder(tmp_path, ignore_label=9)
  trees.replace_masks(tmp_path, trees.labels(0, 0, 0, 2, 9))
  report = check.check(folder.source(tmp_path, "train"))
  assert [(r.value, r.name, r.percent, r.images) for r in report.rows] == [
    (0, "ground", 60.0, 3),
    (1, "cat", 0.0, 0),
    (2, "dog", 20.0, 3),
    (9, "(ignored)", 20.0, 3),
  ]
  assert report.checked == report.images == 3
  text = str(report)
  assert "      2  dog              20.00       3" in text
  assert "1 class is in none of these masks: cat. No network" in text
  assert "--full" not in text  # all were looked at
  sample = str(check.check(folder.source(tmp_path, "train"), images=2))
  assert "--full looks at all masks" in sample


def test_number_of_images_is_compared_with_the_published_one():
  root = shared.path("data/voc_samples/VOCdevkit/VOC2012")
  report = check.check(published.voc(root, "val"))
  assert "voc2012 val: 4 images (published: 1449)" in str(report)
  assert "val has 4 images where 1449 are published" in report.warnings[0]


def test_camvid_passes():
  report = check.check(folder.source(shared.path("data/camvid"), "val"))
  assert report.checked == report.images == 101
  percent = {r.name: r.percent for r in report.rows}
  # Measured when the data was collected: Road 29.0, void 1.7 of val.
  assert percent["Road"] == pytest.approx(29.0, abs=0.1)
  assert percent["(ignored)"] == pytest.approx(1.7, abs=0.1)


def test_a_long_check_tells_how_long_it_takes_yet(tmp_path, monkeypatch):
  trees.folder(tmp_path)
  start = functools.partialmethod(clocks.Progress.__init__, every=0.0)
  monkeypatch.setattr(clocks.Progress, "__init__", start)
  said = []
  check.check(folder.source(tmp_path, "train"), progress=said.append)
  assert [line.partition(" images")[0] for line in said] == [
    f"checked train {done}/3" for done in (1, 2, 3)
  ]


def test_shapes_pass():
  report = check.check(shapes.Shapes("val", images=5, size=(65, 65)))
  assert report.checked == 5 and len(report.rows) == 9


def test_masks_are_taken_evenly_from_the_whole_split(tmp_path):
  trees.folder(tmp_path, images=9)
  trees.mask(tmp_path / "labels/train/04.png", trees.labels(77))
  source = folder.source(tmp_path, "train")
  with pytest.raises(errors.InputError, match=r"04\.png"):
    check.check(source, images=2)


def test_constant_answer_is_scored_like_a_prediction(tmp_path):
  trees.folder(tmp_path, classes=("ground", "cat", "dog", "cow"))
  for labels in (trees.labels(0, 0, 0, 1, 255), trees.labels(0, 2)):
    trees.replace_masks(tmp_path, labels)
    report = check.check(folder.source(tmp_path, "train"))
    matrix = confusion.count(labels, np.zeros_like(labels), 4)
    scores = confusion.scores(matrix, ("ground", "cat", "dog", "cow"))
    assert (
      f"always predicting 'ground' scores pixel accuracy "
      f"{scores['pixel_accuracy']:.1%}, mIoU {scores['miou']:.1%}"
    ) in report.notes


def test_masks_of_one_class_only_are_warned_of(tmp_path):
  trees.folder(tmp_path)
  trees.replace_masks(tmp_path, trees.labels(0, 255))
  # Three masks of 0 and 255 are refused; one number is not so clear.
  trees.replace_masks(tmp_path, trees.labels(1))
  (warning,) = check.check(folder.source(tmp_path, "train")).warnings
  assert "every mask is 'cat' only" in warning
  trees.mask(tmp_path / "labels/train/02.png", trees.labels(1, 2))
  assert not check.check(folder.source(tmp_path, "train")).warnings


def test_the_gate_reads_no_more_than_the_head_of_an_image(tmp_path):
  trees.folder(tmp_path)
  path = tmp_path / "images/train/00.jpg"
  path.write_bytes(path.read_bytes()[:-20])
  source = folder.source(tmp_path, "train")
  assert check.check(source).checked == 3
  (fault,) = check.examine(source, decode=True).faults
  assert f"{path} is not a whole picture" in fault.text


def test_command_prints_the_table(tmp_path, capsys):
  trees.folder(tmp_path)
  with pytest.raises(SystemExit) as stop:
    check_data.main([str(tmp_path), "--split=val", "--images=0"])
  assert stop.value.code == 0
  assert "3 masks checked" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["no data", "bad mask", "bad flag"])
def test_command_ends_with_2_and_a_message(tmp_path, capsys, case):
  arguments = [str(tmp_path)]
  if case == "bad mask":
    trees.mask(trees.folder(tmp_path) / "labels/train/00.png", trees.labels(9))
  if case == "bad flag":
    arguments.append("--images=-1")
  with pytest.raises(SystemExit) as stop:
    check_data.main(arguments)
  assert stop.value.code == 2
  expected = {
    "no data": f"no data set in {tmp_path}",
    "bad mask": "deeplax: ",
    "bad flag": "give 0 or more",
  }
  assert expected[case] in capsys.readouterr().err
