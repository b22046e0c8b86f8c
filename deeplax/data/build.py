"""Find the data that `config.data` names, or say how to get them.

The places are data.root if it is set, or else $DEEPLAX_DATA, $TFDS_DATA_DIR and
~/tensorflow_datasets. Each may hold <name>/<version> as TensorFlow Datasets
prepares it, which comes first, or the published tree of the data set. A split
may be several, "train+val".

As a command, python -m deeplax.data.build, it prepares a data set
(`prepare.command`).
"""

from collections.abc import Callable, Sequence
from functools import partial
import os
import pathlib
from typing import TYPE_CHECKING, Any

from deeplax import errors
from deeplax import paths
from deeplax.data import bands
from deeplax.data import files
from deeplax.data import folder
from deeplax.data import prepared
from deeplax.data import published
from deeplax.data import shapes
from deeplax.data import spec as spec_lib
from deeplax.data import transforms
from deeplax.data import views

if TYPE_CHECKING:  # Grain brings JAX, which finding data does not need
  import grain

  from deeplax.data import loader

# An ml_collections.ConfigDict, whose attributes it types as a union of all.
Config = Any

FOLDER = "folder"
NAMES = (*published.TREES, "shapes", FOLDER)

ROOT_FLAG = "--config.data.root"  # for commands that have --config
_HELP = """\
To see it work now, without data: add :debug to the configuration, for example
  python -m deeplax.main --config=configs/v3plus_xception.py:debug
For your own images: configs/own_data.py says how to lay them out."""


def source(
  data: Config, split: str, root_flag: str = ROOT_FLAG
) -> files.Source:
  """Return a split of the data set that `config.data` names.

  Args:
    data: `config.data`.
    split: The name of the split.
    root_flag: The flag for the place of the data, for the message.

  Raises:
    InputError: The data are missing: all places searched, and how to get them.
  """
  _check_name(data.name)
  if data.channels is not None and data.name != FOLDER:
    raise errors.InputError(
      f"data.channels {data.channels} are for data.name={FOLDER}: "
      f"{data.name} has RGB pictures. Leave data.channels at None"
    )
  if data.name == "shapes":
    images = {"train": data.shapes_train, "val": data.shapes_eval}
    return shapes.Shapes(
      split, images=images.get(split, 1), size=data.shapes_size
    )
  if data.name == FOLDER:
    root = _folder_root(data, root_flag)
    return views.read_splits(partial(_own, root, channels=data.channels), split)
  return views.read_splits(
    partial(_published, data, root_flag=root_flag), split
  )


def _own(
  root: pathlib.Path, split: str, channels: Sequence[int] | None = None
) -> files.Decoded:
  """Return a split of own data, prepared or not."""
  if path := prepared.newest(root):
    if channels is not None:
      raise errors.InputError(
        f"data.channels {channels} cannot be read from {path}, which holds RGB "
        "pictures: give the folder that it was made from"
      )
    return prepared.Prepared(prepared.spec(path), path, split)
  return folder.source(root, split, channels)


def channels(data: Config) -> bands.Channels | None:
  """Return mean and deviation of each band to read, or None for RGB."""
  return bands.statistics(data.channels, data.channel_mean, data.channel_std)


def fill_channels(
  data: Config,
  source: files.Source,
  old: Config | None = None,
  *,
  progress: Callable[[str], None] = print,
) -> bool:
  """Set data.channel_mean and data.channel_std if bands need them.

  Args:
    data: `config.data`.
    source: The training split, to measure them on.
    old: `config.data` of the run to resume, which has them.
    progress: Receives lines while measuring.

  Returns:
    Whether they were measured.

  Raises:
    InputError: One of the two is set alone.
  """
  given = (data.channel_mean, data.channel_std)
  if data.channels is None and given != (None, None):
    raise errors.InputError(
      "data.channel_mean and data.channel_std are for data.channels, which is "
      "not set: RGB pictures are normalized as the backbone needs it"
    )
  if data.channels is None or None not in given:
    return False
  if given != (None, None):
    raise errors.InputError(
      f"data.channel_mean {given[0]} and data.channel_std {given[1]}: give "
      "both, or neither to have them measured on the training images"
    )
  if old is not None:
    data.channel_mean, data.channel_std = old.channel_mean, old.channel_std
    return False
  data.channel_mean, data.channel_std = bands.measure(
    source, threads=data.threads, progress=progress
  )
  return True


def _published(data: Config, split: str, root_flag: str) -> files.Decoded:
  """Return a split of a published data set from the first place that has it."""
  for _, root in _places(data):
    if root and (source := _in(root, data.name, split)):
      return source
  tree = published.TREES[data.name]
  raise errors.InputError(_missing(data, tree.what, tree.get, root_flag))


def _in(root: pathlib.Path, name: str, split: str) -> files.Decoded | None:
  """Return a split of a published data set if `root` holds the data set."""
  if path := prepared.find(root, name):
    return prepared.Prepared(spec_lib.SPECS[name], path, split)
  tree = published.TREES[name]
  path = tree.find(root)
  return tree.read(path, split) if path and tree.read else None


def spec(data: Config) -> spec_lib.Spec:
  """Return the classes of the data set that `config.data` names."""
  _check_name(data.name)
  if data.name == FOLDER:
    root = _folder_root(data)
    path = prepared.newest(root)
    return prepared.spec(path) if path else folder.spec(root)
  return spec_lib.SPECS[data.name]


