"""The pipelines that `benchmarks.input_speed` compares: deeplax's and tf.data.

Both make the same batches from a folder in the layout of `configs.own_data`.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
import importlib
import json
import os
import pathlib
import statistics
from typing import Any

import numpy as np

from deeplax import errors

CROP, BATCH = 513, 8
PAD = (127.5, 127.5, 127.5)
SCALES = tuple(np.linspace(0.5, 2.0, 7).tolist())
# As VOC's pictures: the most frequent size, and about 85 kB each.
SIZE, QUALITY = (375, 500), 85
WHERE = (0.25, 0.75)  # of the checked crops: shares of the way down and right

Batches = Iterator[Mapping[str, Any]]


def write_files(root: pathlib.Path, args: argparse.Namespace) -> int:
  """Write the files that all pipelines read: copied images, masks as gray PNGs.

  TensorFlow decodes a palette PNG to colors, so masks are stored decoded.

  Returns:
    The number of images.
  """
  from PIL import Image

  from deeplax.data import build
  from deeplax.data import files
  from deeplax.data import shapes

  for kind in ("images", "labels"):
    (root / kind / "train").mkdir(parents=True)
  if args.data:
    source = build.at(args.data, args.split)
  else:
    source = shapes.Shapes("train", images=args.images, size=SIZE)
  count = min(args.images, len(source))
  for i in range(count):
    example = source[i]
    label = root / "labels" / "train" / f"{i:04d}.png"
    Image.fromarray(np.asarray(example["label"])).save(label)
    image = root / "images" / "train" / f"{i:04d}.jpg"
    if isinstance(source, files.Decoded):
      data = source.encoded(i).image
      jpeg = data.startswith(b"\xff\xd8")
      image.with_suffix(".jpg" if jpeg else ".png").write_bytes(data)
    else:
      picture = Image.fromarray(np.asarray(example["image"]))
      picture.save(image, quality=QUALITY)
  names = {"names": source.spec.class_names}
  (root / "classes.json").write_text(json.dumps(names))
  return count


def deeplax(root: pathlib.Path, threads: int) -> Callable[[], Batches]:
  """Return a function that starts deeplax's loader as training does."""
  from deeplax.data import build
  from deeplax.settings import defaults

  config = defaults.base()
  config.train.batch_size = BATCH
  config.data.crop_size = (CROP, CROP)
  config.data.threads = threads

  def start() -> Batches:
    source = build.at(root, "train")
    return build.train_loader(config, source, pad_value=PAD)

  return start


class Tensorflow:
  """The same pipeline in tf.data.

  Attributes:
    as_bytes: Compute in bytes where that is possible, and yield bytes; else
      images are float32 and labels int32 from the start, as in DeepLab's own
      TensorFlow code.
  """

  def __init__(self, root: pathlib.Path, *, as_bytes: bool):
    # No accelerator is needed here, and TensorFlow would claim its memory.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    self.tf = importlib.import_module("tensorflow")
    self.tf.get_logger().setLevel("ERROR")
    self.as_bytes = as_bytes
    self.images = sorted(map(str, (root / "images" / "train").iterdir()))
    self.labels = sorted(map(str, (root / "labels" / "train").iterdir()))

  def start(self) -> Batches:
    """Return an endless iterator of batches."""
    tf = self.tf
    data = tf.data.Dataset.from_tensor_slices((self.images, self.labels))
    data = data.shuffle(len(self.images)).repeat()
    data = data.map(self._example, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return iter(data.as_numpy_iterator())

  def _example(self, image_file, label_file):
    """Read, decode and augment at random."""
    tf = self.tf
    image, label = self.read(image_file, label_file)
    scale = tf.random.shuffle(tf.constant(SCALES))[0]
    image, label = self.augment(image, label, scale, tf.random.uniform([2]))
    flip = tf.random.uniform([]) < 0.5
    image = tf.cond(flip, lambda: image[:, ::-1], lambda: image)
    label = tf.cond(flip, lambda: label[:, ::-1], lambda: label)
    return {"image": image, "label": label}

  def read(self, image_file, label_file):
    """Read and decode."""
    tf = self.tf
    image = tf.io.decode_image(
      tf.io.read_file(image_file), channels=3, expand_animations=False
    )
    label = tf.io.decode_png(tf.io.read_file(label_file), channels=1)
    if self.as_bytes:
      return image, label
    return tf.cast(image, tf.float32), tf.cast(label, tf.int32)

  def augment(self, image, label, scale, where):
    """Scale, pad and crop; `where` is the corner, as shares of free space."""
    tf, resize = self.tf, self.tf.compat.v1.image
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    size = tf.cast(sides * tf.cast(scale, tf.float32), tf.int32)
    image = resize.resize_bilinear(image[None], size, align_corners=True)[0]
    label = resize.resize_nearest_neighbor(
      label[None], size, align_corners=True
    )[0]
    mean = tf.constant(PAD)
    if self.as_bytes:
      image = tf.cast(tf.round(image), tf.uint8)
      mean = tf.cast(tf.round(mean), tf.uint8)
    ignore = tf.constant(255, label.dtype)
    whole = tf.maximum(size, CROP)
    # It pads with 0; bytes wrap around and come back.
    pad = tf.image.pad_to_bounding_box
    image = pad(image - mean, 0, 0, whole[0], whole[1]) + mean
    label = pad(label - ignore, 0, 0, whole[0], whole[1]) + ignore
    free = tf.cast(whole - CROP + 1, tf.float32)
    corner = tf.cast(where * free, tf.int32)
    corner = tf.concat([corner, [0]], 0)
    image = tf.slice(image, corner, [CROP, CROP, 3])
    label = tf.slice(label, corner, [CROP, CROP, 1])
    return image, label


def difference(root: pathlib.Path, *, as_bytes: bool) -> dict[str, float]:
  """Compare the crops of both pipelines at every scale, at the same place.

  TensorFlow decodes JPEG by a faster, less exact transform, and OpenCV rounds
  to bytes: images differ a little, labels must not.

  Returns:
    The mean and the largest difference of the images, of 255, and the share of
    labels that differ.

  Raises:
    InputError: The crops differ by more than that.
  """
  from deeplax.data import build
  from deeplax.data import transforms

  source, peer = build.at(root, "train"), Tensorflow(root, as_bytes=as_bytes)
  means, largest, labels = [], [], []
  for i, scale in enumerate(SCALES):
    i %= len(source)
    image, label = peer.read(peer.images[i], peer.labels[i])
    found = peer.augment(image, label, scale, WHERE)
    image, label = source[i]["image"], source[i]["label"]
    size = transforms.scaled_size(label.shape, scale)
    free = [max(side - CROP, 0) + 1 for side in size]
    top, left = (int(w * f) for w, f in zip(WHERE, free, strict=True))
    window = (top, left, min(CROP, size[0]), min(CROP, size[1]))
    image, label = transforms.pad(
      transforms.resize(image, size, window),
      transforms.resize_labels(label, size, window),
      size=(CROP, CROP),
      pad_value=PAD,
    )
    error = np.abs(found[0].numpy().astype(np.float32) - image)
    means.append(float(error.mean()))
    largest.append(float(error.max()))
    labels.append(float((found[1].numpy()[..., 0] != label).mean()))
  result = {
    "image_mean": statistics.fmean(means),
    "image_largest": max(largest),
    "label_share": statistics.fmean(labels),
  }
  if max(means) > 2 or any(labels):
    raise errors.InputError(f"tf.data gives other crops than deeplax: {result}")
  return result
