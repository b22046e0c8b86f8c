"""Pairs of truth and prediction that the tests of measures share."""

import numpy as np
import scipy.ndimage

VOID = 255


def blobs(seed, shape=(37, 53), k=5, *, void=0.0, noise=0.2):
  """A truth of smooth patches, and a prediction that is wrong in places."""
  rng = np.random.default_rng(seed)
  fields = [
    scipy.ndimage.gaussian_filter(rng.normal(size=(k, *shape)), (0, s, s))
    for s in (3.0, 1.5)
  ]
  labels = fields[0].argmax(0).astype(np.uint8)
  other = fields[1].argmax(0).astype(np.uint8)
  mixed = np.where(rng.random(shape) < noise, other, labels)
  predictions = np.roll(mixed, rng.integers(-2, 3, 2), axis=(0, 1))
  if void:
    patches = scipy.ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    labels[patches > np.quantile(patches, 1 - void)] = VOID
  return labels, predictions.astype(np.uint8)


def bordered(seed, shape=(37, 53)):
  """As PASCAL VOC: void lies between an object and the background."""
  labels, predictions = blobs(seed, shape, k=2, noise=0.05)
  inside = scipy.ndimage.binary_erosion(labels == 1, iterations=1)
  around = scipy.ndimage.binary_dilation(labels == 1, iterations=2)
  labels = np.where(around & ~inside, VOID, inside.astype(np.uint8))
  return labels.astype(np.uint8), predictions


def one_class(labels_class=1, predicted=1, shape=(9, 14)):
  """A truth and a prediction of one class each."""
  return (
    np.full(shape, labels_class, np.uint8),
    np.full(shape, predicted, np.uint8),
  )


CASES = {
  "patches": blobs(0),
  "patches with void": blobs(1, void=0.3),
  "noise": blobs(2, noise=0.9, void=0.1),
  "a void border": bordered(3),
  "classes that do not occur": blobs(4, k=2),
  "one class, all right": one_class(),
  "one class, all wrong": one_class(1, 2),
  "all void": one_class(VOID, 2),
  "one pixel": one_class(1, 1, (1, 1)),
  "one wrong pixel": one_class(1, 3, (1, 1)),
  "one row": blobs(5, (1, 40)),
  "one column with void": blobs(6, (40, 1), void=0.2),
}
K = 5
NAMES = ("sky", "road", "tree", "car", "pole")


def changed_in_void(labels, predictions):
  """The prediction with other classes where the truth is void."""
  return np.where(labels == VOID, (predictions + 1) % K, predictions).astype(
    np.uint8
  )
