"""How long a lattice's arrays are, so that few lengths serve many images.

Each length is a program to compile, and all of an array is filtered, used or
not. The first image chooses lengths that are a little longer than its own. The
first that does not fit chooses others, long enough for most photographs. An
image takes the shortest lengths that it fits into. So two programs serve images
of many sizes, and most of them in little more than their own time.
"""

import math

from deeplax.crf import lattice as lattice_lib

Lengths = lattice_lib.Lengths

# Head-room of the first image, and of one that does not fit.
FIRST, LATER = 1.2, 1.45
# Vertices and chunks for each pixel, at least, of an image that does not fit.
# Photographs have 0.3 to 1.4 and 0.4 to 0.7.
VERTICES, CHUNKS = 1.2, 0.6
# Lengths of so many times an image's own are too long for it.
MOST = 4
# Lengths are multiples of this.
UNIT = 1024

_chosen: list[Lengths] = []
_of_positions: dict[tuple[float, int], Lengths] = {}


def lengths(used: Lengths) -> Lengths:
  """Return the lengths of arrays for an image's kernel of position and color.

  They are those chosen before in this process, if an image fits into them.
  """
  near = [x for x in _chosen if sum(x) <= MOST * sum(used)]
  fitting = [x for x in near if _fits(used, x)]
  if fitting:
    return min(fitting, key=sum)
  if near:
    pixels = _longer(max(used.pixels, near[0].pixels / FIRST), LATER)
    chosen = Lengths(
      pixels,
      max(_longer(used.vertices, LATER), _longer(pixels, VERTICES)),
      max(_longer(used.chunks, LATER), _longer(pixels, CHUNKS)),
    )
  else:
    chosen = Lengths(*(_longer(x, FIRST) for x in used))
  _chosen.append(chosen)
  return chosen


def of_positions(used: Lengths, *, sigma: float | int, pixels: int) -> Lengths:
  """Return the lengths for a kernel of positions, padded to so many pixels.

  The first image chooses them: large images have hardly more vertices for each
  pixel than small ones.
  """
  chosen = _of_positions.get((sigma, pixels))
  if chosen is None or not _fits(used, chosen):
    times = pixels / used.pixels * 1.05
    chosen = Lengths(pixels, *(_longer(x, times) for x in used[1:]))
    _of_positions[sigma, pixels] = chosen
  return chosen


def _fits(used: Lengths, into: Lengths) -> bool:
  return all(x <= y for x, y in zip(used, into, strict=True))


def _longer(count: float | int, times: float | int) -> int:
  return math.ceil(count * times / UNIT) * UNIT
