"""Which parts of a network start from a file, and which start anew.

Parts are the top level of the parameters: backbone, head, decoder, logits and,
in training, auxiliary.
"""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import re
from typing import Any

import flax.traverse_util
import numpy as np

from deeplax import errors
from deeplax.models import variables as variables_lib
from deeplax.pretrained import rules
from deeplax.pretrained import summary

BACKBONE = "backbone"
# Each reads the output of the one before it.
ORDER = ("head", "decoder", "logits")
# Prediction does not use this part: a file without it is complete.
TRAINING_ONLY = "auxiliary"


@dataclasses.dataclass
class Start:
  """The variables that a network starts from, and their origins.

  Attributes:
    variables: {"params", "batch_stats"}.
    loaded: Paths of those from the file, for all classes or for some.
    new: Paths of those that were drawn.
    left_out: Names in the file that are not used.
    folded: Modules whose norm was folded into the kernel.
    subsampled: Arrays of the file of which a part was taken, with the shapes.
    by_name: (class, whether its logits are from the file) where the classes
      were matched by name; else empty.
    prefix: The prefix that was taken off the file's names.
  """

  variables: dict[str, Any]
  loaded: list[rules.Path]
  new: list[rules.Path]
  left_out: list[str]
  folded: list[rules.Path]
  subsampled: list[str]
  by_name: list[tuple[str, bool]]
  prefix: str = ""


def start(
  loaded: rules.Loaded,
  drawn: Mapping[str, Any],
  *,
  class_names: Sequence[str],
  class_paths: Collection[rules.Path],
  source_classes: Sequence[str] | None = None,
  new: Collection[str] = (),
  transparent: bool = False,
) -> Start:
  """Return what a network starts from: the file's arrays, the rest drawn.

  With a file of a backbone alone the other parts are new, and with an ImageNet
  network that has fully connected layers the class scores. Logits of another
  number of classes are new; with `source_classes`, those of each class whose
  name both have are carried over.

  Args:
    loaded: The arrays of the file.
    drawn: Initial variables of the network.
    class_names: Classes of the network.
    class_paths: Paths of the arrays whose last axis is the classes.
    source_classes: Classes of the file, in the order of its logits.
    new: Parts that start anew whatever the file holds for them, and with them
      the parts that read them; names that no other part needs are left out.
    transparent: Whether a new decoder passes the head's output through, so that
      the file's logits can read it.

  Raises:
    InputError: Anything else does not fit.
  """
  fresh = variables_lib.flat_arrays(drawn)
  skipped, absent = _skipped(loaded, fresh, new, transparent)
  columns = _columns(class_names, source_classes or ())
  values, missing = dict(loaded.values), dict(loaded.missing)
  misfits = {misfit.path: misfit for misfit in loaded.misfits}
  for path in loaded.scores:
    del missing[path]
  for path in fresh:
    if path[1] in skipped:
      for items in (values, missing, misfits):
        items.pop(path, None)
  _carry_scores(values, misfits, fresh, class_paths, source_classes, columns)
  rest = dataclasses.replace(
    loaded,
    missing=missing,
    misfits=[*misfits.values()],
    unused=[] if new else loaded.unused,
  )
  if wrong := summary.differences(rest):
    raise errors.InputError(wrong + _advice(absent - skipped))

  names = {m.path: (m.name,) for m in loaded.misfits} | loaded.names
  dropped = [n for p in names if p not in values for n in names[p]]
  return Start(
    variables={"batch_stats": {}}
    | flax.traverse_util.unflatten_dict(fresh | values),
    loaded=[path for path in fresh if path in values],
    new=[path for path in fresh if path not in values],
    left_out=loaded.left_out + dropped + (loaded.unused if new else []),
    folded=[m for m in loaded.folded if m[0] not in skipped],
    subsampled=[] if "head" in skipped else loaded.subsampled,
    by_name=[]
    if source_classes is None or values.keys().isdisjoint(class_paths)
    else [(name, i in columns) for i, name in enumerate(class_names)],
    prefix=loaded.prefix,
  )