def train_loader(
  config: Config,
  source: files.Source,
  *,
  pad_value: tuple[float, ...],
  process_index: int = 0,
  process_count: int = 1,
) -> "grain.DatasetIterator[loader.Batch]":
  """Return the endless batches of a run.

  Args:
    config: The whole configuration.
    source: The training split.
    pad_value: The value of pixels outside an image: the network's mean pixel,
      rounded for uint8.
    process_index: This process's number.
    process_count: How many processes share a batch.

  Raises:
    InputError: A key of `config.data` is not as it must be.
  """
  data = config.data
  if not 0 < data.min_scale <= data.max_scale or data.scale_step < 0:
    raise errors.InputError(
      f"data.min_scale {data.min_scale}, max_scale {data.max_scale}, "
      f"scale_step {data.scale_step}: need 0 < min <= max and step >= 0"
    )
  if len(data.crop_size) != 2 or min(data.crop_size) < 1:
    raise errors.InputError(
      f"data.crop_size {data.crop_size} is no (height, width), like (513, 513)"
    )
  # Imported here, because Grain brings JAX, which finding data does not need.
  from deeplax.data import loader

  names = {*transforms.Augmentation._fields} - {"pad_value"}
  return loader.train(
    source,
    transforms.Augmentation(
      pad_value=pad_value, **{name: data[name] for name in names}
    ),
    seed=config.seed,
    batch_size=config.train.batch_size,
    threads=data.threads,
    process_index=process_index,
    process_count=process_count,
  )


def at(root: pathlib.Path, split: str) -> files.Source:
  """Return a split of the data set in a folder, whichever its files show.

  Raises:
    InputError: The folder holds none.
  """
  return views.read_splits(partial(_at, root), split)


def _at(root: pathlib.Path, split: str) -> files.Decoded:
  if (root / folder.CLASSES).is_file() or prepared.newest(root):
    return _own(root, split)
  for name in published.TREES:
    if source := _in(root, name, split):
      return source
  if (root / "images").is_dir():
    return folder.source(root, split)  # raises: classes.json is missing
  kinds = ", ".join(tree.what for tree in published.TREES.values() if tree.what)
  raise errors.InputError(
    f"no data set in {root}: looked for {folder.CLASSES} beside images/ and "
    f"labels/, {kinds}, and <name>/<version> prepared by TFDS"
  )


def _check_name(name: str) -> None:
  if name not in NAMES:
    raise errors.InputError(f"data.name {name!r} not in {sorted(NAMES)}")


def _places(
  data: Config,
  root_flag: str = ROOT_FLAG,
) -> list[tuple[str, pathlib.Path | None]]:
  """Return the name of each place to look in, and its folder or None.

  data.root is the only place if it is set: another one would have training run
  on data that nobody asked for.
  """
  if data.root:
    return [("data.root", paths.local(data.root))]
  places: list[tuple[str, pathlib.Path | None]] = [(root_flag, None)]
  for variable in ("DEEPLAX_DATA", "TFDS_DATA_DIR"):
    value = os.environ.get(variable)
    places.append((f"${variable}", paths.local(value) if value else None))
  home = "~/tensorflow_datasets"
  try:
    return [*places, (home, paths.local(home))]
  except errors.InputError:  # the user of a container, who has no home
    return [*places, (home, None)]


def tree(data: Config) -> pathlib.Path | None:
  """Return the folder of a published data set, None if it is not found."""
  roots = (published.TREES[data.name].find(p) for _, p in _places(data) if p)
  return next((path for path in roots if path), None)


def _folder_root(data: Config, root_flag: str = ROOT_FLAG) -> pathlib.Path:
  """Return the folder of own data: as classes.json and images/, or prepared."""
  for _, root in _places(data):
    if root and (
      (root / folder.CLASSES).exists()
      or (root / "images").is_dir()
      or prepared.newest(root)
    ):
      return root
  what = f"a folder with {folder.CLASSES}, images/ and labels/"
  raise errors.InputError(
    _missing(data, what, (f"give your own folder: {root_flag}=DIR",), root_flag)
  )


def _missing(
  data: Config, what: str, get: tuple[str, ...], root_flag: str
) -> str:
  """Return the message on missing data: the places searched, how to get it."""
  kinds = [what] if what else []
  if data.name != FOLDER:
    kinds.append(f"{data.name}/<version> prepared by TFDS")
  lines = [f"no {data.name} data. Looked for {', or '.join(kinds)}, in"]
  for name, root in _places(data, root_flag):
    if root is None:
      lines.append(f"  {name} (not set)")
    else:
      state = "is not there" if root.is_dir() else "no such folder"
      shown = name if str(root) == name else f"{name} = {root}"
      lines.append(f"  {shown} ({state})")
  lines.append("To get it:")
  lines += [f"  {i}. {text}" for i, text in enumerate(get, start=1)]
  if data.name != FOLDER:
    # data.root, if set, is the only place.
    either = "" if data.root else "export DEEPLAX_DATA=DIR, or "
    lines.append(
      f"Then {either}{root_flag}=DIR, DIR being the folder that holds "
      f"{what or data.name}."
    )
  if root_flag == ROOT_FLAG:
    lines.append(_HELP)
  elif data.root:
    lines.append(f"If the data has moved: {root_flag}=DIR, where it lies now.")
  return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
  # Preparing data and reading them need nothing of each other.
  from deeplax.data.prepare import command

  command.main(argv)


if __name__ == "__main__":
  main()
