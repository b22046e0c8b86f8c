"""The archive for a test server, with the predictions of a test split."""

import argparse
from collections.abc import Mapping
import pathlib
import tempfile

from deeplax import errors
from deeplax.data import archives
from deeplax.data import build as data_build
from deeplax.data import evaluation_servers
from deeplax.data import mask_folders
from deeplax.data import published
from deeplax.data import spec as spec_lib
from deeplax.data import walk
from deeplax.inference import asked as asked_lib
from deeplax.reports import found_pictures
from deeplax.reports import shown_classes
from deeplax.workdir import settings


def run(
  args: argparse.Namespace, predicting: argparse.Namespace | None
) -> None:
  """Write the archive; `deeplax.submit` with its flags.

  Args:
    args: The flags of `deeplax.submit`.
    predicting: The flags of `deeplax.predict`, to label the images first; None:
      the masks are in `args.predictions`.
  """
  server = evaluation_servers.SERVERS[args.server]
  wanted = images(server, args.images or tree(server, args), args.split)
  print(f"{len(wanted)} images of {args.split}")
  if args.split == "test" and len(wanted) != server.images:
    print(
      f"deeplax: {server.spec.name} has {server.images} test images, and the "
      "server wants them all"
    )
  if predicting is None:
    return _pack(args, args.predictions, wanted)
  asked = asked_lib.pictures(predicting)
  refuse_other_classes(server, args.workdir, asked.run.spec)
  args.out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(
    dir=args.out.parent, prefix=".submit-"
  ) as folder:
    label(predicting, asked, wanted, pathlib.Path(folder))
    _pack(args, pathlib.Path(folder), wanted)


def _pack(
  args: argparse.Namespace,
  folder: pathlib.Path,
  wanted: Mapping[str, pathlib.Path],
) -> None:
  """Pack the masks in a folder, one for each wanted image."""
  server = evaluation_servers.SERVERS[args.server]
  files = {
    evaluation_servers.member(server, name, args.split, args.comp): (
      mask,
      wanted[name],
    )
    for name, mask in masks(folder, wanted).items()
  }
  archives.pack(server, args.out, files)
  print(
    f"{args.out}: {len(files)} files, {args.out.stat().st_size / 1e6:.1f} MB, "
    "read again and equal to the masks"
  )


def tree(
  server: evaluation_servers.Server, args: argparse.Namespace
) -> pathlib.Path:
  """Return the folder of a run's data, if it is the server's data set.

  Raises:
    InputError: There is no run, or it has other data.
  """
  if args.workdir:
    data = settings.load_config(args.workdir).data
    data.root = args.data_root or data.root
    folder = data.name == server.spec.name and data_build.tree(data)
    if folder:
      return folder
  raise errors.InputError(
    "which images are the test's? Name their folder: "
    f"--images=DIR, that holds {published.TREES[server.spec.name].what}"
  )


def images(
  server: evaluation_servers.Server, root: pathlib.Path, split: str
) -> dict[str, pathlib.Path]:
  """Return {name in the archive: image} of a split.

  Args:
    server: It decides on the names.
    root: The published tree, or a folder with it.
    split: Usually "test".

  Raises:
    InputError: The tree, the split or an image is missing.
  """
  tree = published.TREES[server.spec.name]
  folder = tree.find(root)
  if folder is None:
    raise errors.InputError(
      f"--images={root} is not {tree.what}: looked for "
      f"{' or '.join(tree.markers)}. Unpack the archive of the test images and "
      "name its folder"
    )
  if server.spec is spec_lib.VOC2012:
    listed = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    names = published.voc_ids(listed)
    result = {name: published.voc_pair(folder, name).image for name in names}
  else:
    listed, ending = folder / "leftImg8bit" / split, "_leftImg8bit.png"
    paths = walk.matching(listed, f"*/*{ending}")
    result = {path.name.removesuffix(ending): path for path in paths}
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
    InputError: A mask is missing, or an image has two.
  """
  by_name: dict[str, pathlib.Path] = {}
  for key, path in mask_folders.by_name(
    folder, mask_folders.PREDICTED, "predictions"
  ).items():
    name = pathlib.PurePosixPath(key).name
    if name in wanted and name in by_name:
      raise errors.InputError(
        f"{by_name[name]} and {path} are both predictions of {name}: remove one"
      )
    by_name[name] = path
  lost = sorted(wanted.keys() - by_name.keys())
  if lost:
    raise errors.InputError(
      f"{folder} has no mask of {len(lost)} of {len(wanted)} images, of "
      f"{lost[0]} for example ({lost[0]}_mask.png): predict {wanted[lost[0]]} "
      "too"
    )
  return {name: by_name[name] for name in wanted}


def refuse_other_classes(
  server: evaluation_servers.Server, workdir: str, spec: spec_lib.Spec
) -> None:
  """Refuse a run of other classes than the server's.

  Raises:
    InputError: The classes differ.
  """
  names = spec.class_names
  if names != server.spec.class_names:
    raise errors.InputError(
      f"{workdir} was trained on {len(names)} classes ({names[0]}, ...), "
      f"not on the {server.spec.num_classes} of {server.spec.name}: the server "
      "would take them for others"
    )


def label(
  args: argparse.Namespace,
  asked: asked_lib.Asked,
  wanted: Mapping[str, pathlib.Path],
  out: pathlib.Path,
) -> None:
  """Label images into a folder with a run, by the flags of deeplax.predict.

  Raises:
    InputError: An image cannot be read.
  """
  # Imported here, because it brings JAX, which packing masks does not need.
  from deeplax.reports import label_pictures

  pictures = [
    found_pictures.Picture(path, pathlib.Path(name))
    for name, path in wanted.items()
  ]
  shown = shown_classes.Shown(asked.run.spec)
  if label_pictures.label(args, asked, pictures, out, shown):
    raise errors.InputError(
      "some test images could not be read, as said above: unpack them again"
    )
