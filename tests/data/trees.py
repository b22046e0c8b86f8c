"""Write tiny data sets for the tests of this folder."""

import json
import pathlib

import numpy as np
from PIL import Image

SIZE = (20, 30)  # (height, width)


def image(path: pathlib.Path, size=SIZE, **options) -> None:
  """Write a picture of smooth colours; `options` go to Pillow's save."""
  path.parent.mkdir(parents=True, exist_ok=True)
  y, x = np.mgrid[0 : size[0], 0 : size[1]]
  picture = np.stack([y * 5, x * 3, y + x], axis=-1).astype(np.uint8)
  Image.fromarray(picture).save(path, **options)


def mask(path: pathlib.Path, labels: np.ndarray, palette=None) -> None:
  """Write labels, as a palette PNG if colours are given."""
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
