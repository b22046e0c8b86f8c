"""Broken masks stop `python -m deeplax.main` before step 0: cause and fix.

The command runs in this process: whatever is refused, is refused before any
network is built.
"""

from collections.abc import Callable
import pathlib
import sys
from typing import NamedTuple

from absl.testing import flagsaver
import cv2
import numpy as np
from PIL import Image
import pytest

from deeplax import main
from deeplax.data import spec
from deeplax.models import build
from tests.data import trees

VOC_CLASSES = spec.VOC2012.class_names
IMAGE, MASK = "images/train/01.jpg", "labels/train/01.png"


class Broken(NamedTuple):
  """A way to spoil a good data set, and what must be said about it."""

  spoil: Callable[[pathlib.Path], object]
  parts: tuple[str, ...]  # file, cause and fix
  classes: tuple[str, ...] = ("ground", "cat", "dog")


def masks(root: pathlib.Path) -> list[pathlib.Path]:
  return sorted((root / "labels/train").iterdir())


def rewrite(root: pathlib.Path, labels: np.ndarray) -> None:
  for path in masks(root):
    trees.mask(path, labels)


def colored(root):
  labels = Image.fromarray(trees.labels(0, 1, 2))
  labels.putpalette([v for c in spec.VOC2012.palette for v in c])
  labels.convert("RGB").save(root / MASK)


def three_equal_channels(root):
  Image.fromarray(trees.labels(0, 1, 2)).convert("RGB").save(root / MASK)


def jpeg(root):
  (root / MASK).unlink()
  path = (root / MASK).with_suffix(".jpg")
  Image.fromarray(trees.labels(0, 1, 2)).save(path)


def palette_as_gray(root):
  labels = Image.fromarray(trees.labels(0, 1, 2, 3, 4))
  labels.putpalette([v for c in spec.VOC2012.palette for v in c])
  for path in masks(root):
    labels.convert("L").save(path)


def smooth(root):
  """A mask at half the size, enlarged without thought."""
  small = np.zeros((10, 15), np.uint8)
  small[2:7, 2:9], small[:, 12:] = 20, 255
  size = trees.SIZE[::-1]
  labels = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
  trees.mask(root / MASK, labels)


def on_its_side(root):
  exif = Image.Exif()
  exif[274] = 6  # stored on its side, shown upright
  trees.image(root / IMAGE, exif=exif)


