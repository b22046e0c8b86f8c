"""Counts of the classes in the masks of a split, and what follows from them.

The counts give class weights for the loss, and a list of images in which those
of rare classes occur twice. They take every mask, so a file can keep them.
"""

from collections.abc import Callable, Iterable, Sequence
import contextlib
import dataclasses
import difflib
from functools import partial
import hashlib
import math
from typing import Any

from etils import epath
import numpy as np

from deeplax import atomic
from deeplax import errors
from deeplax import text_files
from deeplax.data import files
from deeplax.data import label_tables
from deeplax.data.checks import faults
from deeplax.data.checks import mask_counts
from deeplax.labels import IGNORE_LABEL

RULES = ("median_frequency", "enet")


@dataclasses.dataclass(frozen=True, eq=False)
class ClassCounts:
  """The pixels and images of each class in a split.

  Attributes:
    class_names: By label.
    pixels: The pixels of each class, int64 [k].
    pixels_where_present: For each class, the pixels of all classes in the
      images where it occurs, int64 [k].
    ignored: The number of ignored pixels.
    present: Which image has which class, bool [images, k].
  """

  class_names: tuple[str, ...]
  pixels: np.ndarray
  pixels_where_present: np.ndarray
  ignored: int
  present: np.ndarray

  @property
  def images(self) -> int:
    return len(self.present)


def count(
  source: files.Source,
  *,
  threads: int = 4,
  progress: Callable[[str], None] = print,
  cache: epath.PathLike | None = None,
) -> ClassCounts:
  """Return the counts of all masks of a split.

  Several processes, which must have the same split, share the masks; all return
  the same counts.

  Args:
    source: The split.
    threads: How many read masks.
    progress: Receives lines of progress.
    cache: A JSON file that keeps the counts, or None. It is read if they were
      made of the same data set, split, mask files and classes. Of several
      processes the first alone reads and writes it.

  Raises:
    InputError: A mask is unreadable or holds numbers that are no class, or the
      cache cannot be written.
  """
  from deeplax import parallel  # loads JAX, which the checks go without

  key = parallel.of_first(partial(_key, source))
  if cache is not None:
    path = epath.Path(cache)
    if saved := parallel.of_first(partial(_saved, path, key, progress)):
      return _from_json(saved)
  progress(f"counting the classes of {len(source)} masks ...")
  masks = mask_counts.each(
    partial(mask_counts.read, source),
    range(parallel.rank(), len(source), parallel.processes()),
    threads=threads,
    progress=progress,
    name="counted",
  )
  result = _of_all(parallel.agreed(partial(tally, source, masks)), len(source))
  if cache is not None:
    parallel.of_first(partial(_write, path, key, result))
  return result