def of_variables(
  variables: Mapping[str, Any], wanted: Mapping[rules.Path, rules.Shape]
) -> rules.Loaded:
  """Return the variables of one deeplax network that fit another."""
  loaded, arrays = rules.Loaded(), variables_lib.flat_arrays(variables)
  for path, shape in wanted.items():
    name = summary.path(path)
    if path not in arrays:
      loaded.missing[path] = (name,)
      continue
    value = arrays.pop(path).astype(np.float32)
    if value.shape == shape:
      loaded.values[path], loaded.names[path] = value, (name,)
    else:
      reason = f"has shape {value.shape}, needs {shape}"
      near = value.shape[:-1] == shape[:-1]
      loaded.misfits.append(
        rules.Misfit(path, name, reason, value if near else None)
      )
  for path in arrays:
    out = loaded.left_out if path[1] == TRAINING_ONLY else loaded.unused
    out.append(summary.path(path))
  return loaded


def other_classes(
  loaded: rules.Loaded, class_paths: Collection[rules.Path]
) -> set[int]:
  """Return the number of classes of a file's scores, where it differs."""
  return {
    misfit.value.shape[-1]
    for misfit in loaded.misfits
    if misfit.value is not None and misfit.path in class_paths
  }


def _skipped(
  loaded: rules.Loaded,
  fresh: Mapping[rules.Path, np.ndarray],
  new: Collection[str],
  transparent: bool,
) -> tuple[set[str], set[str]]:
  """Return the parts that start anew, and those of which the file has none."""
  have = {path[1] for path in fresh}
  if unknown := sorted(set(new) - have):
    raise errors.InputError(f"--new: {unknown} not in {sorted(have)}")
  absent = have - {path[1] for path in fresh if path not in loaded.missing}
  skipped = set(new) | (absent & {TRAINING_ONLY})
  opaque = [part for part in ORDER if part in new]
  if opaque and not (transparent and opaque == ["decoder"]):
    skipped |= {*ORDER[ORDER.index(opaque[0]) :]} & have
  others = have - {BACKBONE, TRAINING_ONLY}
  return skipped | (others if others <= absent else set()), absent


def _carry_scores(
  values: dict[rules.Path, np.ndarray],
  misfits: dict[rules.Path, rules.Misfit],
  fresh: Mapping[rules.Path, np.ndarray],
  class_paths: Collection[rules.Path],
  source_classes: Sequence[str] | None,
  columns: Mapping[int, int],
) -> None:
  """Carry class scores over by name, or leave those of other classes new.

  Changes `values`, and removes from `misfits` the paths that are settled here.
  """
  for path in class_paths:
    scores = misfits[path].value if path in misfits else values.get(path)
    if scores is None:
      continue
    misfits.pop(path, None)
    values.pop(path, None)
    if source_classes is not None:
      _check_classes(source_classes, scores)
      values[path] = fresh[path].copy()
      values[path][..., [*columns]] = scores[..., [*columns.values()]]
    elif scores.shape == fresh[path].shape:
      values[path] = scores


def _columns(
  class_names: Sequence[str], source_classes: Sequence[str]
) -> dict[int, int]:
  """Return {class: its place in the source} of the names both have."""
  places = {_plain(name): i for i, name in enumerate(source_classes)}
  return {
    i: places[_plain(name)]
    for i, name in enumerate(class_names)
    if _plain(name) in places
  }


def _plain(name: str) -> str:
  """Return a class name without case, spaces and punctuation."""
  return re.sub(r"[\W_]+", "", name).casefold()


def _check_classes(source_classes: Sequence[str], logits: np.ndarray) -> None:
  if len(source_classes) != logits.shape[-1]:
    raise errors.InputError(
      f"--source_classes has {len(source_classes)} names and the file logits "
      f"of {logits.shape[-1]} classes; give one name for each, in its order"
    )


def _advice(absent: Collection[str]) -> str:
  """Return advice on the parts that the file does not have."""
  if BACKBONE in absent:
    return (
      "\nThe file has nothing of the backbone: does config.model.backbone name "
      "its network, and --source its program?"
    )
  if not absent:
    return ""
  parts = ",".join(sorted(absent))
  return (
    f"\nThe file has nothing for {parts}: describe its network in "
    f"config.model, or draw these parts anew with --new={parts}"
  )
