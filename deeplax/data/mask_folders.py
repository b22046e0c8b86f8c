"""Pair the predicted and the true masks of two folders, and score them."""

import argparse
from functools import partial
import pathlib
from typing import Any, NamedTuple

import cv2
import numpy as np

from deeplax import atomic
from deeplax import errors
from deeplax.data import classes_json
from deeplax.data import decoding
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import label_tables
from deeplax.data import name_lists
from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data import walk
from deeplax.data.checks import mask_counts
from deeplax.labels import IGNORE_LABEL
from deeplax.metrics import confusion
from deeplax.metrics import measures

# Ends of names: of the masks that deeplax.predict writes, and of the pictures
# beside them, which are PNGs if they are very long.
PREDICTED = "_mask"
OVERLAY = "_overlay"
# Ends of names in Cityscapes' leftImg8bit/ and gtFine/.
IMAGE = "_leftImg8bit"
TRAIN_IDS, IDS = "_labelTrainIds", "_labelIds"
SHOWN = 3  # names in a message


class Classes(NamedTuple):
  """The classes of masks, and where they are.

  Attributes:
    spec: The classes.
    table: The label of each number in the true masks.
    ending: The end of the true masks' names, before the suffix; "": any.
  """

  spec: spec_lib.Spec
  table: label_tables.Table
  ending: str = ""


class MaskPair(NamedTuple):
  """A predicted mask and the true one."""

  prediction: pathlib.Path
  label: pathlib.Path


def run(args: argparse.Namespace) -> None:
  """Score the masks that the flags of `deeplax.score` name."""
  if args.dataset:
    classes = published_classes(args.dataset, args.labels)
  else:
    classes = own_classes(args.classes, args.labels)
  folders, ending = (args.predictions, args.labels), classes.ending
  result = score(
    pairs(*folders, ending=ending, listed=args.list),
    classes,
    measured=measures.from_flags(args),
    threads=args.threads,
  )
  print(measures.table(result, classes.spec.class_names))
  summary = f"{result['images']} images"
  if args.out:
    with errors.disk_errors(f"cannot write {args.out}", "give another --out"):
      atomic.write_json(args.out, result)
    summary += f"; {args.out}"
  print(summary)


def published_classes(name: str, labels: pathlib.Path) -> Classes:
  """Return the classes of a published data set.

  Args:
    name: One of `spec.SPECS`.
    labels: Its folder of masks, of which Cityscapes has several kinds in one.
  """
  spec = spec_lib.SPECS[name]
  ending = ""
  if name == "cityscapes":
    stems = [path.stem for path in pngs(labels, "labels")]
    for kind in (IDS, TRAIN_IDS):
      if any(stem.endswith(kind) for stem in stems):
        ending = kind
  return Classes(spec, published.mask_table(name, ids=ending == IDS), ending)


def own_classes(path: pathlib.Path | None, labels: pathlib.Path) -> Classes:
  """Return the classes of a classes.json.

  Args:
    path: The file; None: the one in `labels`, or up to two folders above.
    labels: The folder of masks.

  Raises:
    InputError: The file is missing, or not as it must be.
  """
  if path is None:
    places = [labels, *labels.resolve().parents[:2]]
    candidates = (p / folder.CLASSES for p in places)
    path = next((p for p in candidates if p.is_file()), None)
  if path is None:
    raise errors.InputError(
      f"no {folder.CLASSES} in {labels} or two folders above: name the classes "
      f"by --classes=FILE, or by --dataset={'|'.join(spec_lib.SPECS)}"
    )
  return Classes(*classes_json.read(path))


def pairs(
  predictions: pathlib.Path,
  labels: pathlib.Path,
  *,
  ending: str = "",
  listed: pathlib.Path | None = None,
) -> list[MaskPair]:
  """Return the pairs of masks in two folders, by name.

  Args:
    predictions: A folder of PNGs, with any sub-folders.
    labels: Another one.
    ending: The end of the true masks' names: others are left out. The name is
      what stands before it, without the "gtFine" of Cityscapes.
    listed: A list of names, one a line: only these are paired, and all must
      exist. A line may also name the file of a mask.

  Raises:
    InputError: A folder has no masks, or a mask has no partner; or the list has
      a name twice.
  """
  predicted = by_name(predictions, PREDICTED, "predictions")
  true = by_name(labels, ending, "labels")
  # With a list, masks that it does not name may lack a partner.
  if listed is None:
    _refuse_single(predicted.keys() - true.keys(), predicted, labels, "label")
    wanted = sorted(true)
  else:
    wanted = name_lists.read(listed, true, partial(_named_by_file, ending))
    if lost := [name for name in wanted if name not in true]:
      raise errors.InputError(
        f"{listed}: no label in {labels} is called {lost[0]!r} ({len(lost)} of "
        f"{len(wanted)} names). A line is one whole name, with its sub-folder, "
        f"as {min(true)!r}"
      )
  _refuse_single(
    set(wanted) - predicted.keys(), true, predictions, "prediction"
  )
  return [MaskPair(predicted[name], true[name]) for name in wanted]


def by_name(
  root: pathlib.Path, ending: str, what: str
) -> dict[str, pathlib.Path]:
  """Return {path below root without suffix and ending: file} of all PNGs.

  Args:
    root: A folder, with any sub-folders.
    ending: The end of the names; files without it are left out, unless it is
      PREDICTED.
    what: A word for the files, for messages.

  Raises:
    InputError: The folder has none, or two of one name.
  """
  paths = pngs(root, what)
  if ending != PREDICTED:
    paths = [path for path in paths if path.stem.endswith(ending)]
  else:
    masks = {*paths}
    paths = [path for path in paths if _mask_beside(path) not in masks]
  if not paths:
    raise errors.InputError(
      f"{root} holds no *{ending if ending != PREDICTED else ''}.png: {what} "
      "are PNGs of one number per pixel"
    )
  result: dict[str, pathlib.Path] = {}
  for path in paths:
    name = _name(path.relative_to(root), ending)
    if name in result:
      raise errors.InputError(
        f"{result[name]} and {path} are both {what} of {name!r}: remove one"
      )
    result[name] = path
  return result


