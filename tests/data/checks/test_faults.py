"""Faults of masks are recognized and told with what to do."""

import json
import re

import cv2
import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import folder
from deeplax.data import spec
from deeplax.data.checks import check
from deeplax.data.checks import faults
from tests.data import trees


def refused(root, *parts, split="train"):
  """Check that the data set in `root` is refused with all `parts`."""
  with pytest.raises(errors.InputError) as error:
    check.check(folder.source(root, split))
  for part in parts:
    assert part in str(error.value)
  return str(error.value)


def voc(root):
  """An own data set with the classes of VOC."""
  return trees.folder(root, classes=spec.VOC2012.class_names)


def test_values_out_of_range_are_named(tmp_path):
  trees.folder(tmp_path)
  trees.mask(tmp_path / "labels/train/01.png", trees.labels(0, 2, 3, 6))
  text = refused(
    tmp_path,
    "labels/train/01.png has values 3, 6 but num_classes=3 allows 0..2 "
    "(and 255 = ignored)",
    "classes.json",
  )
  assert "masks looked at cannot" not in text  # one file only


def test_undeclared_ignore_label_is_recognized(tmp_path):
  trees.folder(tmp_path)
  trees.replace_masks(tmp_path, trees.labels(0, 1, 2, 11))
  refused(tmp_path, 'write "label_map": {"11": 255}', "3 of the 3 masks")


def test_classes_counted_from_one_are_recognized(tmp_path):
  trees.folder(tmp_path)
  trees.replace_masks(tmp_path, trees.labels(1, 2, 3))
  refused(tmp_path, "counted from 1", '{"1": 0, "2": 1, "3": 2}')


@pytest.mark.parametrize("ignore", [255, None])
def test_black_and_white_masks_are_recognized(tmp_path, ignore):
  trees.folder(tmp_path, classes=("ground", "cat"), ignore_label=ignore)
  trees.replace_masks(tmp_path, trees.labels(0, 255))
  refused(tmp_path, "0 and 255 only", '"label_map": {"255": 1}')


def test_black_and_white_masks_pass_once_mapped(tmp_path):
  trees.folder(
    tmp_path,
    classes=("ground", "cat"),
    ignore_label=None,
    label_map={"255": 1},
  )
  trees.replace_masks(tmp_path, trees.labels(0, 255), "train")
  report = check.check(folder.source(tmp_path, "train"))
  assert [(r.value, r.percent) for r in report.rows] == [
    (0, 50.0),
    (1, 0.0),
    (255, 50.0),
  ]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_of_several_channels_are_refused(tmp_path, mode):
  trees.folder(tmp_path)
  path = tmp_path / "labels/train/00.png"
  labels = Image.fromarray(trees.labels(0, 1, 2))
  if mode != "LA":
    labels.putpalette([v for c in spec.color_map(256) for v in c])
  labels.convert(mode).save(path)
  text = refused(tmp_path, "00.png has", f"(mode {mode})")
  expected = "getchannel(0)" if mode == "LA" else "(0, 128, 0)"
  assert expected in text


def test_palette_read_as_gray_is_recognized(tmp_path):
  voc(tmp_path)
  indices = Image.fromarray(trees.labels(0, 1, 2, 3, 255))
  indices.putpalette([v for c in spec.color_map(256) for v in c])
  for path in (tmp_path / "labels/train").iterdir():
    indices.convert("L").save(path)
  refused(
    tmp_path,
    "has values 38, 75, 113, 220 but num_classes=21 allows 0..20",
    "gray levels of the VOC palette",
    "38 may be class 1 or 16, so it cannot be undone",
    "Use the original palette PNGs",
  )


def test_few_undeclared_classes_are_not_taken_for_a_palette(tmp_path):
  # 14 and 15 are gray levels of the VOC palette as well.
  trees.folder(tmp_path, classes=[f"class {i}" for i in range(14)])
  trees.replace_masks(tmp_path, trees.labels(0, 1, 2, 14, 15))
  text = refused(tmp_path, "has values 14, 15", "Name these classes")
  assert "palette" not in text


def test_size_of_another_image_is_refused(tmp_path):
  trees.folder(tmp_path)
  trees.mask(tmp_path / "labels/train/00.png", trees.labels(0, size=(10, 15)))
  refused(
    tmp_path, "00.png is 10x15 (height x width)", "00.jpg is 20x30", "nearest"
  )


