"""Prepare PASCAL VOC 2012, and SBD, which adds masks to VOC's images.

SBD (Hariharan et al., ICCV 2011) comes as MATLAB files. Its masks for images of
VOC's val are left out: the 1,464 images of VOC's train and 9,118 more make
train_aug, 10,582 images.
"""

import io
import pathlib
from typing import Any

import numpy as np

from deeplax import errors
from deeplax.data import files
from deeplax.data import label_tables
from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data import walk
from deeplax.data.prepare import write

SPLITS = ("train", "val", "trainval")  # VOC's own lists


def plan(root: pathlib.Path, *, sbd: pathlib.Path | None = None) -> write.Plan:
  """Return the splits of VOCdevkit/VOC2012.

  Args:
    root: That folder.
    sbd: benchmark_RELEASE; None: SegmentationClassAug, if it exists.

  Raises:
    InputError: A file that a list names is missing.
  """
  lists = root / "ImageSets" / "Segmentation"
  have = [split for split in SPLITS if (lists / f"{split}.txt").is_file()]
  splits = {split: published.voc(root, split) for split in have}
  if sbd:
    splits["train_aug"], note = augmented(root, sbd)
  elif (root / published.AUG_LABELS).is_dir():
    splits["train_aug"] = published.voc(root, "train_aug")
    note = f"train_aug is read from {root / published.AUG_LABELS}"
  else:
    note = (
      f"train_aug is left out: no {root / published.AUG_LABELS}, and no --sbd. "
      f"To have it, add {published.SBD}"
    )
  return write.Plan(
    name=spec_lib.VOC2012.name,
    spec=spec_lib.VOC2012,
    splits=splits,
    optional=("train_aug",),
    notes=(note,),
  )


def augmented(root: pathlib.Path, sbd: pathlib.Path) -> tuple[files.Files, str]:
  """Return train_aug, and a note on where its images come from.

  Args:
    root: VOCdevkit/VOC2012.
    sbd: benchmark_RELEASE, or the dataset/ in it.

  Raises:
    InputError: SBD is missing, or an image of it.
  """
  places = [sbd / "dataset", sbd, sbd / "benchmark_RELEASE" / "dataset"]
  folder = next((p for p in places if (p / "cls").is_dir()), None)
  if folder is None:
    raise errors.InputError(
      f"--sbd={sbd} is not SBD: no {places[0] / 'cls'}. Unpack benchmark.tgz, "
      "which makes benchmark_RELEASE/dataset/cls, and name benchmark_RELEASE"
    )
  lists = root / "ImageSets" / "Segmentation"
  train = set(published.voc_ids(lists / "train.txt"))
  val = set(published.voc_ids(lists / "val.txt"))
  listed = {p.stem for p in walk.matching(folder / "cls", "*.mat")}
  more = listed - train - val
  images = published.names_in(root / "JPEGImages")

  def pair(name: str) -> files.Pair:
    own = published.voc_pair(root, name)
    if name in train:
      return own
    own = own._replace(label=folder / "cls" / f"{name}.mat")
    if own.image.name in images:
      return own
    return own._replace(image=folder / "img" / own.image.name)

  pairs = [pair(name) for name in sorted(train | more)]
  published.refuse_missing(pairs, folder / "cls")
  note = (
    f"train_aug: {len(train)} of VOC's train and {len(more)} of SBD make "
    f"{len(pairs)} (SBD has {len(listed)} masks; {len(listed & train)} are in "
    f"train, where VOC's own are taken, and {len(listed & val)} in val)"
  )
  table = label_tables.plain(spec_lib.VOC2012.num_classes)
  return _Sbd(spec_lib.VOC2012, "train_aug", table, pairs), note


class _Sbd(files.Files):
  """Pairs of which some masks are SBD's .mat files."""

  def mask(self, index: int) -> tuple[bytes, str]:
    data, file = super().mask(index)
    if file.endswith(".mat"):
      data = write.png(segmentation(data, file))
    return data, file


def segmentation(data: bytes, file: str) -> np.ndarray:
  """Return GTcls.Segmentation of a .mat file of SBD, uint8 [h, w].

  Raises:
    InputError: It has none.
  """
  import scipy.io  # takes a fifth of a second, for SBD alone

  try:
    # Reads arrays and runs nothing, unlike pickle.
    contents: Any = scipy.io.loadmat(io.BytesIO(data), variable_names=["GTcls"])
    label = contents["GTcls"]["Segmentation"][0, 0]
    if label.dtype != np.uint8 or label.ndim != 2:
      raise ValueError(f"GTcls.Segmentation is {label.dtype} {label.shape}")
  except Exception as error:  # scipy has no common class for damaged files
    raise errors.InputError(
      f"{file} is no mask of SBD ({type(error).__name__}: {error}): unpack "
      "benchmark.tgz again"
    ) from error
  return label