def _mask_beside(path: pathlib.Path) -> pathlib.Path | None:
  """Return the mask beside which deeplax.predict writes such an overlay."""
  if not path.stem.endswith(OVERLAY):
    return None
  return path.with_stem(path.stem.removesuffix(OVERLAY) + PREDICTED)


def pngs(root: pathlib.Path, what: str) -> list[pathlib.Path]:
  """Return all PNGs below a folder.

  Raises:
    InputError: There is no such folder.
  """
  if not root.is_dir():
    raise errors.InputError(f"no folder {root} of {what}: name one")
  return [p for p in walk.files(root) if p.suffix.lower() == ".png"]


def _name(path: pathlib.PurePath, ending: str) -> str:
  """Return the name of a mask: its path without suffix and endings."""
  stem = path.stem.removesuffix(ending)
  for extra in (IMAGE, "_gtFine", "_gtCoarse"):
    stem = stem.removesuffix(extra)
  return walk.key(path.parent / stem)


def _named_by_file(ending: str, line: str) -> tuple[str, ...]:
  """Return the name of the mask whose file a line names, or nothing."""
  path = pathlib.PurePosixPath(line)
  if path.suffix.lower() not in walk.PICTURES:
    return ()
  return (_name(path, ending),)


def _refuse_single(
  names: set[str],
  paths: dict[str, pathlib.Path],
  root: pathlib.Path,
  what: str,
) -> None:
  if not names:
    return
  first = [str(paths.get(n, n)) for n in sorted(names)[:SHOWN]]
  more = " and more" if len(names) > SHOWN else ""
  raise errors.InputError(
    f"{len(names)} without a {what} in {root}: {', '.join(first)}{more}. Each "
    "prediction NAME_mask.png (or NAME.png) needs its NAME.png in the labels, "
    "in a sub-folder of the same name; --list=FILE scores some names only"
  )


def decode(pair: MaskPair, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
  """Return truth (255: ignored) and prediction of a pair.

  Raises:
    InputError: A file is no mask, sizes differ, or a number is no class.
  """
  colors = classes.table.colors
  label, prediction = map(files.read_bytes, (pair.label, pair.prediction))
  raw = decoding.decode_label(label, str(pair.label), colors)
  # Predictions are numbers as a rule, with a palette perhaps.
  if not decoding.is_colored_png(prediction):
    colors = None
  predicted = decoding.decode_label(prediction, str(pair.prediction), colors)
  truth = label_tables.apply(raw, classes.table)
  if truth.shape != predicted.shape:
    sizes = [f"{x.shape[0]}x{x.shape[1]}" for x in (predicted, truth)]
    raise errors.InputError(
      f"{pair.prediction} is {sizes[0]} (height x width) but {pair.label} is "
      f"{sizes[1]}: predict at the label's own size. If it must be resized, "
      "then by the nearest neighbor"
    )
  k, name = classes.spec.num_classes, classes.spec.name
  _refuse_values(
    raw, truth == label_tables.ILLEGAL, pair.label, f"in the masks of {name}"
  )
  # What is predicted of ignored pixels does not count, whatever its number.
  wrong = (predicted < 0) | (predicted >= k)
  wrong &= truth != IGNORE_LABEL
  _refuse_values(
    predicted, wrong, pair.prediction, f"of {name}, which has 0 to {k - 1}"
  )
  return truth, predicted


def _refuse_values(
  values: np.ndarray, wrong: np.ndarray, path: pathlib.Path, where: str
) -> None:
  if wrong.any():
    numbers = np.unique(values[wrong])
    shown = ", ".join(str(v) for v in numbers[:8].tolist())
    raise errors.InputError(
      f"{path} has values {shown}{', ...' if len(numbers) > 8 else ''} "
      f"({wrong.mean():.1%} of its pixels), no class {where}. Name the right "
      "classes by --classes or --dataset, or write class indices: a palette "
      "PNG read as gray, for example, has lost them"
    )


def score(
  pairs: list[MaskPair],
  classes: Classes,
  *,
  measured: measures.Measures = measures.CONFUSION_ONLY,
  threads: int = 4,
) -> dict[str, Any]:
  """Return the scores of masks, as `evaluate.evaluate` does of a predictor.

  Raises:
    InputError: As for `decode`, or no pixel has a label.
  """
  k, names = classes.spec.num_classes, classes.spec.class_names

  def count(index: int) -> tuple[np.ndarray, measures.Counts]:
    truth, predicted = decode(pairs[index], classes)
    return (
      confusion.count(truth, predicted, k),
      measures.count(truth, predicted, k, measured),
    )

  matrix, counts = np.zeros((k, k), np.int64), measures.empty(k, measured)
  cv2.setNumThreads(1)  # the threads work on different images
  counted = mask_counts.each(
    count, range(len(pairs)), threads=threads, progress=print, name="scored"
  )
  for pair_matrix, pair_counts in counted:
    matrix, counts = (
      confusion.add(matrix, pair_matrix),
      measures.add(counts, pair_counts),
    )
  try:
    result = confusion.scores(matrix, names)
  except ValueError as error:
    raise errors.InputError(f"{pairs[0].label.parent}: {error}") from error
  result |= measures.scores(counts, names, measured)
  return result | {"images": len(pairs), "split_images": len(pairs)}
