"""Archives for test servers: python -m deeplax.submit --server=voc --out=FILE

  --workdir=DIR      labels the test images first; --flip, --scales, --crf and
                     the other flags of deeplax.predict are passed on to it
  --predictions=DIR  takes masks that deeplax.predict has written

`archives` says what each server reads. The archive is read again and compared
with the masks before it gets its name.
"""

import argparse
from collections.abc import Mapping
import contextlib
import pathlib
import tempfile

from deeplax import archives
from deeplax import checkpoint
from deeplax import errors
from deeplax import predict
from deeplax import score
from deeplax.data import build as data_build
from deeplax.data import sources
from deeplax.data import spec as spec_lib


def images(
  server: archives.Server, root: pathlib.Path, split: str
) -> dict[str, pathlib.Path]:
  """Return {name in the archive: image} of a split.

  Args:
    server: Whose names.
    root: The published tree, or a folder that has it.
    split: Usually "test".

  Raises:
    InputError: It is not there.
  """
  tree = sources.TREES[server.spec.name]
  found = tree.find(root)
  if found is None:
    raise errors.InputError(
      f"--images={root} is not {tree.what}: looked for "
      f"{' or '.join(tree.markers)}. Unpack the archive of the test images and "
      "name its folder"
    )
  if server.spec is spec_lib.VOC2012:
    listed = found / "ImageSets" / "Segmentation" / f"{split}.txt"
    names = sources.voc_ids(listed)
    result = {name: sources.voc_pair(found, name).image for name in names}
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
  for key, path in score.by_name(
    folder, score.PREDICTED, "predictions"
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
  server: archives.Server,
  workdir: str,
  wanted: Mapping[str, pathlib.Path],
  out: pathlib.Path,
  flags: list[str],
) -> None:
  """Label images by a run, into a folder, with the flags of deeplax.predict.

  Raises:
    InputError: The run has other classes, or an image cannot be read.
  """
  names = predict.read_spec(workdir).class_names
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
    predict.Picture(path, pathlib.Path(name)) for name, path in wanted.items()
  ]
  if predict.run(checkpoint.load_config(workdir), args, pictures, out):
    raise errors.InputError(
      "some test images could not be read, as said above: unpack them again"
    )


def parser() -> argparse.ArgumentParser:
  """The command line, less what is passed on to deeplax.predict."""
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.submit",
    description="Pack predictions of test images as a test server reads them.",
    epilog="example: python -m deeplax.submit --server=cityscapes "
    "--workdir=runs/v3plus_xception --flip --out=submission.zip. Other flags, "
    "with --workdir, are those of deeplax.predict.",
    allow_abbrev=False,
  )
  parser.add_argument("--server", required=True, choices=archives.SERVERS)
  which = parser.add_mutually_exclusive_group(required=True)
  which.add_argument("--workdir", metavar="DIR", help="of the training run")
  which.add_argument(
    "--predictions",
    type=pathlib.Path,
    metavar="DIR",
    help="masks of all test images, NAME_mask.png, in any sub-folders",
  )
  parser.add_argument(
    "--images",
    type=pathlib.Path,
    metavar="DIR",
    help="VOCdevkit, or the folder of leftImg8bit, with the test images "
    "(default: the data set of --workdir)",
  )
  parser.add_argument("--split", default="test", help="default: test")
  parser.add_argument(
    "--comp",
    type=int,
    choices=(5, 6),
    default=6,
    help="VOC: 5 is trained on VOC's own images alone, 6 on others too, such "
    "as ImageNet (default: 6)",
  )
  parser.add_argument(
    "--out",
    type=pathlib.Path,
    required=True,
    metavar="FILE",
    help=".tar.gz for voc, .zip for cityscapes",
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args, flags = parser().parse_known_args(argv)
  server = archives.SERVERS[args.server]
  if not args.out.name.endswith(server.suffixes):
    raise errors.InputError(
      f"--out={args.out} must end in {' or '.join(server.suffixes)}: that is "
      f"what --server={args.server} takes"
    )
  if flags and not args.workdir:
    raise errors.InputError(
      f"{flags[0]}: no flag of deeplax.submit; those of deeplax.predict need "
      "--workdir"
    )
  wanted = images(
    server, args.images or _tree(server, args.workdir), args.split
  )
  print(f"{len(wanted)} images of {args.split}")
  if args.split == "test" and len(wanted) != server.images:
    print(
      f"deeplax: {server.spec.name} has {server.images} test images, and the "
      "server wants them all"
    )
  with contextlib.ExitStack() as stack:
    folder = args.predictions
    if args.workdir:
      args.out.parent.mkdir(parents=True, exist_ok=True)
      folder = pathlib.Path(
        stack.enter_context(
          tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".submit-")
        )
      )
      label(server, args.workdir, wanted, folder, flags)
    found = {
      archives.member(server, name, args.split, args.comp): (mask, wanted[name])
      for name, mask in masks(folder, wanted).items()
    }
    archives.pack(server, args.out, found)
  print(
    f"{args.out}: {len(found)} files, {args.out.stat().st_size / 1e6:.1f} MB, "
    "read again and equal to the masks"
  )


def _tree(server: archives.Server, workdir: str | None) -> pathlib.Path:
  """Return where a run's data lie, if they are what the server tests."""
  if workdir:
    data = checkpoint.load_config(workdir).data
    found = data.name == server.spec.name and data_build.tree(data)
    if found:
      return found
  raise errors.InputError(
    "which images are the test's? Name their folder: "
    f"--images=DIR, that holds {sources.TREES[server.spec.name].what}"
  )


if __name__ == "__main__":
  main()
