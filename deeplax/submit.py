"""Pack masks for a server: python -m deeplax.submit --server=voc --out=FILE

  --workdir=DIR      labels the test images first; --flip, --scales, --crf and
                     the other flags of deeplax.predict are passed on to it
  --predictions=DIR  takes masks that deeplax.predict has written

`data.evaluation_servers` says what each server reads. The archive is read again
and compared with the masks before it gets its name.
"""

import argparse

from deeplax import commands
from deeplax import errors
from deeplax import flags
from deeplax import paths
from deeplax.data import evaluation_servers


def parser() -> argparse.ArgumentParser:
  """The command line, less what is passed on to deeplax.predict."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("submit"),
    description="Pack predictions of test images as a test server reads them.",
    epilog="example: %(prog)s --server=cityscapes "
    "--workdir=runs/v3plus_xception --flip --out=submission.zip. Other flags, "
    "with --workdir, are those of deeplax.predict.",
    allow_abbrev=False,
  )
  servers, path = evaluation_servers.SERVERS, paths.local
  parser.add_argument("--server", required=True, choices=servers)
  which = parser.add_mutually_exclusive_group(required=True)
  folder = {"type": paths.expanded, "metavar": "DIR"}
  which.add_argument("--workdir", **folder, help="of the training run")
  which.add_argument(
    "--predictions",
    type=path,
    metavar="DIR",
    help="masks of all test images, NAME_mask.png, in any sub-folders",
  )
  parser.add_argument(
    "--images",
    type=path,
    metavar="DIR",
    help="VOCdevkit, or the folder of leftImg8bit, with the test images "
    "(default: the data set of --workdir)",
  )
  flags.add_data_argument(parser)
  parser.add_argument("--split", default="test", help="default: test")
  parser.add_argument(
    "--comp",
    type=int,
    choices=(5, 6),
    default=6,
    help="VOC: 5 is trained on VOC's own images alone, 6 on others too, such "
    "as ImageNet (default: 6)",
  )
  add, text = parser.add_argument, ".tar.gz for voc, .zip for cityscapes"
  add("--out", type=path, required=True, metavar="FILE", help=text)
  return parser


def predict_parser() -> argparse.ArgumentParser:
  """The flags of deeplax.predict but those that submit sets itself."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("predict"), allow_abbrev=False
  )
  flags.add_predict_arguments(parser)
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args, rest = parser().parse_known_args(argv)
  suffixes = evaluation_servers.SERVERS[args.server].suffixes
  if not args.out.name.endswith(suffixes):
    raise errors.InputError(
      f"--out={args.out} must end in {' or '.join(suffixes)}: that is what "
      f"--server={args.server} takes"
    )
  predicting, hint = None, "those of deeplax.predict need --workdir"
  if args.workdir:
    predicting, rest = predict_parser().parse_known_args(
      [f"--workdir={args.workdir}", *rest]
    )
    hint = "which images are labeled follows from --images and --split"
    if rest and rest[0].startswith("-"):
      hint = "nor of deeplax.predict"
  if rest:
    raise errors.InputError(f"{rest[0]}: no flag of deeplax.submit; {hint}")

  from deeplax.reports import submission

  submission.run(args, predicting)


if __name__ == "__main__":
  main()
