"""Label pictures: python -m deeplax.predict --workdir=DIR --out=DIR PHOTO...

Class names, colors, normalization and sizes come from the run's workdir. Each
picture gets `<name>_mask.png`, class indices with a palette, at its own size,
and `<name>_overlay.jpg` (.png beyond the size that JPEG can have): the picture
at its own size under the colors of the classes, and a legend below it.
"""

import argparse
import os
import pathlib

from deeplax import commands
from deeplax import errors
from deeplax import flags
from deeplax import paths


def parser() -> argparse.ArgumentParser:
  """The command line; the config's eval values hold where it is silent."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("predict"),
    description="Label pictures with a trained network.",
    epilog="example: %(prog)s --workdir=runs/quickstart "
    "--out=predictions photos/ street.jpg 'more/**/*.png'",
    allow_abbrev=False,
  )
  flags.add_predict_arguments(parser)
  parser.add_argument(
    "--out",
    type=paths.expanded,
    required=True,
    metavar="DIR",
    help="where masks and overlays go",
  )
  parser.add_argument(
    "--classes",
    metavar="NAME,NAME",
    help="show these classes only: all other pixels keep their colors in "
    "overlays and are 255, which means ignored, in masks; the network still "
    "chooses among all of its classes (default: all)",
  )
  parser.add_argument(
    "--list",
    type=paths.expanded,
    metavar="FILE",
    help="label the files that a list names, one a line, as seen from the "
    "current folder; their outputs keep the sub-folders below the one that has "
    "them all",
  )
  parser.add_argument(
    "inputs",
    nargs="*",
    type=paths.expanded,
    metavar="IMAGE|FOLDER|GLOB|-",
    help="what to label; -: the files that standard input names, one a line",
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> int:
  reader = parser()
  args = reader.parse_args(argv)
  if not args.inputs and args.list is None:
    reader.error("nothing to label: name pictures, folders or --list=FILE")
  out = pathlib.Path(args.out)
  if os.path.exists(out) and not out.is_dir():
    raise errors.InputError(f"--out={out} is a file; name a folder")

  # All that can be wrong without a network, before JAX is loaded.
  from deeplax.inference import asked
  from deeplax.reports import found_pictures
  from deeplax.reports import shown_classes

  found = asked.pictures(args)
  shown = shown_classes.of_flag(args.classes, found.run.spec)
  channels = found.run.config.data.channels
  pictures = found_pictures.of_command(args, channels)

  from deeplax.reports import label_pictures

  return label_pictures.label(args, found, pictures, out, shown)


if __name__ == "__main__":
  main()