def test_photo_turned_by_exif_is_recognized(tmp_path):
  trees.folder(tmp_path)
  exif = Image.Exif()
  exif[274] = 6
  trees.image(tmp_path / "images/train/00.jpg", exif=exif)
  refused(tmp_path, "00.png is 20x30", "00.jpg is 30x20", "EXIF")
  # A mask that was drawn on the upright photo is right.
  trees.mask(tmp_path / "labels/train/00.png", trees.labels(0, size=(30, 20)))
  source = folder.source(tmp_path, "train")
  check.check(source)
  assert source[0]["image"].shape == (30, 20, 3)


def test_transposed_mask_is_recognized(tmp_path):
  trees.folder(tmp_path)
  trees.mask(tmp_path / "labels/train/00.png", trees.labels(0, size=(30, 20)))
  refused(tmp_path, "rows and columns are exchanged")


def test_jpeg_masks_are_refused(tmp_path):
  trees.folder(tmp_path)
  path = tmp_path / "labels/train/00.png"
  path.unlink()
  Image.fromarray(trees.labels(0, 1)).save(path.with_suffix(".jpg"))
  refused(tmp_path, "00.jpg is a JPEG", "Save masks as PNG")


def test_masks_of_ignored_pixels_only_are_refused(tmp_path):
  trees.folder(tmp_path)
  trees.mask(tmp_path / "labels/train/00.png", trees.labels(255))
  report = check.check(folder.source(tmp_path, "train"))
  assert "1 of 3 masks are wholly ignored" in str(report)
  trees.replace_masks(tmp_path, trees.labels(255))
  refused(tmp_path, "ignored pixels only (value 255)", "nothing to learn")


@pytest.mark.parametrize(
  ("classes", "small", "flag"),
  [
    # Twice the size: few numbers between, but each between its neighbors.
    (21, [0, 0, 15, 15, 15, 255, 255, 255], cv2.INTER_LINEAR),
    (21, [0, 0, 15, 15, 15, 255, 255, 255], cv2.INTER_CUBIC),
    # A soft brush on a black and white mask.
    (2, [0, 0, 0, 0, 255, 255, 255, 255], cv2.INTER_LINEAR),
  ],
)
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_edges_that_a_resize_blended_are_recognized(
  tmp_path, classes, small, flag, factor
):
  names = [f"class {i}" for i in range(classes)]
  trees.folder(tmp_path, classes=names)
  labels = np.tile(np.array(small, np.uint8), (8, 1))
  size = (labels.shape[1] * factor, labels.shape[0] * factor)
  labels = cv2.resize(labels, size, interpolation=flag)
  trees.mask(tmp_path / "labels/train/00.png", labels)
  trees.image(tmp_path / "images/train/00.jpg", size=labels.shape)
  refused(tmp_path, "edges where a smooth resize", "nearest neighbor")


@pytest.mark.parametrize(
  ("quality", "part"),
  [
    (75, "JPEG has blended"),
    # Three numbers only: they might be classes.
    (95, "JPEG or a smooth resize on the way makes such numbers too"),
  ],
)
def test_masks_that_were_jpeg_once_are_recognized(tmp_path, quality, part):
  voc(tmp_path)
  labels = np.zeros((48, 64), np.uint8)
  labels[8:30, 10:40] = 15
  labels[20:44, 36:60] = 255
  _, data = cv2.imencode(".jpg", labels, [cv2.IMWRITE_JPEG_QUALITY, quality])
  spoiled = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
  assert spoiled is not None
  trees.mask(tmp_path / "labels/train/00.png", spoiled)
  trees.image(tmp_path / "images/train/00.jpg", size=labels.shape)
  refused(tmp_path, part)


@pytest.mark.parametrize("kind", ["large", "small"])
def test_classes_that_are_not_named_are_not_taken_for_edges(tmp_path, kind):
  trees.folder(tmp_path, classes=("ground", "cat", "dog"))
  if kind == "large":  # they have an inside
    classes = np.array([[0, 4, 1, 7], [9, 2, 12, 14]])
    labels = np.kron(classes, np.ones((8, 8))).astype(np.uint8)
  else:  # few pixels each, but their numbers follow the named ones
    labels = np.zeros((60, 60), np.uint8)
    for label in range(3, 15):
      labels[5, 4 * label] = label
  trees.mask(tmp_path / "labels/train/00.png", labels)
  trees.image(tmp_path / "images/train/00.jpg", size=labels.shape)
  refused(tmp_path, "Name these classes")


