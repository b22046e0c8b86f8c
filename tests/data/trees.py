"""Write tiny data sets for the tests of this folder, laid out as published."""

import json
import pathlib

import numpy as np
from PIL import Image
import scipy.io

from deeplax.data import spec

SIZE = (20, 30)  # (height, width)
# VOC's lists, and one image that SBD alone has a mask of.
VOC_TRAIN = ("2007_000032", "2007_000039")
VOC_VAL = ("2007_000033",)
SBD_ONLY = "2008_000007"


def image(path: pathlib.Path, size=SIZE, **options) -> None:
  """Write a picture of smooth colors; `options` go to Pillow's save."""
  path.parent.mkdir(parents=True, exist_ok=True)
  y, x = np.mgrid[0 : size[0], 0 : size[1]]
  picture = np.stack([y * 5, x * 3, y + x], axis=-1).astype(np.uint8)
  Image.fromarray(picture).save(path, **options)


def mask(path: pathlib.Path, labels: np.ndarray, palette=None) -> None:
  """Write labels, as a palette PNG if colors are given."""
  path.parent.mkdir(parents=True, exist_ok=True)
  picture = Image.fromarray(labels)
  if palette is not None:
    picture.putpalette([v for color in palette for v in color])
  picture.save(path)


def labels(*values: int, size=SIZE, dtype: type = np.uint8) -> np.ndarray:
  """Return labels in which all the values occur, in stripes."""
  columns = np.array(values, dtype)[np.arange(size[1]) % len(values)]
  return np.tile(columns, (size[0], 1))


def folder(
  root: pathlib.Path,
  *,
  classes=("ground", "cat", "dog"),
  images: int = 3,
  splits=("train", "val"),
  **keys,
) -> pathlib.Path:
  """Write a good data set of own images and return its root."""
  root.mkdir(exist_ok=True)
  for split in splits:
    for i in range(images):
      image(root / "images" / split / f"{i:02d}.jpg")
      values = labels(*range(len(classes)))
      mask(root / "labels" / split / f"{i:02d}.png", values)
  (root / "classes.json").write_text(json.dumps({"names": classes, **keys}))
  return root


def voc(root: pathlib.Path, *, aug: str | None = None) -> pathlib.Path:
  """Write VOCdevkit/VOC2012 in `root` and return it.

  Args:
    root: A folder.
    aug: Name of a list of train_aug; its masks are written with it.
  """
  root = root / "VOCdevkit" / "VOC2012"
  lists = root / "ImageSets" / "Segmentation"
  lists.mkdir(parents=True)
  splits = {"train": VOC_TRAIN, "val": VOC_VAL, "trainval": VOC_TRAIN + VOC_VAL}
  for split, names in splits.items():
    (lists / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))
  for i, name in enumerate((*splits["trainval"], SBD_ONLY)):
    image(root / "JPEGImages" / f"{name}.jpg", (20 + i, 30), quality=80)
    if name != SBD_ONLY:
      values = labels(0, 1 + i, 15, 20, 255, size=(20 + i, 30))
      own = root / "SegmentationClass" / f"{name}.png"
      mask(own, values, spec.color_map(256))
  if aug:
    names = (VOC_TRAIN[0], SBD_ONLY)
    (lists / aug).write_text("".join(f"{n}\n" for n in names))
    for name, size in zip(names, ((20, 30), (23, 30)), strict=True):
      values = labels(0, 7, size=size)
      mask(root / "SegmentationClassAug" / f"{name}.png", values)
  return root


def sbd(root: pathlib.Path) -> pathlib.Path:
  """Write benchmark_RELEASE in `root`: masks of train, val and one more."""
  root = root / "benchmark_RELEASE"
  cls = root / "dataset" / "cls"
  cls.mkdir(parents=True)
  sizes = {VOC_TRAIN[0]: 20, VOC_VAL[0]: 22, SBD_ONLY: 23}
  for name, height in sizes.items():
    values = labels(0, 7, 20, size=(height, 30))
    truth = {"Segmentation": values, "CategoriesPresent": np.array([7, 20])}
    scipy.io.savemat(cls / f"{name}.mat", {"GTcls": truth})
    picture = root / "dataset" / "img" / f"{name}.jpg"
    image(picture, (height, 30), quality=80)
  return root


