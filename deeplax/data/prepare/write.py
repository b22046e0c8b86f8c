"""Write a data set as array_record with TensorFlow Datasets.

Pictures are stored as the bytes they are, labels as PNGs of 0 to k-1 and 255,
in the order of the source. TensorFlow is not needed.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
from functools import partial
import io
import pathlib
import shutil
from typing import Any

import numpy as np
from PIL import Image

from deeplax import ahead
from deeplax import clocks
from deeplax import errors
from deeplax.data import decoding
from deeplax.data import files
from deeplax.data import label_tables
from deeplax.data import spec as spec_lib
from deeplax.data.checks import faults as faults_lib
from deeplax.data.checks import mask_counts
from deeplax.data.formats import pictures

VERSION = "1.0.0"
# A shard passes through memory as a whole.
SHARD_BYTES = 256 * 2**20
# What labels and the records themselves take, as a share of the pictures.
_OVERHEAD = 0.15


@dataclasses.dataclass(frozen=True)
class Plan:
  """A data set to be written.

  Attributes:
    name: The name of the folder that it is written to.
    spec: Its classes.
    splits: The images and masks of each split.
    optional: Published splits that may be absent.
    notes: Lines that the user should read.
  """

  name: str
  spec: spec_lib.Spec
  splits: Mapping[str, files.Files]
  optional: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()


def check_counts(plan: Plan, where: pathlib.Path) -> None:
  """Compare the sizes of the splits with the published ones.

  Raises:
    InputError: A split has another size.
  """
  for split, published in plan.spec.splits:
    count = len(plan.splits[split]) if split in plan.splits else 0
    if count == published or (split in plan.optional and not count):
      continue
    raise errors.InputError(
      f"{split} of {plan.name} has {count} images in {where}, but {published} "
      "are published: unpack the archives again. To build the others, add "
      "--allow_partial; results then do not compare with the papers'"
    )


def refuse_existing(name: str, out: pathlib.Path) -> None:
  """Refuse to write over a data set.

  Raises:
    InputError: The data set exists.
  """
  target = out / name / VERSION
  if target.exists():
    raise errors.InputError(
      f"{target} exists already, ready to train on. To build it again, add "
      "--overwrite; to keep it, give another --out"
    )


def write(
  plan: Plan,
  out: pathlib.Path,
  *,
  threads: int = 4,
  progress: Callable[[str], None] = print,
) -> pathlib.Path:
  """Write out/<name>/<version>, which appears only when it is whole.

  Args:
    plan: The data set.
    out: The folder of all prepared data sets.
    threads: How many read and check pictures.
    progress: Receives lines of progress.

  Raises:
    InputError: A picture or mask cannot be used, or the disk is too small.
  """
  import tensorflow_datasets as tfds

  target = out / plan.name / VERSION
  with staged(out / f"incomplete.{plan.name}") as staging:
    # A full disk is refused before hours of writing.
    sizes = {split: _sizes(source) for split, source in plan.splits.items()}
    total = int((1 + _OVERHEAD) * sum(sum(s) for s in sizes.values()))
    refuse_full_disk(out, total, f"to write {plan.name}")
    count = sum(len(source) for source in plan.splits.values())
    report = clocks.Progress(count, progress, name=f"wrote {plan.name}")
    kind = _builder(plan, sizes, threads, report.step)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # two lines of no content
      builder = kind(data_dir=staging, file_format="array_record")
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
    # The whole data set takes its place at once.
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
      shutil.rmtree(target)
    (staging / plan.name / VERSION).rename(target)
  return target


@contextlib.contextmanager
def staged(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Make an empty folder, and remove it at the end unless it was renamed.

  Raises:
    InputError: The folder cannot be made.
  """
  shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
  make_folder(folder)
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def make_folder(folder: pathlib.Path) -> None:
  """Make a folder and those above it.

  Raises:
    InputError: It cannot be made.
  """
  fix = "name another folder by --out or --source"
  with errors.disk_errors(f"cannot write to {folder}", fix):
    folder.mkdir(parents=True, exist_ok=True)


