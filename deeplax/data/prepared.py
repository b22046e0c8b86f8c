"""Read data sets that `deeplax.data.build` has prepared, without TensorFlow."""

from collections.abc import Iterator
import contextlib
import pathlib
import re

from deeplax import errors
from deeplax import text_files
from deeplax.data import files
from deeplax.data import label_tables
from deeplax.data import published
from deeplax.data import spec as spec_lib

_AGAIN = "prepare the data set again, with --overwrite"


class Prepared(files.Decoded):
  """A split that was prepared as array_record (`prepare.write`).

  Its features are image and label (encoded pictures) and name; the labels are
  deeplax's, 0 to k-1 and 255.
  """

  prepared = True

  def __init__(self, spec: spec_lib.Spec, path: pathlib.Path, split: str):
    import tensorflow_datasets as tfds

    super().__init__(spec, split, label_tables.plain(spec.num_classes))
    self._path = path
    with _reading(path):
      builder = tfds.builder_from_directory(path)
      features = {*(builder.info.features or {})}  # pyright: ignore
      splits = sorted(builder.info.splits)
    if lacking := {"image", "label", "name"} - features:
      raise errors.InputError(
        f"{path} has no feature {sorted(lacking)}: it has "
        f"{str(sorted(features))[:300]}. "
        "It is another data set: point --config.data.root at another folder"
      )
    if split not in splits:
      raise errors.InputError(
        f"no split {split!r} in {path}: it has "
        f"{str(splits)[:300]}. Name one of these, or prepare it again "
        "with that split: python -m "
        f"deeplax.data.build {spec.name} --overwrite"
      )
    skip = tfds.decode.SkipDecoding()  # pyright: ignore
    with _reading(path):
      try:
        self._records = builder.as_data_source(
          split,  # pyright: ignore
          decoders={"image": skip, "label": skip},
        )
      except NotImplementedError as error:
        raise errors.InputError(
          f"{path} is not array_record ({error}): prepare it again with "
          'file_format="array_record"'
        ) from error

  def __len__(self) -> int:
    return len(self._records)

  def name(self, index: int) -> str:
    return self._record(index)["name"].decode()

  def stamp(self) -> str:
    return "".join(
      f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n"
      for file in sorted(self._path.iterdir())
    )

  def contents(self) -> Iterator[tuple[str, int]]:
    for file in sorted(self._path.glob(f"*-{self.split}.array_record-*")):
      yield file.name, file.stat().st_size

  def encoded(self, index: int) -> files.Encoded:
    return self._encoded(self._record(index))

  def __getitem__(self, index: int) -> files.Example:
    record = self._record(index)
    example = self.decoded(self._encoded(record))
    return {**example, "name": record["name"].decode()}

  def _record(self, index: int) -> dict[str, bytes]:
    with _reading(self._path):
      return self._records[index]

  def _encoded(self, record: dict[str, bytes]) -> files.Encoded:
    place = f"{self._path}, {self.split}, {record['name'].decode()}"
    return files.Encoded(
      record["image"], record["label"], f"image of {place}", f"label of {place}"
    )


def newest(root: pathlib.Path) -> pathlib.Path | None:
  """Return the newest prepared version in `root`, or `root` if it is one."""
  if (root / "dataset_info.json").is_file():
    return root
  versions = [
    path.parent
    for path in root.glob("*/dataset_info.json")
    if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
  ]
  if not versions:
    return None
  return max(versions, key=lambda p: [int(n) for n in p.name.split(".")])


def find(root: pathlib.Path, name: str) -> pathlib.Path | None:
  """Return the newest root/<name>/<version>, or None.

  `root` may also be <name>, or <name>/<version>, itself.
  """
  path = newest(root / name)
  if path is None and (path := newest(root)):
    info = text_files.read_json(path / "dataset_info.json", fix=_AGAIN)
    if info.get("name") != name:
      return None
  return path


def splits(path: pathlib.Path) -> list[str]:
  """Return the splits of a prepared data set."""
  import tensorflow_datasets as tfds

  with _reading(path):
    return sorted(tfds.builder_from_directory(path).info.splits)


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
  """Turn what TFDS raises about damaged or missing files into a message."""
  try:
    yield
  except (errors.InputError, IndexError):
    raise
  except Exception as error:  # its parsers and readers share no class
    raise errors.InputError(
      f"{path} cannot be read ({type(error).__name__}: {str(error)[:300]}): "
      f"{_AGAIN}"
    ) from error


def spec(path: pathlib.Path) -> spec_lib.Spec:
  """Return the classes that are stored with a prepared data set.

  Raises:
    InputError: None are: another program has written it.
  """
  classes = path / "metadata.json"
  fix = (
    f"it names the classes if {published.BUILD} has written the data set. "
    "Build it again from its images with that"
  )
  obj = text_files.read_json(classes, fix=fix)
  with text_files.contents(classes, fix=fix):
    return spec_lib.Spec.from_json(obj)
