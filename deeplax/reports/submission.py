"""Predictions of a test split as the archive that a test server takes."""

from collections.abc import Mapping
import pathlib

from deeplax import errors
from deeplax import predict
from deeplax.data import build as data_build
from deeplax.data import mask_folders
from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data import test_servers
from deeplax.reports import label_pictures
from deeplax.workdir import settings


def images(
  server: test_servers.Server, root: pathlib.Path, split: str
) -> dict[str, pathlib.Path]:
  """Return {name in the archive: image} of a split.

  Args:
    server: Whose names.
    root: The published tree, or a folder that has it.
    split: Usually "test".

  Raises:
    InputError: It is not there.
  """
  tree = published.TREES[server.spec.name]
  found = tree.find(root)
  if found is None:
    raise errors.InputError(
      f"--images={root} is not {tree.what}: looked for "
      f"{' or '.join(tree.markers)}. Unpack the archive of the test images and "
      "name its folder"
    )
  if server.spec is spec_lib.VOC2012:
    listed = found / "ImageSets" / "Segmentation" / f"{split}.txt"
    names = published.voc_ids(listed)
    result = {name: published.voc_pair(found, name).image for name in names}
  else:
    folder, ending = found / "leftImg8bit" / split, "_leftImg8bit.png"
    paths = sorted(folder.glob(f"*/*{ending}"))
    result = {path.name.removesuffix(ending): path for path in paths}
    listed = folder
  if not result:
    raise errors.InputError(
      f"no {listed / '*/*_leftImg8bit.png'}: unpack the archive of the test "
      "images, leftImg8bit_trainvaltest.zip"
    )
  if lost := [path for path in result.values() if not path.is_file()]:
    raise errors.InputError(
      f"{lost[0]} is missing, named in {listed} ({len(lost)} of {len(result)} "
      "images): unpack the archive of the test images, VOC2012test.tar"
    )
  return result


def masks(
  folder: pathlib.Path, wanted: Mapping[str, pathlib.Path]
) -> dict[str, pathlib.Path]:
  """Return {name: predicted mask} of images, found by name in any sub-folder.

  Raises:
    InputError: One is missing, or there twice.
  """
  found: dict[str, pathlib.Path] = {}
  for key, path in mask_folders.by_name(
    folder, mask_folders.PREDICTED, "predictions"
  ).items():
    name = pathlib.PurePosixPath(key).name
    if name in wanted and name in found:
      raise errors.InputError(
        f"{found[name]} and {path} are both predictions of {name}: remove one"
      )
    found[name] = path
  lost = sorted(wanted.keys() - found.keys())
  if lost:
    raise errors.InputError(
      f"{folder} has no mask of {len(lost)} of {len(wanted)} images, of "
      f"{lost[0]} for example ({lost[0]}_mask.png): predict {wanted[lost[0]]} "
      "too"
    )
  return {name: found[name] for name in wanted}


def label(
  server: test_servers.Server,
  workdir: str,
  wanted: Mapping[str, pathlib.Path],
  out: pathlib.Path,
  flags: list[str],
) -> None:
  """Label images by a run, into a folder, with the flags of deeplax.predict.

  Raises:
    InputError: The run has other classes, or an image cannot be read.
  """
  names = settings.read_spec(workdir).class_names
  if names != server.spec.class_names:
    raise errors.InputError(
      f"{workdir} was trained on {len(names)} classes ({names[0]}, ...), not "
      f"on the {server.spec.num_classes} of {server.spec.name}: the server "
      "would take them for others"
    )
  paths = [str(path) for path in wanted.values()]
  args = predict.parser().parse_args(
    [f"--workdir={workdir}", f"--out={out}", *flags, *paths]
  )
  if args.inputs != paths:
    raise errors.InputError(
      f"{args.inputs[0]} is no flag: which images are labelled follows from "
      "--images and --split"
    )
  pictures = [
    label_pictures.Picture(path, pathlib.Path(name))
    for name, path in wanted.items()
  ]
  if label_pictures.label(settings.load_config(workdir), args, pictures, out):
    raise errors.InputError(
      "some test images could not be read, as said above: unpack them again"
    )


def tree(server: test_servers.Server, workdir: str | None) -> pathlib.Path:
  """Return where a run's data lie, if they are what the server tests."""
  if workdir:
    data = settings.load_config(workdir).data
    found = data.name == server.spec.name and data_build.tree(data)
    if found:
      return found
  raise errors.InputError(
    "which images are the test's? Name their folder: "
    f"--images=DIR, that holds {published.TREES[server.spec.name].what}"
  )
