"""Prepare own data: a folder of images, masks and classes.json."""

import dataclasses
import pathlib
import re

from deeplax import errors
from deeplax.data import folder
from deeplax.data import spec as spec_lib
from deeplax.data.prepare import write


def plan(root: pathlib.Path) -> write.Plan:
  """Return all splits of a folder that have masks, under the folder's name.

  Raises:
    InputError: The folder is not as it must be, or TFDS cannot keep its name or
      a split's.
  """
  spec = folder.spec(root)
  splits, notes = {}, []
  for split in folder.splits(root):
    if not re.fullmatch(r"[\w-]+", split) or split == "all":
      raise errors.InputError(
        f"split {split!r} of {root} cannot be stored: name its two folders "
        'with letters, digits, "_" and "-" only, and not "all"'
      )
    if (root / "labels" / split).is_dir():
      splits[split] = folder.source(root, split)
    else:
      notes.append(f"{split} is left out: no {root / 'labels' / split}")
  if not splits:
    raise errors.InputError(
      f"{root} has no split with images and masks: make images/train and "
      "labels/train"
    )
  return write.Plan(
    name=_name(root, spec),
    # Prepared data hold labels, not the numbers of the masks.
    spec=dataclasses.replace(spec, label_map=None),
    splits=splits,
    notes=tuple(notes),
  )


def _name(root: pathlib.Path, spec: spec_lib.Spec) -> str:
  """Return the folder's name, as TFDS takes names."""
  name = re.sub(r"[^a-z0-9]+", "_", spec.name.lower()).strip("_")
  if not re.match(r"[a-z]", name):
    name = f"data_{name}"
  published = spec_lib.SPECS.get(name)
  if published and published.class_names != spec.class_names:
    raise errors.InputError(
      f"{root} would be stored as {name}, the name of a published data set "
      "with other classes: rename the folder"
    )
  return name
