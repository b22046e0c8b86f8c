"""Images that are in two splits: a network is scored on what it has learned."""

from collections.abc import Mapping, Sequence
import itertools

import numpy as np

from deeplax.data.checks import check
from deeplax.data.checks import faults as faults_lib

# The images of each split.
Splits = Mapping[str, Sequence[check.Fingerprint]]

# Mean difference of two thumbnails, of 255, below which pictures of one name
# are the same, written twice. On CamVid JPEG at quality 50 moves it by up to
# 0.5, half the size by 0.15, the next second of the video by 2 and more.
SAME = 1.5


def trains(split: str) -> bool:
  """Return whether a split is trained on; trainval is both and is neither."""
  return split.startswith("train") and not is_union(split)


def is_union(split: str) -> bool:
  """Return whether a split is the others put together."""
  return split.startswith("trainval")


def leaks(splits: Splits) -> list[faults_lib.Fault]:
  """Return the images of evaluation splits that are trained on as well.

  Two images are the same if the bytes of their files are, or if their names
  are and they look alike.
  """
  digests, names = {}, {}
  for split in filter(trains, splits):
    for image in splits[split]:
      digests.setdefault(image.digest, (split, image))
      names.setdefault(image.name, (split, image))
  faults = []
  for split in _evaluated(splits):
    for image in splits[split]:
      match = digests.get(image.digest) or names.get(image.name)
      if match is None or not _alike(image, match[1]):
        continue
      in_train, other = match
      text = (
        f"{image.file} of {split} is the picture {other.file} of {in_train}: "
        "its score says nothing about new pictures. Take it out of one of the "
        "two"
      )
      cause, detail = f"{in_train} in {split}", f"as {other.file}"
      faults.append(faults_lib.Fault(cause, image.file, text, detail))
  return faults


def doubles(splits: Splits) -> list[str]:
  """Return warnings about images that occur twice and spoil no score."""
  warnings = []
  for split, images in splits.items():
    first: dict[bytes, check.Fingerprint] = {}
    twice = [i for i in images if first.setdefault(i.digest, i) is not i]
    if twice:
      warnings.append(
        f"{len(twice)} pictures of {split} are there more than once, as "
        f"{first[twice[0].digest].file} and {twice[0].file}"
      )
  evaluated = _evaluated(splits)
  for one, other in itertools.combinations(evaluated, 2):
    digests = {image.digest for image in splits[one]}
    both = [i.file for i in splits[other] if i.digest in digests]
    if both:
      warnings.append(
        f"{len(both)} pictures are in both {one} and {other}, as {both[0]}"
      )
  for one, other in itertools.product(filter(trains, splits), evaluated):
    names = {image.name: image for image in splits[one]}
    same = [i for i in splits[other] if i.name in names]
    same = [i for i in same if not _alike(i, names[i.name])]
    if same:
      warnings.append(
        f"{len(same)} names are in both {one} and {other}, of different "
        f"pictures, as {same[0].name}: predictions in one folder would "
        "replace each other"
      )
  return warnings


def _evaluated(splits: Splits) -> list[str]:
  return [s for s in splits if not trains(s) and not is_union(s)]


def _alike(one: check.Fingerprint, other: check.Fingerprint) -> bool:
  """Return whether two images are one, maybe saved anew."""
  if one.digest == other.digest:
    return True
  a, b = one.thumbnail, other.thumbnail
  if a is None or b is None or a.shape != b.shape:
    return False
  return float(np.abs(a.astype(np.float64) - b).mean()) < SAME
