"""Convert published weights: python -m deeplax.convert --source=tf_deeplab
--checkpoint=model.ckpt-30000 --config=configs/v3plus_xception.py --workdir=OUT

--source names the program whose names the arrays have, --config the network;
the file's extension decides how it is read. The workdir is that of a run at
step 0. Back: python -m deeplax.convert --to=timm --workdir=DIR --out=FILE
What there is to fetch: python -m deeplax.convert --list
"""

import argparse
import sys

from deeplax import commands
from deeplax import config_flag
from deeplax import errors
from deeplax import flags
from deeplax import paths
from deeplax.data import spec as spec_lib
from deeplax.settings import published


def parser() -> argparse.ArgumentParser:
  """The command line, without the flags of the configuration."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("convert"),
    description=commands.as_typed(__doc__ or ""),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  sources, path = published.SOURCES, paths.expanded
  text = "list the published networks and where their files are, and end"
  parser.add_argument("--list", action="store_true", help=text)
  parser.add_argument("--workdir", type=path, help="to write, or to read")
  into = parser.add_argument_group("into a workdir")
  whose = "whose names the arrays have"
  known = (*sources, published.OWN)
  into.add_argument("--source", choices=known, help=whose)
  text = ".pth, .ckpt, .safetensors, .npz, TensorFlow's prefix; a workdir"
  into.add_argument("--checkpoint", type=path, help=text)
  text = "of several networks in a file that whose names begin so, such as ema"
  into.add_argument("--under", metavar="NAME", help=text)
  text = "the network; any --config.KEY=VALUE as for deeplax.main"
  into.add_argument("--config", metavar="CONFIG[:ARG]", help=text)
  text = "classes.json of own data that is not here (default: the config's)"
  into.add_argument("--classes", type=path, help=text)
  text = "classes of the checkpoint, to carry logits over by name: "
  text += f"{', '.join(sorted(spec_lib.SPECS))}, or a JSON list"
  metavar = "NAME|FILE"
  into.add_argument("--source_classes", type=path, metavar=metavar, help=text)
  text = "parts to draw anew, and those that read them: head, decoder, logits"
  into.add_argument("--new", default="", metavar="PART,PART", help=text)
  text = "for a file without a decoder: the new one at first hands the head's "
  text += "features through, so that the file's logits stay good"
  into.add_argument("--transparent_decoder", action="store_true", help=text)
  text = (
    "measure the running statistics of folded norms on N training images "
    "of the config's data, so that norms can train (default: 0, none)"
  )
  into.add_argument("--statistics", type=int, default=0, metavar="N", help=text)
  out = parser.add_argument_group("out of a workdir")
  out.add_argument("--to", choices=sources, help="whose names to write")
  out.add_argument("--out", type=path, help=".npz, .safetensors, .pth or .ckpt")
  out.add_argument("--step", type=int, help="default: the newest checkpoint")
  flags.add_own_code(out)
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args, rest = parser().parse_known_args(argv)
  if args.list:
    from deeplax.pretrained import published_table

    return print(commands.as_typed(published_table.text()))
  into = ("source", "checkpoint", "config", "workdir")
  for name in ("to", "workdir", "out") if args.to else into:
    if getattr(args, name) is None:
      raise errors.InputError(
        f"--{name} is missing. Give --source, --checkpoint, --config and "
        "--workdir to load weights, or --to, --workdir and --out to write them"
      )
  config = None
  if not args.to:
    config_flag.parse([sys.argv[0], f"--config={args.config}", *rest])
    config = config_flag.CONFIG.value
  elif rest:
    raise errors.InputError(f"unread arguments {rest}")

  # All that can be wrong without a network, before JAX is loaded.
  from deeplax.training import convertible

  found = convertible.found(config, args)

  from deeplax.training import conversion

  conversion.run(config, args, found, rest)


if __name__ == "__main__":
  main()
