"""Batches for training and examples for evaluation, read by Grain's threads.

The stream depends on the seed alone: example i of the endless stream is drawn
with (seed, i), whatever reads it. The global batch holds the same examples in
the same order for any number of threads or processes.
"""

from collections.abc import Iterator
from functools import partial

import cv2
import grain
import numpy as np

from deeplax import errors
from deeplax.data import files
from deeplax.data import transforms

Batch = dict[str, np.ndarray]

# Examples in the stream. Grain's own endless repeat overflows for batches of
# one image, because its length goes through a float.
_ENDLESS = 1 << 48


def train(
  source: files.Source,
  augmentation: transforms.Augmentation,
  *,
  seed: int,
  batch_size: int,
  threads: int,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[Batch]:
  """Return this process's endless part of the global batches.

  Process p holds rows p * n to (p + 1) * n - 1, n = batch_size / processes. The
  iterator's state is one number, the same on every process.

  Args:
    source: The training split.
    augmentation: The settings of the random scale, crop and flip.
    seed: The seed of the order and the augmentation.
    batch_size: The size of the global batch.
    threads: How many read ahead; 0 reads when a batch is asked for.
    process_index: This process's number.
    process_count: How many processes share a batch.

  Raises:
    InputError: The batch size does not divide, or the split is empty.
  """
  if batch_size < 1 or batch_size % process_count:
    raise errors.InputError(
      f"train.batch_size {batch_size} is not a multiple of the "
      f"{process_count} processes"
    )
  if not len(source):
    raise errors.InputError("the training split holds no images")
  data = (
    _in_order(grain.MapDataset.source(source), seed)
    .random_map(partial(_augment, settings=augmentation))
    .batch(batch_size // process_count)
  )
  local = data[process_index::process_count]
  # A thread makes a whole batch, so one batch ahead per thread keeps all busy.
  return iter(local.to_iter_dataset(_options(threads, ahead=threads)))


def _in_order(examples: grain.MapDataset, seed: int) -> grain.MapDataset:
  """Return examples in the order of training, another one in each pass."""
  endless = _ENDLESS // len(examples) + 1
  return examples.seed(seed).shuffle().repeat(endless)


def drawn(
  source: files.Source, step: int, *, seed: int, batch_size: int
) -> list[int]:
  """Return the indices in `source` of the examples of a training step.

  Args:
    source: As for `train`.
    step: 1 or more; its batch is the global one.
    seed: As for `train`.
    batch_size: As for `train`.
  """
  order = _in_order(grain.MapDataset.range(len(source)), seed)
  return [order[i] for i in range((step - 1) * batch_size, step * batch_size)]


def _augment(
  example: files.Example,
  rng: np.random.Generator,
  *,
  settings: transforms.Augmentation,
) -> Batch:
  image, label = transforms.augment(
    example["image"], example["label"], rng, settings
  )
  return {"image": image, "label": label}


def examples(
  source: files.Source,
  *,
  threads: int,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[files.Example]:
  """Return the examples in order, once, with a few read ahead.

  Args:
    source: A split.
    threads: How many read ahead; 0 reads when an example is asked for.
    process_index: This process's number; it reads every process_count-th.
    process_count: How many processes share the work.
  """
  data = grain.MapDataset.source(source)[process_index::process_count]
  return iter(data.to_iter_dataset(_options(threads, ahead=2 * threads)))


def _options(threads: int, *, ahead: int) -> grain.ReadOptions:
  if threads < 0:
    raise errors.InputError(f"data.threads {threads}: give 0 or more")
  # Grain's threads work in parallel: OpenCV's own would only compete.
  cv2.setNumThreads(1)
  return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
