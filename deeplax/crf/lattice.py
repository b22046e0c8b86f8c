"""The permutohedral lattice of some pixels, built on the host by NumPy.

Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral
lattice" (2010). A pixel with d features lies in one simplex of the lattice and
has d + 1 weights, one for each corner of the simplex. A Gaussian filter has
three steps: splat (each vertex sums its pixels), blur along the d + 1 axes of
the lattice, and slice (each pixel sums its corners). All three are linear in
the filtered values and depend on the features alone. So indices and weights are
computed once for an image, and `filtering.apply` uses them any number of times.

Features are rounded to a simplex in float32 and in the order of Krahenbuhl and
Koltun's program, so that a pixel on a border falls to the same side as there.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

from jaxtyping import Bool, Float, Float32, Int, Int8, Int64
import numpy as np

from deeplax.arrays import Arrays

# In a photograph half of the vertices have one pixel and four fifths at most
# four: so many pixels of each vertex are gathered, in a row for each vertex.
DIRECT = 4
# The other pixels, half of all, belong to few vertices. They are gathered in
# rows of this many, which are then added to their vertices.
CHUNK = 8
# Farther from the origin than this, in cells, float32 cannot hold the weights.
FARTHEST = 2**20


class Lengths(NamedTuple):
  """How many pixels, vertices and chunks there are, or fit into the arrays."""

  pixels: int
  vertices: int
  chunks: int


class Lattice(NamedTuple):
  """A filter of n pixels with d features over v vertices.

  Vertex 0 means "no vertex" and holds zeros. Unused places have weight 0.

  Attributes:
    corners: The d + 1 vertices of each pixel.
    weights: Of the corners, with the filter's normalization.
    pixels: The first pixels of each vertex.
    pixel_weights: Their entries of `weights`.
    chunk_pixels: Further pixels of vertices with many pixels.
    chunk_weights: Their entries of `weights`.
    chunk_vertex: The vertex of each chunk, ascending.
    neighbors: The vertices on both sides along each axis.
  """

  corners: Int[Arrays, "*b d1 n"]
  weights: Float[Arrays, "*b d1 n"]
  pixels: Int[Arrays, "*b direct v"]
  pixel_weights: Float[Arrays, "*b direct v"]
  chunk_pixels: Int[Arrays, "*b chunk t"]
  chunk_weights: Float[Arrays, "*b chunk t"]
  chunk_vertex: Int[Arrays, "*b t"]
  neighbors: Int[Arrays, "*b d1 2 v"]


def bucket(count: int) -> int:
  """Return an array's length for `count` rows: 0, or 8..15 times a power of 2.

  At most an eighth of it is unused, and there are few lengths to compile for.
  """
  if count <= 8:
    return 8 if count else 0
  unit = 1 << ((count - 1).bit_length() - 4)
  return -(-count // unit) * unit


def shortest(used: Lengths) -> Lengths:
  """Return the lengths of arrays that hold little more than is used."""
  return Lengths(*map(bucket, used))


def build(
  features: Float32[np.ndarray, "d n"],
  *,
  mask: Bool[np.ndarray, " n"] | None = None,
  raster: bool = False,
  lengths: Callable[[Lengths], Lengths] = shortest,
) -> Lattice:
  """Return the lattice of some pixels.

  Args:
    features: Two or more of each pixel, divided by their standard deviations.
    mask: Where False, a pixel is left out: it gives and receives nothing.
    raster: Number the vertices in the order of their first pixels. The filter
      is the same, faster by a sixth if features are positions, slower with
      colors.
    lengths: Chooses the lengths of the arrays by what is used.

  Raises:
    ValueError: A feature is not finite or too far from 0 for float32.
  """
  d, n = features.shape
  pixels = np.arange(n)
  if mask is not None:
    pixels = np.flatnonzero(mask)
    features = features[:, pixels]
  # No coordinate, in cells, is more than d + 1 times the largest feature.
  if features.size and not np.abs(features).max() * (d + 1) < FARTHEST:
    raise ValueError(
      f"features reach {np.abs(features).max():.3g} standard deviations, and "
      f"float32 allows {FARTHEST // (d + 1)}: use a larger sigma"
    )
  if not pixels.size:
    return _empty(d, lengths(Lengths(n, vertices=1, chunks=0)))
  cell, order, weights = _simplex(features)
  item, start, counts = _sorted_items(cell, order)
  met = np.argsort(item[start]) if raster else np.arange(start.size)
  number = np.empty(start.size, np.int32)
  number[met] = np.arange(1, start.size + 1)
  corners = np.empty(item.size, np.int32)
  corners[item] = np.repeat(number, counts)
  start, counts = start[met], counts[met]
  corners = np.ascontiguousarray(corners.reshape(-1, d + 1).T)
  neighbors = _neighbors(*_vertex(cell, order, item[start]))
  weights = weights * _normalization(corners, weights, neighbors)

  chunks = -(-np.maximum(counts - DIRECT, 0) // CHUNK)
  used = Lengths(n, vertices=start.size + 1, chunks=int(chunks.sum()))
  lattice = _empty(d, lengths(used))
  lattice.corners[:, pixels] = corners
  lattice.weights[:, pixels] = weights
  lattice.neighbors[:, :, : start.size + 1] = neighbors
  weights = np.ascontiguousarray(weights.T).ravel()
  _list_pixels(lattice, item, start, counts, weights, pixels)
  return lattice


def stack(lattices: list[Lattice]) -> Lattice:
  """Return one lattice with a leading batch axis."""
  columns = []
  for name, *arrays in zip(Lattice._fields, *lattices, strict=True):
    length = max(array.shape[-1] for array in arrays)
    padded = []
    for array in arrays:
      more = length - array.shape[-1]
      # Chunks stay in ascending order of their vertices.
      ends = (more, 0) if name.startswith("chunk") else (0, more)
      sides = [(0, 0)] * (array.ndim - 1)
      padded.append(np.pad(array, [*sides, ends]))
    columns.append(np.stack(padded))
  return Lattice(*columns)


def _empty(d: int, lengths: Lengths) -> Lattice:
  pixels, vertices, chunks = lengths
  return Lattice(
    corners=np.zeros((d + 1, pixels), np.int32),
    weights=np.zeros((d + 1, pixels), np.float32),
    pixels=np.zeros((DIRECT, vertices), np.int32),
    pixel_weights=np.zeros((DIRECT, vertices), np.float32),
    chunk_pixels=np.zeros((CHUNK, chunks), np.int32),
    chunk_weights=np.zeros((CHUNK, chunks), np.float32),
    chunk_vertex=np.zeros(chunks, np.int32),
    neighbors=np.zeros((d + 1, 2, vertices), np.int32),
  )


def _simplex(
  features: Float32[np.ndarray, "d n"],
) -> tuple[
  Float32[np.ndarray, "d1 n"],
  Int8[np.ndarray, "d1 n"],
  Float32[np.ndarray, "d1 n"],
]:
  """Return the simplex that each pixel lies in.

  Returns:
    The nearest lattice point, in cells; the coordinates in descending order of
    their remainders, which is the path from corner to corner; the weights of
    the corners.
  """
  d, n = features.shape
  corners, one = d + 1, np.float32(1)
  spread = np.float32(math.sqrt(2 / 3) * corners)
  elevated = np.empty((corners, n), np.float32)
  total = np.zeros(n, np.float32)
  for j in range(d, 0, -1):
    scale = np.float32(float(spread) / math.sqrt(j * (j + 1)))
    scaled = features[j - 1] * scale
    elevated[j] = total - np.float32(j) * scaled
    total += scaled
  elevated[0] = total
  inverse = np.float32(1 / corners)
  cell = np.rint(elevated * inverse)
  left = elevated - cell * np.float32(corners)
  rank = np.zeros((corners, n), np.int8)
  for i in range(d):
    for j in range(i + 1, corners):
      less = left[i] < left[j]
      rank[i] += less
      rank[j] += ~less
  # The rounded point may lie beside the lattice's hyperplane: step onto it.
  rank += cell.sum(0).astype(np.int8)
  shift = (rank < 0).astype(np.int8) - (rank > d).astype(np.int8)
  rank += shift * np.int8(corners)
  cell += shift
  part = (elevated - cell * np.float32(corners)) * inverse
  order = np.empty((corners, n), np.int8)
  ranked = np.empty((corners, n), np.float32)
  place = rank.astype(np.int64) * n + np.arange(n)
  for i in range(corners):
    order.ravel()[place[i]] = i
    ranked.ravel()[place[i]] = part[i]
  weights = np.empty((corners, n), np.float32)
  weights[0] = ranked[d] + (one - ranked[0])
  weights[1:] = ranked[d - 1 :: -1] - ranked[:0:-1]
  return cell, order, weights


def _sorted_items(
  cell: Float32[np.ndarray, "d1 n"], order: Int8[np.ndarray, "d1 n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " v"], np.ndarray]:
  """Sort the corners of all pixels by vertex.

  Returns:
    The items, (d + 1) pixel + corner; where the items of each vertex start;
    how many each vertex has.
  """
  corners, n = cell.shape
  d = corners - 1
  low = cell[:d].min(1) - 1
  extents = [int(e) for e in cell[:d].max(1) - low + 1]
  bits = (corners * n - 1).bit_length()
  if math.prod(extents) * corners << bits >= 2**63:
    return _sorted_items_slowly(cell, order)
  # The vertex at corner r of a pixel is the pixel's cell, less 1 in the r
  # coordinates that come last in the order. The last coordinate follows from
  # the others, so that it is not part of the key.
  step = np.zeros(corners, np.int64)
  step[:d] = [math.prod(extents[k + 1 :]) * corners for k in range(d)]
  key = step[:d] @ (cell[:d] - low[:, None]).astype(np.int64)
  words = np.empty((corners, n), np.int64)
  pixel = np.arange(n, dtype=np.int64) * corners
  for r in range(corners):
    if r:
      key = key + (1 - step)[order[corners - r]]
    words[r] = (key << bits) | (pixel + r)
  # Sorting integers that hold key and item is three times as fast as argsort.
  words = np.sort(words, axis=None)
  item = words & ((1 << bits) - 1)
  words >>= bits
  return item, *_runs(words)


def _sorted_items_slowly(cell, order):
  """Sort as `_sorted_items` does, where a key does not fit into 64 bits."""
  corners, n = cell.shape
  item = np.arange(corners * n)
  coordinates, corner = _vertex(cell, order, item)
  key = _pack([*coordinates, corner])
  item = np.argsort(key, kind="stable")
  return item, *_runs(key[item])


def _runs(keys: Int64[np.ndarray, " m"]) -> tuple[np.ndarray, np.ndarray]:
  start = np.append(0, np.flatnonzero(keys[1:] != keys[:-1]) + 1)
  return start, np.diff(start, append=keys.size)


def _vertex(
  cell: Float32[np.ndarray, "d1 n"],
  order: Int8[np.ndarray, "d1 n"],
  item: Int64[np.ndarray, " m"],
) -> tuple[Int64[np.ndarray, "d m"], Int64[np.ndarray, " m"]]:
  """Return the vertices of items: cell, without the last coordinate, corner."""
  corners = cell.shape[0]
  pixel, corner = np.divmod(item, corners)
  coordinates = cell[:-1].astype(np.int64)[:, pixel]
  for r in range(1, corners):
    # The coordinate that comes last in the order is stepped down first.
    k = order[corners - r, pixel]
    stepped = np.flatnonzero((corner >= r) & (k < corners - 1))
    coordinates[k[stepped], stepped] -= 1
  return coordinates, corner


def _neighbors(
  cell: Int64[np.ndarray, "d m"], corner: Int64[np.ndarray, " m"]
) -> Int[np.ndarray, "d1 2 v"]:
  """Return both neighbors of each vertex along each axis, counted from 1.

  In lattice coordinates, (d + 1) cell + corner, a step along axis j adds d to
  coordinate j and takes 1 from all others. Differences of the other coordinates
  are therefore constant on a line: if vertices are sorted by these and then by
  one coordinate, neighbors stand side by side.
  """
  d, m = cell.shape
  bits = m.bit_length()
  number = np.arange(1, m + 1)
  neighbors = np.zeros((d + 1, 2, m + 1), np.int32)
  for j in range(d + 1):
    other = 1 if j == 0 else 0
    line = [cell[k] - cell[other] for k in range(d) if k not in (j, other)]
    if j < d:
      line.append(cell[j] + d * cell[other] + corner)
    position = cell[other] * (d + 1) + corner
    key = _pack([*line, position])
    if int(key.max()) << bits < 2**63:
      words = np.sort((key << bits) | number)
      vertex = (words & ((1 << bits) - 1)).astype(np.int32)
      words >>= bits
    else:
      vertex = np.argsort(key, kind="stable").astype(np.int32) + np.int32(1)
      words = key[vertex - 1]
    at = np.flatnonzero(words[1:] == words[:-1] + 1)
    before, after = vertex[at], vertex[at + 1]
    neighbors[j, 0, before] = after
    neighbors[j, 1, after] = before
  return neighbors


def _pack(columns: list[Int64[np.ndarray, " m"]]) -> Int64[np.ndarray, " m"]:
  """Return a number for each row: equal rows have equal numbers.

  Rows that differ by 1 in the last column have adjacent numbers.
  """
  key, extent = np.zeros_like(columns[0]), 1
  for column in columns:
    low = int(column.min())
    # One number more, so that a line's end is not adjacent to the next line.
    size = int(column.max()) - low + 2
    if extent * size >= 2**63:
      # Number the keys that occur: at most as many as there are rows.
      _, key = np.unique(key, return_inverse=True)
      extent = int(key.max()) + 1
    key = key * size + (column - low)
    extent *= size
  return key


def _normalization(
  corners: Int[np.ndarray, "d1 n"],
  weights: Float32[np.ndarray, "d1 n"],
  neighbors: Int[np.ndarray, "d1 2 v"],
) -> Float32[np.ndarray, " n"]:
  """Return the factors that make the filter symmetric and normalized.

  The filter is then D^-1/2 K D^-1/2, with D the filter of ones: splat and slice
  each have the root of 1 / D, and the root of the constant that the blur lacks.
  """
  d = corners.shape[0] - 1
  value = np.bincount(
    corners.ravel(), weights.ravel(), minlength=neighbors.shape[2]
  )
  for before, after in neighbors:
    value = value + 0.5 * (value[before] + value[after])
    value[0] = 0
  # The corners of a blurred point sum to 1 + 2^-d of its value.
  alpha = 1 / (1 + 2.0**-d)
  ones = alpha * (weights * value[corners]).sum(0)
  return np.sqrt(alpha / (ones + 1e-20)).astype(np.float32)


def _list_pixels(
  lattice: Lattice,
  item: Int64[np.ndarray, " m"],
  start: Int64[np.ndarray, " v"],
  counts: Int64[np.ndarray, " v"],
  weights: Float32[np.ndarray, " m"],
  pixels: Int64[np.ndarray, " n"],
) -> None:
  """Fill in the pixels of each vertex: the first ones, then the chunks."""
  corners = lattice.corners.shape[0]
  for place in range(DIRECT):
    vertex = np.flatnonzero(counts > place)
    items = item[start[vertex] + place]
    lattice.pixels[place, vertex + 1] = pixels[items // corners]
    lattice.pixel_weights[place, vertex + 1] = weights[items]

  chunks = -(-np.maximum(counts - DIRECT, 0) // CHUNK)
  total = int(chunks.sum())
  # Unused chunks come first, since vertices ascend and theirs is 0.
  used = slice(lattice.chunk_vertex.size - total, None)
  vertex = np.repeat(np.arange(start.size), chunks)
  lattice.chunk_vertex[used] = vertex + 1
  within = np.arange(total) - np.repeat(np.cumsum(chunks) - chunks, chunks)
  begin = start[vertex] + DIRECT + CHUNK * within
  left = (start + counts)[vertex] - begin
  for place in range(CHUNK):
    items = item[begin + np.minimum(place, left - 1)]
    lattice.chunk_pixels[place, used] = pixels[items // corners]
    lattice.chunk_weights[place, used] = np.where(
      place < left, weights[items], 0
    )
