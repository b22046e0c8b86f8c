"""Prepare COCO's images with VOC's 21 classes, to train on before VOC.

v3 (1706.05587, 4.1) takes the images of trainval without minival that have
more than 1,000 annotated pixels of VOC's classes, about 60,000. All other
pixels are background. That trainval is train2017, and minival is val2017.

OpenCV fills the outlines and takes the pixels under an edge as well, so objects
are about half a pixel larger on every side than with COCO's own tool. Pixels
where objects of two classes overlap are ignored.
"""

import collections
import pathlib
from typing import Any

import cv2
import numpy as np

from deeplax import errors
from deeplax import text_files
from deeplax.data import decoding
from deeplax.data import files
from deeplax.data import label_tables
from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data.prepare import write
from deeplax.labels import IGNORE_LABEL

MIN_PIXELS = 1000
FOLDERS = {"train": "train2017", "val": "val2017"}

# COCO's words for VOC's classes, where they differ.
_WORDS = {
  "airplane": "aeroplane",
  "couch": "sofa",
  "dining table": "diningtable",
  "motorcycle": "motorbike",
  "potted plant": "pottedplant",
  "tv": "tvmonitor",
}
_SUBPIXEL = 4  # bits of a drawn coordinate after the point
_FAR = 1 << 16  # pixels; OpenCV draws with 16 bit before the point

# The class of an object, and COCO's outlines or run lengths.
Region = tuple[int, Any]


def plan(root: pathlib.Path, *, min_pixels: int = MIN_PIXELS) -> write.Plan:
  """Return the images of train2017 and val2017 that have VOC's classes.

  Args:
    root: The folder of these two, and of annotations/instances_*.json.
    min_pixels: An image must have more pixels of VOC's classes than this.

  Raises:
    InputError: The annotations or an image are missing or damaged.
  """
  splits = {
    split: _read(root, split, folder, min_pixels)
    for split, folder in FOLDERS.items()
    if (root / folder).is_dir()
  }
  if not splits:
    raise errors.InputError(
      f"no COCO in {root}: no {' nor '.join(FOLDERS.values())}. Unpack "
      "train2017.zip, val2017.zip and annotations_trainval2017.zip there"
    )
  notes = tuple(
    f"{split}: {len(source)} images have more than {min_pixels} pixels of "
    "VOC's classes"
    for split, source in splits.items()
  )
  return write.Plan(
    name=spec_lib.COCO.name, spec=spec_lib.COCO, splits=splits, notes=notes
  )


def _read(
  root: pathlib.Path, split: str, folder: str, min_pixels: int
) -> "Coco":
  """Return a split; all of its annotations are in memory at once."""
  path = root / "annotations" / f"instances_{folder}.json"
  fix = "unpack annotations_trainval2017.zip there"
  obj = text_files.read_json(path, fix=fix)
  try:
    classes = _classes(obj["categories"])
    # The objects of VOC's classes and their total area, by image.
    regions, areas = collections.defaultdict(list), collections.Counter()
    for item in obj["annotations"]:
      if label := classes.get(item["category_id"]):
        regions[item["image_id"]].append((label, item["segmentation"]))
        areas[item["image_id"]] += item["area"]
    entries = sorted(
      (i for i in obj["images"] if areas[i["id"]] > min_pixels),
      key=lambda i: i["id"],
    )
    sizes = [(i["height"], i["width"]) for i in entries]
    images = [root / folder / i["file_name"] for i in entries]
    drawn = [regions[i["id"]] for i in entries]
  except text_files.WRONG_CONTENTS as error:
    raise errors.InputError(
      f"{path} cannot be read ({type(error).__name__}: {str(error)[:200]}): "
      f"{fix}"
    ) from error
  if not images:
    raise errors.InputError(
      f"{path}: no image has more than {min_pixels} pixels of VOC's classes. "
      "Lower --min_pixels"
    )
  # Masks are drawn, so the picture stands in for the mask's file.
  pairs = [files.Pair(p.stem, p, p) for p in images]
  published.refuse_missing(pairs, path)
  return Coco(split, pairs, path, sizes, drawn)


def _classes(categories: list[dict[str, Any]]) -> dict[int, int]:
  """Return {COCO's number: VOC's} of the classes that VOC has."""
  voc = spec_lib.VOC2012.class_names
  words = {c["id"]: _WORDS.get(c["name"], c["name"]) for c in categories}
  return {i: voc.index(word) for i, word in words.items() if word in voc[1:]}


class Coco(files.Files):
  """Images whose masks are drawn from outlines.

  Args:
    split: The split's name.
    pairs: The images.
    path: The file of the annotations, for messages.
    sizes: (height, width) of each image, according to the annotations.
    regions: The objects in each image.
  """

  def __init__(
    self,
    split: str,
    pairs: list[files.Pair],
    path: pathlib.Path,
    sizes: list[tuple[Any, Any]],
    regions: list[list[Region]],
  ):
    table = label_tables.plain(spec_lib.COCO.num_classes)
    super().__init__(spec_lib.COCO, split, table, pairs)
    self._path, self._sizes, self._regions = path, sizes, regions

  def mask(self, index: int) -> tuple[bytes, str]:
    image = self.pairs[index].image
    file = f"{self._path}, image {self.pairs[index].name}"
    with files.opened(image) as stream:
      size = decoding.image_header(stream, str(image)).size
    # Checked first, since a false size would draw too many pixels.
    if size != self._sizes[index]:
      raise errors.InputError(
        f"{file} says {text_files.short(self._sizes[index])} (height, width) "
        f"but {image} is {size}: unpack both archives again"
      )
    label = draw(self._regions[index], size, file)
    return write.png(label), file


def draw(regions: list[Region], size: tuple[int, int], file: str) -> np.ndarray:
  """Return labels, uint8 [h, w]; where two classes overlap, 255.

  Args:
    regions: Outlines as lists of x, y, x, y, ... in pixels from the corner, or
      {"counts": lengths of 0s and 1s in turn, down the columns}.
    size: (height, width).
    file: For messages.

  Raises:
    InputError: A region is neither of the two.
  """
  label = np.zeros(size, np.uint8)
  for number, segmentation in regions:
    try:
      inside = _inside(segmentation, size)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
      raise errors.InputError(
        f"{file} has a region that cannot be drawn ({str(error)[:200]}): "
        "unpack annotations_trainval2017.zip again"
      ) from error
    other = (label != 0) & (label != number)
    label[inside] = number
    label[inside & other] = IGNORE_LABEL
  return label


def _inside(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
  """Return which pixels are in a region, bool [h, w]."""
  canvas = np.zeros(size, np.uint8)
  if isinstance(segmentation, dict):  # of a crowd
    counts = np.array(segmentation["counts"], np.int64)
    pixels = canvas.size
    if not all(0 <= n <= pixels for n in counts) or counts.sum() != pixels:
      raise ValueError("its run lengths are not those of the image")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[::-1]).T
  for outline in segmentation:
    # OpenCV counts from the center of the first pixel.
    points = np.array(outline, np.float64).reshape(-1, 2) - 0.5
    if not (np.abs(points) < _FAR).all():
      raise ValueError("a point is far outside the image")
    points = np.round(points * 2**_SUBPIXEL).astype(np.int32)
    cv2.fillPoly(canvas, [points], (1,), shift=_SUBPIXEL)
  return canvas > 0
