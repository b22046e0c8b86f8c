"""Prepare ADE20K, as the scene parsing challenge of 2016 has it."""

import pathlib

from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data.prepare import write


def plan(root: pathlib.Path) -> write.Plan:
  """Return the splits of ADEChallengeData2016, which is `root`.

  Raises:
    InputError: An image has no mask.
  """
  return write.Plan(
    name=spec_lib.ADE20K.name,
    spec=spec_lib.ADE20K,
    splits={
      split: published.ade20k(root, split)
      for split, folder in published.ADE20K_FOLDERS.items()
      if (root / "images" / folder).is_dir()
    },
  )