def cut_off(root):
  noise = np.random.default_rng(0).integers(0, 3, trees.SIZE, np.uint8)
  trees.mask(root / MASK, noise)
  data = (root / MASK).read_bytes()
  (root / MASK).write_bytes(data[: len(data) // 2])


def transposed(root):
  trees.mask(root / MASK, trees.labels(0, 1, 2, size=trees.SIZE[::-1]))


WIDE = trees.labels(0, 24, 24001, 26003, dtype=np.uint16)

CASES = {
  "colors": Broken(
    colored,
    (MASK, "3 channels (mode RGB)", "(0, 128, 0)", '"colors": {"CLASS"'),
  ),
  "three equal channels": Broken(
    three_equal_channels, (MASK, "three alike", "getchannel(0)")
  ),
  "JPEG": Broken(
    jpeg, ("labels/train/01.jpg is a JPEG", "Save masks as PNG")
  ),
  "palette as gray": Broken(
    palette_as_gray,
    (
      "labels/train/00.png has values 38, 75, 113",
      "gray levels of the VOC palette",
      "Use the original palette PNGs",
    ),
    VOC_CLASSES,
  ),
  "0 and 255": Broken(
    lambda root: rewrite(root, trees.labels(0, 255)),
    ("00.png", "0 and 255 only", '"label_map": {"255": 1}'),
    ("ground", "cat"),
  ),
  "counted from 1": Broken(
    lambda root: rewrite(root, trees.labels(1, 2, 3)),
    ("00.png has values 3", "counted from 1", '"label_map": {"1": 0, '),
  ),
  "spread to be seen": Broken(
    lambda root: rewrite(root, trees.labels(0, 127, 255)),
    ("00.png has values 127", "3 classes spread", '{"127": 1, "255": 2}'),
  ),
  "instance ids": Broken(
    lambda root: trees.mask(root / MASK, WIDE),
    (MASK, "values 24, 24001, 26003", "16 bits", "save 8 bit PNGs"),
  ),
  "8 bits scaled to 16": Broken(
    lambda root: rewrite(root, trees.labels(0, 257, 514, dtype=np.uint16)),
    ("00.png has values 257, 514", "multiples of 257", "Divide"),
  ),
  "another size": Broken(
    lambda root: trees.mask(root / MASK, trees.labels(0, size=(10, 15))),
    (f"{MASK} is 10x15", f"{IMAGE} is 20x30", "nearest neighbor"),
  ),
  "photo turned by EXIF": Broken(
    on_its_side, (MASK, f"{IMAGE} is 30x20", "EXIF", "Turn the mask")
  ),
  "transposed": Broken(
    transposed, (MASK, "rows and columns are exchanged", "Transpose the mask")
  ),
  "all ignored": Broken(
    lambda root: rewrite(root, trees.labels(255)),
    ("00.png", "ignored pixels only (value 255)", "Check ignore_label"),
  ),
  "undeclared ignore label": Broken(
    lambda root: rewrite(root, trees.labels(0, 1, 2, 11)),
    ("00.png has values 11", "not labeled", '"label_map": {"11": 255}'),
  ),
  "blended edges": Broken(
    smooth, (MASK, "smooth resize", "with the nearest neighbor"), VOC_CLASSES
  ),
  "cut off": Broken(
    cut_off, (MASK, "not a readable mask", "replace it")
  ),
  "empty file": Broken(
    lambda root: (root / MASK).write_bytes(b""),
    (MASK, "not a readable mask", "replace it"),
  ),
  "empty image file": Broken(
    lambda root: (root / IMAGE).write_bytes(b""),
    (IMAGE, "not a", "take it out"),
  ),
  "no mask": Broken(
    lambda root: (root / MASK).unlink(),
    (IMAGE, "has no mask", "1 of 3 files", "add or rename it"),
  ),
  "no image": Broken(
    lambda root: (root / IMAGE).unlink(),
    (MASK, "has no image", "1 of 3 files", "add or rename it"),
  ),
}  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch):
  """Return a function that runs the command and returns its exit status."""

  def run(root):
    # config_flags looks for overrides in sys.argv, not in what is parsed.
    arguments = [
      "main",
      "--config=configs/own_data.py",
      f"--config.data.root={root}",
      f"--workdir={tmp_path / 'run'}",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stop:
      main.main()
    return stop.value.code

  with flagsaver.flagsaver():
    yield run


@pytest.mark.parametrize("kind", CASES)
def test_a_broken_mask_stops_the_run_with_its_cause(
  kind, train, tmp_path, capsys
):
  case = CASES[kind]
  root = trees.folder(tmp_path / "data", classes=case.classes)
  case.spoil(root)
  assert train(root) == 2
  message = capsys.readouterr().err
  assert message.startswith("deeplax: ") and "Traceback" not in message
  for part in case.parts:
    assert part in message
  assert not (tmp_path / "run").exists()


def test_broken_masks_of_the_evaluation_split_stop_the_run(
  train, tmp_path, capsys
):
  root = trees.folder(tmp_path / "data")
  trees.mask(root / "labels/val/01.png", trees.labels(0, 7))
  assert train(root) == 2
  assert "labels/val/01.png has values 7" in capsys.readouterr().err


class Passed(Exception):
  """Raised where the run goes on after the masks were checked."""


@pytest.mark.parametrize("kind", ["1 bit", "palette", "gray", "16 bit"])
def test_masks_that_only_look_odd_pass(
  kind, train, tmp_path, monkeypatch, capsys
):
  root = trees.folder(tmp_path / "data")
  path = root / MASK
  if kind == "1 bit":
    Image.fromarray(trees.labels(0, 1).astype(bool)).save(path)
  elif kind == "palette":
    trees.mask(path, trees.labels(0, 1, 2), palette=spec.color_map(256))
  else:
    dtype = np.uint16 if kind == "16 bit" else np.uint8
    trees.mask(path, trees.labels(0, 1, 2, dtype=dtype))
  with Image.open(path) as mask:
    modes = {"1 bit": "1", "palette": "P", "gray": "L", "16 bit": "I;16"}
    assert mask.mode == modes[kind]

  def passed(*_, **__):
    raise Passed

  monkeypatch.setattr(build, "from_config", passed)
  with pytest.raises(Passed):
    train(root)
  assert "3 masks checked" in capsys.readouterr().out
