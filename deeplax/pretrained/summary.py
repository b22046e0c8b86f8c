"""Text about the arrays of a file and the model that they are for."""

import collections
from collections.abc import Sequence
import re
from typing import Any

from deeplax.pretrained import rules

_COUNTER = re.compile(r"(.*\.)?num_batches_tracked|global_step")
LONGEST = 200  # letters of a name
SHOWN = 10  # names in a list; the rest is counted


def names(items: Sequence[str]) -> str:
  """Return the first names and the number of the others."""
  shown = ", ".join(i[:LONGEST] for i in items[:SHOWN])
  rest = len(items) - SHOWN
  return f"{shown} and {rest} more" if rest > 0 else shown


def path(path: rules.Path) -> str:
  """Return a parameter's path as parameters.txt writes it."""
  return "/".join(path[1:])


def differences(loaded: rules.Loaded) -> str:
  """Return a line for each kind of array that does not fit; empty: all fit."""
  missing = []
  for where, wanted in loaded.missing.items():
    missing += wanted or [f"(no name for {path(where)})"]
  groups = {
    "missing": list(dict.fromkeys(missing)),
    "of another shape or kind": [
      f"{misfit.name} {misfit.reason}" for misfit in loaded.misfits
    ],
    "unused": loaded.unused,
  }
  return "\n".join(
    f"  {title} ({len(items)}): {names(items)}"
    for title, items in groups.items()
    if items
  )


def origins(start: Any, *, seed: int) -> str:
  """Return lines on the origins of the variables of a `partial.Start`."""
  rows = {
    "loaded": f"{len(start.loaded)} arrays{_by_part(start.loaded)}",
    "left out": _left_out(start.left_out),
    "new": f"{len(start.new)} arrays{_by_part(start.new)}",
  }
  if start.prefix:
    rows["prefix"] = f"{start.prefix} was taken off the names"
  if start.new:
    rows["new"] += f", drawn from seed {seed}"
  if start.subsampled:
    rows["subsampled"] = f"{len(start.subsampled)}{_listed(start.subsampled)}"
  if start.folded:
    rows["norms"] = (
      f"{len(start.folded)} were folded into their kernels: each is set so "
      "that the function is the same"
    )
  if start.by_name:
    carried = [name for name, from_file in start.by_name if from_file]
    fresh = [name for name, from_file in start.by_name if not from_file]
    rows["classes"] = f"{len(carried)} by name{_listed(carried)}"
    rows["new classes"] = f"{len(fresh)}{_listed(fresh)}"
  return "\n".join(f"  {key:<12}{text}" for key, text in rows.items())


def _left_out(items: Sequence[str]) -> str:
  """Return the text about arrays left out; counters come last."""
  counters = [name for name in items if _COUNTER.fullmatch(name)]
  weights = [name for name in items if name not in {*counters}]
  text = f"{len(weights)} arrays{_listed(weights)}"
  if counters:
    text += f"; {len(counters)} counters of training steps"
  return text


def _by_part(paths: Sequence[rules.Path]) -> str:
  """Return ": backbone 260, head 12", or nothing for nothing."""
  counts = collections.Counter(path[1] for path in paths)
  text = ", ".join(f"{part} {count}" for part, count in counts.items())
  return f": {text}" if text else ""


def _listed(items: Sequence[str]) -> str:
  return f": {names(items)}" if items else ""
