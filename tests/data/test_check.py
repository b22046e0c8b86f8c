import numpy as np
from PIL import Image
import pytest

from deeplax import check_data
from deeplax import errors
from deeplax.data import check
from deeplax.data import folder
from deeplax.data import shapes
from deeplax.data import sources
from deeplax.data import spec
from tests import shared
from tests.data import trees


def refused(root, *parts, split="train"):
  """Check that the data set in `root` is refused with all `parts`."""
  with pytest.raises(errors.InputError) as error:
    check.check(folder.source(root, split))
  for part in parts:
    assert part in str(error.value)
  return str(error.value)


def replace_all(root, labels, split="train"):
  for path in (root / "labels" / split).iterdir():
    trees.mask(path, labels)


def voc(root):
  """An own data set with the classes of VOC."""
  return trees.folder(root, classes=spec.VOC2012.class_names)


def test_good_masks_give_the_share_of_each_class(tmp_path):
  trees.folder(tmp_path, ignore_label=9)
  replace_all(tmp_path, trees.labels(0, 0, 0, 2, 9))
  report = check.check(folder.source(tmp_path, "train"))
  assert [(r.value, r.name, r.percent) for r in report.rows] == [
    (0, "ground", 60.0),
    (1, "cat", 0.0),
    (2, "dog", 20.0),
    (9, "(ignored)", 20.0),
  ]
  assert report.checked == report.images == 3
  text = str(report)
  assert "      2  dog              20.00" in text
  assert "1 classes are in none of these masks: cat" in text


def test_number_of_images_is_compared_with_the_published_one():
  root = shared.path("data/voc_samples/VOCdevkit/VOC2012")
  report = check.check(sources.voc(root, "val"))
  assert "voc2012 val: 4 images (published: 1449)" in str(report)


def test_camvid_passes():
  report = check.check(folder.source(shared.path("data/camvid"), "val"))
  assert report.checked == report.images == 101
  percent = {r.name: r.percent for r in report.rows}
  # Measured when the data was collected: Road 29.0, void 1.7 of val.
  assert percent["Road"] == pytest.approx(29.0, abs=0.1)
  assert percent["(ignored)"] == pytest.approx(1.7, abs=0.1)


def test_shapes_pass():
  report = check.check(shapes.Shapes("val", images=5, size=(65, 65)))
  assert report.checked == 5 and len(report.rows) == 9


def test_masks_are_taken_evenly_from_the_whole_split(tmp_path):
  trees.folder(tmp_path, images=9)
  trees.mask(tmp_path / "labels/train/08.png", trees.labels(77))
  source = folder.source(tmp_path, "train")
  with pytest.raises(errors.InputError, match=r"08\.png"):
    check.check(source, images=2)


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


def test_undeclared_ignore_label_is_recognised(tmp_path):
  trees.folder(tmp_path)
  replace_all(tmp_path, trees.labels(0, 1, 2, 11))
  refused(tmp_path, 'set "ignore_label": 11', "3 of the 3 masks")


def test_classes_counted_from_one_are_recognised(tmp_path):
  trees.folder(tmp_path)
  replace_all(tmp_path, trees.labels(1, 2, 3))
  refused(tmp_path, "counted from 1", "subtract 1")


@pytest.mark.parametrize("ignore", [255, None])
def test_black_and_white_masks_are_recognised(tmp_path, ignore):
  trees.folder(tmp_path, classes=("ground", "cat"), ignore_label=ignore)
  replace_all(tmp_path, trees.labels(0, 255))
  refused(tmp_path, "0 and 255 only", '"label_map": {"255": 1}')


def test_black_and_white_masks_pass_once_mapped(tmp_path):
  trees.folder(
    tmp_path,
    classes=("ground", "cat"),
    ignore_label=None,
    label_map={"255": 1},
  )
  replace_all(tmp_path, trees.labels(0, 255), "train")
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


def test_palette_read_as_grey_is_recognised(tmp_path):
  voc(tmp_path)
  indices = Image.fromarray(trees.labels(0, 1, 2, 3, 255))
  indices.putpalette([v for c in spec.color_map(256) for v in c])
  for path in (tmp_path / "labels/train").iterdir():
    indices.convert("L").save(path)
  refused(
    tmp_path,
    "has values 38, 75, 113, 220 but num_classes=21 allows 0..20",
    "grey levels of the VOC palette",
    "38 may be class 1 or 16, so it cannot be undone",
    "Use the original palette PNGs",
  )


def test_few_undeclared_classes_are_not_taken_for_a_palette(tmp_path):
  # 14 and 15 are grey levels of the VOC palette as well.
  trees.folder(tmp_path, classes=[f"class {i}" for i in range(14)])
  replace_all(tmp_path, trees.labels(0, 1, 2, 14, 15))
  text = refused(tmp_path, "has values 14, 15", "Name these classes")
  assert "palette" not in text


def test_size_of_another_image_is_refused(tmp_path):
  trees.folder(tmp_path)
  trees.mask(tmp_path / "labels/train/00.png", trees.labels(0, size=(10, 15)))
  refused(
    tmp_path, "00.png is 10x15 (height x width)", "00.jpg is 20x30", "nearest"
  )


def test_photo_turned_by_exif_is_recognised(tmp_path):
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


def test_transposed_mask_is_recognised(tmp_path):
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
  replace_all(tmp_path, trees.labels(255))
  refused(tmp_path, "ignored pixels only (value 255)", "nothing to learn")


def test_wide_codes_are_recognised(tmp_path):
  trees.folder(tmp_path)
  replace_all(tmp_path, trees.labels(0, 1000, 26001, dtype=np.uint16))
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
