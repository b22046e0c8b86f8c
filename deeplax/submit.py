"""Archives for test servers: python -m deeplax.submit --server=voc --out=FILE

  --workdir=DIR      labels the test images first; --flip, --scales, --crf and
                     the other flags of deeplax.predict are passed on to it
  --predictions=DIR  takes masks that deeplax.predict has written

`archives` says what each server reads. The archive is read again and compared
with the masks before it gets its name.
"""

import argparse
import contextlib
import pathlib
import tempfile

from deeplax import errors
from deeplax.data import test_servers
from deeplax.reports import submission


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
  parser.add_argument("--server", required=True, choices=test_servers.SERVERS)
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
  server = test_servers.SERVERS[args.server]
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
  wanted = submission.images(
    server, args.images or submission.tree(server, args.workdir), args.split
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
      submission.label(server, args.workdir, wanted, folder, flags)
    found = {
      test_servers.member(server, name, args.split, args.comp): (
        mask,
        wanted[name],
      )
      for name, mask in submission.masks(folder, wanted).items()
    }
    test_servers.pack(server, args.out, found)
  print(
    f"{args.out}: {len(found)} files, {args.out.stat().st_size / 1e6:.1f} MB, "
    "read again and equal to the masks"
  )


if __name__ == "__main__":
  main()
