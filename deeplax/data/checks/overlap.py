"""Pictures that are in two splits: a network scored on what it has learned."""

from collections.abc import Mapping, Sequence

import numpy as np

from deeplax.data.checks import check
from deeplax.data.checks import faults as faults_lib

# Mean difference of two thumbnails, of 255, below which pictures of one name
# are the same, written twice. On CamVid JPEG at quality 50 moves it by up to
# 0.5, half the size by 0.15, the next second of the video by 2 and more.
SAME = 1.5


def trains(split: str) -> bool:
  """Return whether a split is trained on; trainval is both and is neither."""
  return split.startswith("train") and not whole(split)


def whole(split: str) -> bool:
  """Return whether a split is the others put together."""
  return split.startswith("trainval")


def leaks(seen: Mapping[str, Sequence[check.Seen]]) -> list[faults_lib.Fault]:
  """Return the images of evaluation splits that are trained on, too.

  Told by the bytes of the files; by the look, where the names are equal.

  Args:
    seen: The images of each split.
  """
  digests, names = {}, {}
  for split in filter(trains, seen):
    for image in seen[split]:
      digests.setdefault(image.digest, (split, image))
      names.setdefault(image.name, (split, image))
  found = []
  for split in _evaluated(seen):
    for image in seen[split]:
      in_train, other = digests.get(image.digest, (None, image))
      if in_train is None:
        in_train, other = names.get(image.name, (None, image))
        if in_train is None or not _alike(image, other):
          continue
      text = (
        f"{image.file} of {split} is the picture {other.file} of {in_train}: "
        "its score says nothing about new pictures. Take it out of one of the "
        "two"
      )
      found.append(
        faults_lib.Fault(
          f"{in_train} in {split}", image.file, text, f"as {other.file}"
        )
      )
  return found


def doubles(seen: Mapping[str, Sequence[check.Seen]]) -> list[str]:
  """Return warnings about what is there twice, but spoils no score.

  Args:
    seen: The images of each split.
  """
  result = []
  for split, images in seen.items():
    first: dict[bytes, check.Seen] = {}
    twice = [i for i in images if first.setdefault(i.digest, i) is not i]
    if twice:
      result.append(
        f"{len(twice)} pictures of {split} are there more than once, as "
        f"{first[twice[0].digest].file} and {twice[0].file}"
      )
  evaluated = _evaluated(seen)
  for number, one in enumerate(evaluated):
    digests = {image.digest for image in seen[one]}
    for other in evaluated[number + 1 :]:
      both = [i.file for i in seen[other] if i.digest in digests]
      if both:
        result.append(
          f"{len(both)} pictures are in both {one} and {other}, as {both[0]}"
        )
  for one in filter(trains, seen):
    names = {image.name: image for image in seen[one]}
    for other in evaluated:
      same = [i for i in seen[other] if i.name in names]
      same = [i for i in same if not _alike(i, names[i.name])]
      if same:
        result.append(
          f"{len(same)} names are in both {one} and {other}, of different "
          f"pictures, as {same[0].name}: predictions in one folder would "
          "replace each other"
        )
  return result


def _evaluated(seen: Mapping[str, Sequence[check.Seen]]) -> list[str]:
  return [s for s in seen if not trains(s) and not whole(s)]


def _alike(one: check.Seen, other: check.Seen) -> bool:
  """Return whether two images are one, maybe saved anew."""
  if one.digest == other.digest:
    return True
  a, b = one.thumbnail, other.thumbnail
  if a is None or b is None or a.shape != b.shape:
    return False
  return float(np.abs(a.astype(np.float64) - b).mean()) < SAME