def _of_all(share: ClassCounts, images: int) -> ClassCounts:
  """Return the counts of all processes' masks: each has every n-th image.

  Args:
    share: The counts of this process.
    images: The number of images in all.
  """
  from deeplax import parallel

  # Some processes have an image less; one bit per class and image.
  most, k = -(-images // parallel.processes()), len(share.class_names)
  padded = np.zeros((most, k), bool)
  padded[: share.images] = share.present
  packed = parallel.of_all(np.packbits(padded, axis=1))
  rows = packed.swapaxes(0, 1).reshape(-1, packed.shape[-1])[:images]
  present = np.unpackbits(rows, axis=1, count=k)
  return ClassCounts(
    class_names=share.class_names,
    pixels=parallel.summed(share.pixels),
    pixels_where_present=parallel.summed(share.pixels_where_present),
    ignored=sum(parallel.gathered(share.ignored)),
    present=present.astype(bool),
  )


def tally(
  source: files.Source, masks: Iterable[mask_counts.MaskCounts]
) -> ClassCounts:
  """Return the sum over masks.

  Args:
    source: The split.
    masks: The counts of each of its masks, in order.

  Raises:
    InputError: A mask holds a number that is no class.
  """
  spec, table = source.spec, mask_counts.label_table(source)
  k, ignored, rows = spec.num_classes, 0, []
  for mask in masks:
    labels = mask_counts.by_label(mask, table)
    if labels[label_tables.ILLEGAL]:
      (fault,) = faults.of_numbers(spec, table, [mask], together=False)
      raise errors.InputError(
        f"{fault.text}\nFor all such masks: python -m deeplax.check_data "
        f"DIR --split={source.split} --full"
      )
    ignored += int(labels[IGNORE_LABEL])
    rows.append(labels[:k])
  matrix = np.stack(rows) if rows else np.zeros((0, k), np.int64)
  present = matrix > 0
  return ClassCounts(
    class_names=spec.class_names,
    pixels=matrix.sum(axis=0),
    pixels_where_present=matrix.sum(axis=1) @ present,
    ignored=ignored,
    present=present,
  )


def _key(source: files.Source) -> dict[str, Any]:
  """Return all that the counts depend on and that costs no reading of masks."""
  stamp = source.stamp() if isinstance(source, files.Decoded) else ""
  table = mask_counts.label_table(source)
  contents = stamp.encode() + table.labels
  if table.others:  # left out if empty, so that files of earlier versions hold
    contents += repr(table.others).encode()
  return {
    "data": source.spec.name,
    "split": source.split,
    "images": len(source),
    "class_names": list(source.spec.class_names),
    "files_and_label_map": hashlib.sha256(contents).hexdigest(),
  }


def _write(path: epath.Path, key: dict[str, Any], counts: ClassCounts) -> None:
  packed = np.packbits(counts.present, axis=1)
  saved = {
    "counted_on": key,
    "pixels": counts.pixels.tolist(),
    "pixels_where_present": counts.pixels_where_present.tolist(),
    "ignored": counts.ignored,
    # One bit per class and image: ADE20K's would be 40 MB as plain JSON.
    "present": [row.tobytes().hex() for row in packed],
  }
  fix = "name a --workdir that can be written"
  with errors.disk_errors(f"cannot write {path}", fix):
    atomic.write_json(path, saved)


def _saved(
  path: epath.Path, key: dict[str, Any], progress: Callable[[str], None]
) -> dict[str, Any] | None:
  """Return what a file keeps of counts; None: nothing, or of other masks."""
  if not path.exists():
    return None
  # A file that was cut off or has another format is as good as none.
  with contextlib.suppress(errors.InputError, KeyError, TypeError, ValueError):
    saved = text_files.read_json(path, fix="the masks are counted again")
    if saved["counted_on"] == key:
      _from_json(saved)
      return saved
  progress(f"{path} has counts of other masks: counting again")
  return None


def _from_json(saved: dict[str, Any]) -> ClassCounts:
  names = tuple(saved["counted_on"]["class_names"])
  rows = [np.frombuffer(bytes.fromhex(r), np.uint8) for r in saved["present"]]
  bits = np.unpackbits(np.stack(rows), axis=1, count=len(names))
  return ClassCounts(
    class_names=names,
    pixels=np.array(saved["pixels"], np.int64),
    pixels_where_present=np.array(saved["pixels_where_present"], np.int64),
    ignored=saved["ignored"],
    present=bits.astype(bool),
  )


def weights(
  counts: ClassCounts, rule: str, *, progress: Callable[[str], None] = print
) -> tuple[float, ...]:
  """Return the loss weight of each class.

  median_frequency (Eigen and Fergus, 1411.4734, 6.3.2; SegNet, 1511.00561):
  median(f) / f(c), where f(c) is the share of class c in the images that have
  it. enet (ENet, 1606.02147, 5.1): 1 / ln(1.02 + p(c)), where p(c) is its share
  in all images. Ignored pixels count in neither.

  Args:
    counts: Those of the training masks.
    rule: One of these two, or numbers as text, "0.5,1.0,2.0".
    progress: Receives a line if classes never occur.

  Raises:
    InputError: The rule is none of these, or no class ever occurs.
  """
  if rule not in RULES:
    return parse_weights(rule, len(counts.class_names))
  pixels = counts.pixels
  if not pixels.any():
    raise errors.InputError(
      "no mask has a pixel of any class: train.class_weights has nothing to "
      "count"
    )
  if rule == "enet":
    return tuple((1 / np.log(1.02 + pixels / pixels.sum())).tolist())
  occurs = pixels > 0
  frequency = pixels[occurs] / counts.pixels_where_present[occurs]
  result = np.zeros(len(pixels))
  result[occurs] = np.median(frequency) / frequency
  if not occurs.all():
    names = zip(counts.class_names, occurs.tolist(), strict=True)
    absent = ", ".join(name for name, is_there in names if not is_there)
    progress(f"class weight 0 for classes that are in no mask: {absent}")
  return tuple(result.tolist())


def parse_weights(text: str, num_classes: int) -> tuple[float, ...]:
  """Return the class weights that a text lists, "0.5,1.0,2.0".

  Raises:
    InputError: It is no such text, or not one number per class.
  """
  try:
    values = tuple(float(part) for part in text.split(","))
  except ValueError as error:
    raise errors.InputError(
      f"train.class_weights {text!r} is not none, {', '.join(RULES)}, or one "
      'number per class as text, "0.5,1.0,2.0"'
    ) from error
  if len(values) != num_classes:
    raise errors.InputError(
      f"train.class_weights has {len(values)} numbers for {num_classes} "
      f"classes: give one for each, or one of {', '.join(RULES)}"
    )
  if not all(0 <= v < math.inf for v in values) or not any(values):
    raise errors.InputError(
      f"train.class_weights {text!r}: each must be 0 or more, and one above 0"
    )
  return values


def duplicated(counts: ClassCounts, class_names: Sequence[str]) -> np.ndarray:
  """Return the indices of all images, twice where one of the classes occurs.

  v3 lists images of hard classes twice (1706.05587, 4.1).

  Raises:
    InputError: A name is no class.
  """
  have = counts.class_names
  for name in class_names:
    if name not in have:
      near = difflib.get_close_matches(name, have, n=3) or list(have)
      raise errors.InputError(
        f"data.duplicate_classes: no class {name!r}; the nearest are {near}"
      )
  chosen = [have.index(name) for name in class_names]
  rare = counts.present[:, chosen].any(axis=1)
  return np.repeat(np.arange(counts.images), 1 + rare)
