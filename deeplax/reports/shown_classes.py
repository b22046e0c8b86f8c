"""The classes that predictions show: all of a run, or those of --classes."""

from collections.abc import Mapping
import difflib
from typing import NamedTuple

import numpy as np

from deeplax import errors
from deeplax.data import spec as spec_lib
from deeplax.labels import IGNORE_LABEL

# Largest classes in a line of text; a picture of a street has some ten.
NAMED = 5
_ROWS = 256  # that are counted at a time: a copy of a large mask takes memory


class Shown(NamedTuple):
  """The classes to show.

  Attributes:
    spec: Names and colors of all.
    kept: Labels of those to show; None: all.
  """

  spec: spec_lib.Spec
  kept: frozenset[int] | None = None

  @property
  def untinted(self) -> frozenset[int]:
    """Labels whose pixels stay as they are in an overlay."""
    if self.kept is not None:
      return frozenset({IGNORE_LABEL})
    return self.spec.backgrounds

  def filtered(self, labels: np.ndarray) -> np.ndarray:
    """Return labels with 255 in place of what is not to be shown."""
    if self.kept is None:
      return labels
    table = np.full(max(256, self.spec.num_classes), IGNORE_LABEL, labels.dtype)
    kept = sorted(self.kept)
    table[kept] = kept
    return table[labels]

  def shares(self, labels: np.ndarray) -> dict[int, float]:
    """Return the share of the pixels of each shown class that occurs.

    They are shares of all pixels, 0 to 1, the largest first.
    """
    size = max(256, self.spec.num_classes)
    counts = np.zeros(size, np.int64)
    for top in range(0, len(labels), _ROWS):
      rows = labels[top : top + _ROWS]
      counts += np.bincount(rows.ravel(), minlength=size)
    found = {
      i: counts[i] / labels.size
      for i in np.flatnonzero(counts[: self.spec.num_classes]).tolist()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))

  def line(self, shares: Mapping[int, float]) -> str:
    """Return shares as text: "road 41.3%, person 2.1% and 4 more"."""
    names = self.spec.class_names
    parts = [f"{names[i]} {percent(s)}" for i, s in shares.items()]
    more = f" and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    return ", ".join(parts[:NAMED]) + more or "none of the classes asked for"


def of_flag(text: str | None, spec: spec_lib.Spec) -> Shown:
  """Return the classes that --classes names.

  Args:
    text: The flag's value, names with commas between; None: all classes.
    spec: Of the run.

  Raises:
    InputError: A name is no class of the run.
  """
  if text is None:
    return Shown(spec)
  known = {_simple(name): i for i, name in enumerate(spec.class_names)}
  kept = set()
  for part in text.split(","):
    if _simple(part) not in known:
      near = difflib.get_close_matches(_simple(part), known, n=1)
      names = spec.class_names
      hint = f" (did you mean {names[known[near[0]]]!r}?)" if near else ""
      shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
      raise errors.InputError(
        f"--classes={text}: the run has no class {part.strip()!r}{hint}; its "
        f"classes are {shown}"
      )
    kept.add(known[_simple(part)])
  return Shown(spec, frozenset(kept))


def _simple(name: str) -> str:
  """Return a name as it is compared: "Traffic  Light" is "traffic light"."""
  return " ".join(name.split()).casefold()


def percent(share: float) -> str:
  """Return a share of pixels as "41.3%"; a small one is not nothing."""
  return f"{share:.1%}" if share >= 0.001 or not share else "<0.1%"
