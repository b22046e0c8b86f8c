"""Masks drawn on photos as stored, though EXIF turns them, are found."""

import io
import re

import numpy as np
from PIL import Image
from PIL import ImageOps
import PIL.Image
import pytest

from deeplax.data import decoding
from deeplax.data import folder
from deeplax.data.checks import check
from deeplax.data.checks import turned
from deeplax.data.formats import tiff
from tests.data import trees

SQUARE, WIDE = (60, 60), (48, 64)


def scene(seed: int, size) -> tuple[np.ndarray, np.ndarray]:
  """Return a picture of three classes and its mask, none of it symmetric."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[0 : size[0], 0 : size[1]]
  label = ((y * 0.7 + x * 0.2) > 15).astype(np.uint8)
  top, left = rng.integers(3, 25, 2)
  label[top : top + 12, left : left + 20] = 2
  colors = np.array([[60, 60, 70], [90, 140, 60], [200, 80, 60]])
  picture = colors[label] + rng.integers(-20, 20, (*size, 3))
  return np.clip(picture, 0, 255).astype(np.uint8), label


def write(root, orientation, *, size=WIDE, upright=False, images=4, plain=0):
  """Write photos that EXIF turns, and masks drawn one way or the other."""
  trees.folder(root, images=0)
  for i in range(images + plain):
    picture, label = scene(i, size)
    tag = orientation if i < images else 1
    exif = Image.Exif()
    exif[274] = tag
    path = root / f"images/train/{i}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, exif=exif, quality=90)
    if upright:
      label = np.ascontiguousarray(tiff.upright(label, tag))
    trees.mask(root / f"labels/train/{i}.png", label)
  return folder.source(root, "train")


# What the advice opens, it leaves to Python to close.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
  ("orientation", "size"),
  [*((o, WIDE) for o in (2, 3, 4)), *((o, SQUARE) for o in range(2, 9))],
)
def test_masks_on_the_stored_photo_are_told_and_the_advice_works(
  tmp_path, orientation, size
):
  source = write(tmp_path, orientation, size=size, plain=1)
  report = check.check(source)
  (text,) = [w for w in report.warnings if "EXIF" in w]
  assert text.startswith("EXIF turns 4 of 5 photos, as ")
  assert "4 of 4 masks compared lie on the photo as it is stored" in text
  (code,) = re.findall(r"Turn each such mask like its photo: (.*)", text)
  for i in range(4):
    names = {
      "mask": tmp_path / f"labels/train/{i}.png",
      "photo": tmp_path / f"images/train/{i}.jpg",
    }
    exec(code, {"PIL": PIL, **names})
  report = check.check(source)
  assert not report.warnings
  assert "by their edges, those compared are" in str(report)
  expected = tiff.upright(scene(0, size)[1], orientation)
  np.testing.assert_array_equal(source[0]["label"], expected)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("size", [WIDE, SQUARE])
def test_masks_that_are_upright_pass(tmp_path, orientation, size):
  source = write(tmp_path, orientation, size=size, upright=True)
  report = check.check(source)
  assert not report.warnings
  (note,) = [n for n in report.notes if "EXIF" in n]
  assert "EXIF turns 4 of 4 photos" in note and "those compared are" in note


def test_what_edges_cannot_tell_is_left_to_the_user(tmp_path):
  source = write(tmp_path, 3)
  for path in (tmp_path / "labels/train").iterdir():
    trees.mask(path, np.full(WIDE, 1, np.uint8))
  trees.mask(path, np.zeros(WIDE, np.uint8))
  text = str(check.check(source))
  assert "their masks must be drawn upright as well. Look at some" in text


def test_photos_that_are_not_turned_are_not_counted(tmp_path):
  assert "EXIF" not in str(check.check(write(tmp_path, 1)))


def test_a_photo_whose_pixels_are_cut_off_does_not_stop_the_check(tmp_path):
  source = write(tmp_path, 3)
  path = tmp_path / "images/train/0.jpg"
  path.write_bytes(path.read_bytes()[:-50])
  assert "3 of 3 masks compared" in str(check.check(source))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
  exif = Image.Exif()
  exif[274] = orientation
  for kind in ("JPEG", "PNG", "TIFF"):
    data = io.BytesIO()
    Image.fromarray(scene(0, WIDE)[0]).save(data, kind, exif=exif)
    data = data.getvalue()
    assert decoding.image_header(data, "x") == (WIDE, 1)
    assert decoding.decode_image(data, "x").shape[:2] == WIDE


def test_every_turn_is_undone():
  image, label = scene(0, SQUARE)
  for orientation in range(2, 9):
    turned_image = tiff.upright(image, orientation)
    exif = Image.Exif()
    exif[274] = orientation
    picture = Image.fromarray(image)
    picture.getexif()[274] = orientation
    shown = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(shown, turned_image)
    assert turned.fits(turned_image, label, orientation) == -1
    assert turned.fits(image, label, orientation) == 1