def cityscapes(
  root: pathlib.Path,
  *,
  splits=("train", "val", "test"),
  kind: str = "labelIds",
  images: int = 2,
) -> pathlib.Path:
  """Write leftImg8bit/ and gtFine/, gtCoarse/ for train_extra, in `root`."""
  size = (8, 16)
  values = (7, 8, 33, 4, 0) if kind == "labelIds" else (0, 1, 18, 255, 255)
  for split in splits:
    truth = "gtCoarse" if split == "train_extra" else "gtFine"
    for i in range(images):
      stem = f"aachen_{i:06d}_000019"
      folder = root / "leftImg8bit" / split / "aachen"
      image(folder / f"{stem}_leftImg8bit.png", size)
      found = labels(*(values if split != "test" else (0,)), size=size)
      found = np.roll(found, i, axis=1)
      folder = root / truth / split / "aachen"
      mask(folder / f"{stem}_{truth}_{kind}.png", found)
  return root


def ade20k(root: pathlib.Path) -> pathlib.Path:
  """Write ADEChallengeData2016 in `root` and return it."""
  root = root / "ADEChallengeData2016"
  for split in ("training", "validation"):
    for i in range(2):
      name = f"ADE_{split}_{i:08d}"
      image(root / f"images/{split}/{name}.jpg", (20, 30 + i))
      values = labels(0, 1, 150 - i, size=(20, 30 + i))
      mask(root / f"annotations/{split}/{name}.png", values)
  return root


def coco(root: pathlib.Path) -> pathlib.Path:
  """Write train2017, val2017 and their instances in `root`.

  Of three images one has a dog, a crowd of persons and a zebra, one a small
  dog, and one nothing of VOC's classes.
  """
  square = [[5.0, 5.0, 25.0, 5.0, 25.0, 15.0, 5.0, 15.0]]
  small = [[5.0, 5.0, 9.0, 5.0, 9.0, 9.0, 5.0, 9.0]]
  crowd = np.zeros((40, 60), np.uint8)
  crowd[30:, 10:20] = 1
  regions = [
    {"image_id": 7, "category_id": 18, "segmentation": square, "area": 200.0},
    {
      "image_id": 7,
      "category_id": 1,
      "segmentation": {"size": [40, 60], "counts": run_lengths(crowd)},
      "area": 100,
      "iscrowd": 1,
    },
    {"image_id": 7, "category_id": 24, "segmentation": small, "area": 16.0},
    {"image_id": 8, "category_id": 18, "segmentation": small, "area": 16.0},
    {"image_id": 9, "category_id": 24, "segmentation": square, "area": 200.0},
  ]
  names = {1: "person", 18: "dog", 24: "zebra"}
  for folder in ("train2017", "val2017"):
    pictures = []
    for number in (9, 8, 7):
      file = f"{number:012d}.jpg"
      image(root / folder / file, (40, 60))
      pictures.append(
        {"id": number, "file_name": file, "height": 40, "width": 60}
      )
    path = root / "annotations" / f"instances_{folder}.json"
    path.parent.mkdir(exist_ok=True)
    categories = [{"id": i, "name": name} for i, name in names.items()]
    text = {
      "images": pictures,
      "annotations": regions,
      "categories": categories,
    }
    path.write_text(json.dumps(text))
  return root


def run_lengths(inside: np.ndarray) -> list[int]:
  """Return COCO's lengths of 0s and 1s in turn, down the columns."""
  flat = inside.T.ravel()
  ends = [*(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
  lengths = np.diff([0, *ends]).tolist()
  return [0, *lengths] if flat[0] else lengths


def replace_masks(
  root: pathlib.Path, labels: np.ndarray, split="train"
) -> None:
  """Write these labels into every mask of a split of an own data set."""
  for path in (root / "labels" / split).iterdir():
    mask(path, labels)