def refuse_full_disk(folder: pathlib.Path, needed: int, what: str) -> None:
  """Check the free space of a disk.

  Raises:
    InputError: Fewer than `needed` bytes are free.
  """
  free = shutil.disk_usage(folder).free
  if free < needed:
    raise errors.InputError(
      f"{folder} has {free / 1e9:.1f} GB free, but {needed / 1e9:.1f} GB are "
      f"needed {what}: free some, or name a folder on another disk"
    )


def _sizes(source: files.Files) -> list[int]:
  """Return the size of each picture in bytes."""
  try:
    return [pair.image.stat().st_size for pair in source.pairs]
  except OSError as error:
    raise errors.InputError(
      f"{error.filename} cannot be read ({error.strerror}): restore the file"
    ) from error


def _builder(
  plan: Plan,
  sizes: Mapping[str, list[int]],
  threads: int,
  step: Callable[[], None],
) -> type[Any]:
  """Return the TFDS builder of a plan.

  It yields whole shards: a generator based builder would sort splits of more
  than 1,000 MiB on disk, for which it needs TensorFlow.
  """
  import tensorflow_datasets as tfds

  class Info(tfds.core.DatasetInfo):
    """TFDS's information on a data set, which is not looked up on the net."""

    def initialize_from_bucket(self) -> None:
      # It would also leave an empty folder in the system's temporary folder.
      pass

  def examples(split: str, indices: range) -> Iterator[tuple[str, Any]]:
    load = partial(_example, plan.splits[split])
    for _, example in ahead.in_threads(
      load, indices, threads=threads, n=2 * threads
    ):
      step()
      yield example["name"], example

  with tfds.core.registered.skip_registration():

    class Builder(tfds.core.ShardBasedBuilder):
      """A data set of pictures and label maps."""

      name = plan.name
      VERSION = tfds.core.Version(VERSION)

      def _info(self) -> tfds.core.DatasetInfo:
        return Info(
          builder=self,
          description=f"{plan.spec.name}, labels 0 to k-1, 255 = ignored.",
          features=tfds.features.FeaturesDict(
            {
              "image": tfds.features.Image(),
              "label": tfds.features.Image(shape=(None, None, 1)),
              "name": tfds.features.Text(),
            }
          ),
          metadata=tfds.core.MetadataDict(plan.spec.to_json()),
        )

      def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
      ):
        del dl_manager
        return {
          split: [
            partial(examples, split, part) for part in shards(sizes[split])
          ]
          for split in plan.splits
        }

  return Builder


def shards(sizes: list[int], limit: int = SHARD_BYTES) -> list[range]:
  """Return the indices of each shard, all of about as many images.

  Args:
    sizes: The size of each picture in bytes.
    limit: Bytes of a shard at most, on average.
  """
  count = min(len(sizes), -(-sum(sizes) // limit)) or 1
  ends = np.linspace(0, len(sizes), count + 1).round().astype(int).tolist()
  return [range(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def _example(source: files.Files, index: int) -> dict[str, Any]:
  """Return the record of an example, after decoding all of it as a check.

  Raises:
    InputError: The example cannot be used.
  """
  item = source.encoded(index)
  label = source.decoded(item)["label"]
  if (label == label_tables.ILLEGAL).any():
    raw = decoding.decode_label(item.label, item.label_file)
    counts = mask_counts.count(raw, item.label_file, source.table)
    faults = faults_lib.of_numbers(
      source.spec, source.table, [counts], together=False
    )
    raise errors.InputError(faults[0].text)
  return {
    "image": item.image,
    "label": png(label),
    "name": source.name(index),
  }


def png(label: np.ndarray) -> bytes:
  """Return labels, uint8 [h, w], as a PNG."""
  return pictures.png(Image.fromarray(label))
