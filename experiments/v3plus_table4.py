"""ImageNet-1k error of the backbones (v3+, table 4).

COMMAND: python -m experiments.v3plus_table4 --images=imagenet/val
         --resnet=tf_deeplab:resnet_v1_101/model.ckpt
         --xception=tf_deeplab:xception_65/model.ckpt

It trains nothing: whole ImageNet networks, one or both, classify the pictures
of a folder with a subfolder for each class. Subfolders in order of their names
are the classes, which of ImageNet's own (n01440764, ...) is the published
order; of another data set the network has to have as many classes. TensorFlow's
networks have a class more, the first, background: it competes, as there.

One view of a picture: the central square of 87.5% of the short side, resized to
299 x 299. 299 is what the paper trains Xception at (section 4.1), 0.875 the
central_fraction of slim's inception_preprocessing.py, which takes that part of
each side and squashes it to a square; here shapes stay, as with torchvision,
whose resize to 256 and crop of 224 is the same part. The paper does not say how
it evaluated; --crop=224 is the size that ResNets are known by elsewhere.

Pixels are scaled as `models.conventions` has it for the file's program: to
[-1, 1] for Xception and ResNet's beta form, less the mean for slim's ResNet,
and by mean and deviation of ImageNet for torchvision's.
"""

import argparse

from deeplax import errors
from deeplax import paths
from deeplax.ablation import experiment
from deeplax.ablation import flags
from deeplax.ablation import imagenet_sources


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog=experiment.command("v3plus_table4"),
    description="Top-1 and top-5 error of ImageNet networks (v3+, table 4).",
    epilog="example: %(prog)s "
    "--images=imagenet/val --resnet=torchvision:resnet101.pth",
  )
  add, path = parser.add_argument, paths.local
  text = "a subfolder of pictures for each class"
  add("--images", required=True, type=path, metavar="DIR", help=text)
  for flag, programs in imagenet_sources.BACKBONES.items():
    row = imagenet_sources.ROWS[flag]
    text = f"weights of {row!r}; SOURCE: {', '.join(programs)}"
    add(f"--{flag}", metavar="SOURCE:FILE", help=text)
  default = experiment.RESULTS / "v3plus_table4"
  text = "for table4.json and table.md (default: %(default)s)"
  add("--out", type=path, default=default, metavar="DIR", help=text)
  for flag, default, text in (
    ("crop", 299, "side of what the network sees (default: 299)"),
    ("batch", 32, "pictures at once (default: 32)"),
    ("max_images", None, "so many, evenly over the folder (default: all)"),
  ):
    add(
      f"--{flag}", type=flags.positive, default=default, metavar="N", help=text
    )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  known = {flag: getattr(args, flag) for flag in imagenet_sources.ROWS}
  weights = {flag: text for flag, text in known.items() if text}
  if not weights:
    raise errors.InputError(
      "no network: give --resnet, --xception or both, as "
      "--resnet=tf_deeplab:resnet_v1_101/model.ckpt"
    )
  if args.out.exists() and not args.out.is_dir():
    raise errors.InputError(f"--out={args.out} is a file; name a folder")
  from deeplax.ablation import imagenet_table

  text = imagenet_table.write(
    weights,
    args.images,
    args.out,
    crop=args.crop,
    batch=args.batch,
    max_images=args.max_images,
  )
  print(f"\n{text}\n{args.out / 'table.md'}")


if __name__ == "__main__":
  main()
