"""The dense CRF in plain float64 NumPy: sums over all pairs, and dictionaries.

Nothing here is fast, and nothing is shared with deeplax.crf.
"""

import itertools

import numpy as np


def features(image, sigma_position, sigma_color=None):
  """[n, d] features of an image: x, y and, with a sigma, red, green, blue."""
  height, width = image.shape[:2]
  rows = []
  for y, x in itertools.product(range(height), range(width)):
    row = [x / sigma_position, y / sigma_position]
    if sigma_color is not None:
      row += [value / sigma_color for value in image[y, x].tolist()]
    rows.append(row)
  return np.array(rows, np.float64)


def normalized(kernel):
  root = 1 / np.sqrt(kernel.sum(1))
  return kernel * root[:, None] * root[None]


def gaussian(points):
  """[n, n]: the normalized kernel, by its definition."""
  squares = ((points[:, None] - points[None]) ** 2).sum(-1)
  return normalized(np.exp(-squares / 2))


def lattice(points, reverse=False):
  """[n, n]: what the permutohedral lattice makes of the same kernel."""
  n, d = points.shape
  corners = [_corners(point) for point in points]
  vertices = sorted({key for found in corners for key in found})
  splat = np.zeros((len(vertices), n))
  place = {key: i for i, key in enumerate(vertices)}
  for pixel, found in enumerate(corners):
    for key, weight in found.items():
      splat[place[key], pixel] = weight
  matrix = splat
  for axis in reversed(range(d + 1)) if reverse else range(d + 1):
    blurred = matrix.copy()
    for key, i in place.items():
      for sign in (1, -1):
        step = np.full(d + 1, -sign)
        step[axis] = sign * d
        j = place.get(tuple((np.array(key) + step).tolist()))
        if j is not None:
          blurred[i] += matrix[j] / 2
    matrix = blurred
  kernel = splat.T @ matrix / (1 + 2.0**-d)
  root = 1 / np.sqrt(kernel.sum(1))
  return kernel * root[:, None] * root[None]


def _corners(point):
  """Return {vertex: weight} of the simplex a point lies in."""
  d = len(point)
  # An orthogonal basis of the plane in which coordinates sum to zero, scaled so
  # that the lattice's blur has unit deviation.
  elevated = np.zeros(d + 1)
  for i, value in enumerate(point):
    direction = np.zeros(d + 1)
    direction[: i + 1], direction[i + 1] = 1, -(i + 1)
    length = np.sqrt((i + 1) * (i + 2))
    elevated += value * direction / length * (d + 1) * np.sqrt(2 / 3)
  # The nearest point whose coordinates are multiples of d + 1 and sum to 0.
  cell = np.rint(elevated / (d + 1)).astype(int)
  left = elevated - cell * (d + 1)
  order = np.argsort(-left)
  for _ in range(abs(cell.sum())):
    if cell.sum() > 0:
      order = np.argsort(-left)
      cell[order[-1]] -= 1
    else:
      order = np.argsort(-left)
      cell[order[0]] += 1
    left = elevated - cell * (d + 1)
  order = np.argsort(-left)
  ranked = left[order] / (d + 1)
  # Corner r: r in the coordinates with the most left, r - d - 1 in the r last.
  found = {}
  for r in range(d + 1):
    key = cell * (d + 1) + r
    key[order[d + 1 - r :]] -= d + 1
    weight = ranked[d - r] - ranked[d - r + 1] if r else None
    if r == 0:
      weight = 1 + ranked[d] - ranked[0]
    found[tuple(key.tolist())] = weight
  return found


def softmax(logits):
  shifted = np.exp(logits - logits.max(-1, keepdims=True))
  return shifted / shifted.sum(-1, keepdims=True)


def mean_field(logits, kernels, weights, iterations, compatibility=None):
  """[n, k] marginals; kernels are [n, n]."""
  k = logits.shape[1]
  if compatibility is None:
    compatibility = 1 - np.eye(k)
  logits = logits.astype(np.float64)
  marginals = softmax(logits)
  for _ in range(iterations):
    energy = -logits
    for kernel, weight in zip(kernels, weights, strict=True):
      energy = energy + weight * (kernel @ marginals) @ compatibility.T
    marginals = softmax(-energy)
  return marginals
