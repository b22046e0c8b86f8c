"""Prefixes that programs put in front of the names of a network's arrays.

module. of DistributedDataParallel, _orig_mod. of torch.compile, model. or net.
of a training script's own class, and the keys of a checkpoint that holds the
network beside its average: state_dict., ema. None of these is listed here: a
prefix is any start of a name that ends in a name of the network.
"""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from deeplax import errors
from deeplax.pretrained import archives

_ENDS = "./"  # of a prefix: in a state dict, in TensorFlow


class Stripped(NamedTuple):
  """The arrays of one network.

  Attributes:
    arrays: Arrays by name, without the prefix.
    prefix: The prefix that was taken off, with its dot; empty: none.
    outside: Names of the other arrays, which do not begin with it.
  """

  arrays: archives.Weights
  prefix: str
  outside: list[str]


def without(arrays: archives.Weights, wanted: Collection[str]) -> Stripped:
  """Return the arrays without the prefix of the names that are wanted.

  The prefix is taken off only if that gives more wanted names, and if at least
  half of the names that have it are wanted.

  Raises:
    InputError: Two prefixes lead to the network, as of a teacher and a student.
  """
  counts = Counter({"": 0})
  for name in arrays:
    for prefix in _prefixes(name):
      counts[prefix] += name[len(prefix) :] in wanted
  best = max(counts, key=lambda prefix: (counts[prefix], -len(prefix)))
  inside = [name for name in arrays if name.startswith(best)]
  if counts[best] == counts[""] or 2 * counts[best] < len(inside):
    return Stripped(dict(arrays), "", [])
  rivals = [
    prefix
    for prefix, count in counts.items()
    if 2 * count > counts[best]
    and not (prefix.startswith(best) or best.startswith(prefix))
  ]
  if rivals:
    several = [best, *rivals][:5]
    listing = ", ".join(f"{p} ({counts[p]} arrays)" for p in several)
    choice = " or ".join(f"--under={p.rstrip(_ENDS)}" for p in several)
    raise errors.InputError(
      f"The file holds the network more than once: {listing}. Choose the one "
      f"that deeplax.convert reads: {choice}"
    )
  return below(arrays, best)


def below(arrays: archives.Weights, prefix: str) -> Stripped:
  """Return the arrays whose names begin with a prefix, without it.

  Args:
    arrays: By name.
    prefix: With its dot or slash, or without.

  Raises:
    InputError: No name begins with the prefix.
  """
  for start in (prefix.rstrip(_ENDS) + end for end in _ENDS):
    inside = {
      name.removeprefix(start): array
      for name, array in arrays.items()
      if name.startswith(start)
    }
    if inside:
      outside = [name for name in arrays if not name.startswith(start)]
      return Stripped(inside, start, outside)
  starts = sorted({p for name in arrays for p in _prefixes(name)[1:2]})
  raise errors.InputError(
    f"--under={prefix}: no name of an array begins with it; names begin with "
    f"{', '.join(starts[:10]) or 'no word and dot'}"
  )


def _prefixes(name: str) -> list[str]:
  ends = [i + 1 for i, letter in enumerate(name[:-1]) if letter in _ENDS]
  return ["", *(name[:end] for end in ends)]