@pytest.mark.parametrize("classes", [3, 5, 21])
@pytest.mark.parametrize("rounded", [np.floor, np.rint])
def test_classes_spread_over_the_grays_are_recognized(
  tmp_path, classes, rounded
):
  trees.folder(tmp_path, classes=[f"class {i}" for i in range(classes)])
  levels = rounded(np.arange(classes) * 255 / (classes - 1)).astype(int)
  trees.replace_masks(tmp_path, trees.labels(*levels.tolist()))
  text = refused(tmp_path, f"{classes} classes spread", '"ignore_label": null')
  # The map that it gives is the fix.
  found = re.search(r'"label_map": (\{.*?\})', text)
  assert found
  trees.folder(
    tmp_path,
    classes=[f"class {i}" for i in range(classes)],
    ignore_label=None,
    label_map=json.loads(found[1]),
  )
  trees.replace_masks(tmp_path, trees.labels(*levels.tolist()))
  label = folder.source(tmp_path, "train")[0]["label"]
  np.testing.assert_array_equal(label[0, :classes], np.arange(classes))


def test_many_numbers_below_zero_are_to_be_mapped(tmp_path):
  trees.folder(tmp_path)
  # A PNG cannot hold them, a TIFF can.
  path = tmp_path / "labels/train/00.png"
  path.unlink()
  values = np.arange(-12, 1).tolist()
  Image.fromarray(trees.labels(*values, dtype=np.int32)).save(
    path.with_suffix(".tif")
  )
  refused(tmp_path, "00.tif has values -12, -11", '"label_map": {"-12": CLASS')


def test_all_faults_are_found_each_with_its_own_cause(tmp_path):
  trees.folder(tmp_path, images=9)
  masks = tmp_path / "labels/train"
  trees.mask(masks / "01.png", trees.labels(0, 7))
  trees.mask(masks / "03.png", trees.labels(0, 700, dtype=np.uint16))
  trees.mask(masks / "04.png", trees.labels(0, size=(10, 12)))
  trees.mask(masks / "05.png", trees.labels(0, size=(11, 13)))
  trees.mask(masks / "06.png", trees.labels(1, 8))
  (masks / "07.png").write_bytes(b"")
  source = folder.source(tmp_path, "train")
  (masks / "08.png").unlink()
  found = check.examine(source)
  groups = {
    tuple(int(f.file[-6:-4]) for f in group): group[0].text
    for group in faults.groups(found.faults)
  }
  assert groups.keys() == {(1, 6), (3,), (4, 5), (7,), (8,)}
  assert "Either 7" in groups[1, 6] and "16 bits" in groups[3,]
  assert "10x12" in groups[4, 5] and "not a readable" in groups[7,]
  assert "cannot be read" in groups[8,]
  details = {fault.file[-6:-4]: fault.detail for fault in found.faults}
  assert details["06"] == "values 8"
  assert details["05"] == "11x13, image 20x30"
  # The table shows the numbers that are no class, too.
  rows = {r.value: (r.name, r.images) for r in found.report.rows}
  assert rows[7] == ("(no class)", 1) and rows[700] == ("(no class)", 1)


def test_a_long_list_of_files_is_cut(tmp_path):
  trees.folder(tmp_path, images=13)
  for path in sorted((tmp_path / "labels/train").iterdir()):
    path.write_bytes(b"")
  text = faults.listing(check.examine(folder.source(tmp_path, "train")).faults)
  assert text.count("not a readable mask") == 1
  assert text.count("labels/train/09.png") == 1  # the tenth
  assert "10.png" not in text and "and 3 more" in text


def test_wide_codes_are_recognized(tmp_path):
  trees.folder(tmp_path)
  trees.replace_masks(tmp_path, trees.labels(0, 1000, 26001, dtype=np.uint16))
  refused(tmp_path, "has values 1000, 26001", "16 bits")


def test_unreadable_files_are_refused(tmp_path):
  trees.folder(tmp_path)
  (tmp_path / "labels/train/01.png").write_bytes(b"not a picture")
  refused(tmp_path, "01.png is not a readable mask")
  trees.mask(tmp_path / "labels/train/01.png", trees.labels(0))
  (tmp_path / "images/train/01.jpg").write_bytes(b"")
  refused(tmp_path, "01.jpg is not a readable picture")


def test_mask_that_vanished_is_refused(tmp_path):
  source = folder.source(trees.folder(tmp_path), "train")
  (tmp_path / "labels/train/01.png").unlink()
  with pytest.raises(errors.InputError, match=r"01\.png cannot be read"):
    check.check(source)
