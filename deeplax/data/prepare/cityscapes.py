"""Prepare Cityscapes: fine annotations, and the coarse ones of train_extra."""

import pathlib

from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data.prepare import write

ZIPS = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")
EXTRA_ZIPS = ("leftImg8bit_trainextra.zip", "gtCoarse.zip")
GET = (
  "Cityscapes needs a login, so it cannot be fetched for you: register at "
  "https://www.cityscapes-dataset.com, download "
  f"{ZIPS[0]} (11 GB) and {ZIPS[1]} (0.2 GB), for train_extra "
  f"{EXTRA_ZIPS[0]} (44 GB) and {EXTRA_ZIPS[1]} (1.3 GB) too, into one folder, "
  "and give that as --source, unpacked or as it is"
)


def plan(root: pathlib.Path) -> write.Plan:
  """Return the splits of leftImg8bit/ and gtFine/, which lie in `root`.

  The labels of test are dummies, all of them ignored.

  Raises:
    InputError: An image has no mask.
  """
  folder = root / "leftImg8bit"
  splits = {
    name: published.cityscapes(root, name)
    for name, _ in spec_lib.CITYSCAPES.splits
    if (folder / name).is_dir()
  }
  notes = ()
  if "train_extra" not in splits:
    notes = (
      f"train_extra is left out: no {folder / 'train_extra'} "
      f"({' and '.join(EXTRA_ZIPS)})",
    )
  return write.Plan(
    name=spec_lib.CITYSCAPES.name,
    spec=spec_lib.CITYSCAPES,
    splits=splits,
    optional=("train_extra",),
    notes=notes,
  )
