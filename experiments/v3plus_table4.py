"""ImageNet-1k validation error of the backbones (v3+, table 4).

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
import pathlib
from typing import Any

import numpy as np

from deeplax import atomic
from deeplax import errors
from deeplax.ablation import experiment
from deeplax.ablation import imagenet
from deeplax.ablation import papers
from deeplax.models import cost
from deeplax.reports import tables
from deeplax.workdir import environment

NAME = "v3plus_table4"
# The paper's rows, by flag.
ROWS = {"resnet": "Reproduced ResNet-101", "xception": "Modified Xception"}
# Columns of table.md: title, key in table4.json, form.
COLUMNS = (
  ("network", "network", "{}"),
  ("images", "images", "{}"),
  *(
    column
    for top in (1, 5)
    for column in (
      (f"top-{top} error", f"top{top}_error", "{:.2f}"),
      ("paper", f"top{top}_paper", "{:.2f}"),
      ("difference", f"top{top}_difference", "{:+.2f}"),
    )
  ),
  ("parameters", "parameters", "{:,}"),
  ("Multiply-Adds", "multiply_adds", "{:,}"),
)


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.v3plus_table4",
    description="Top-1 and top-5 error of ImageNet networks (v3+, table 4).",
    epilog="example: python -m experiments.v3plus_table4 "
    "--images=imagenet/val --resnet=torchvision:resnet101.pth",
  )
  add, path = parser.add_argument, pathlib.Path
  text = "a subfolder of pictures for each class"
  add("--images", required=True, type=path, metavar="DIR", help=text)
  for flag, sources in imagenet.BACKBONES.items():
    text = f"weights of {ROWS[flag]!r}; SOURCE: {', '.join(sources)}"
    add(f"--{flag}", metavar="SOURCE:FILE", help=text)
  default = experiment.RESULTS / NAME
  text = "for table4.json and table.md (default: %(default)s)"
  add("--out", type=path, default=default, metavar="DIR", help=text)
  for flag, default, text in (
    ("crop", 299, "side of what the network sees (default: 299)"),
    ("batch", 32, "pictures at once (default: 32)"),
    ("max_images", None, "so many, evenly over the folder (default: all)"),
  ):
    add(f"--{flag}", type=_positive, default=default, metavar="N", help=text)
  return parser


def _positive(text: str) -> int:
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f"{text!r} must be 1 or more")
  return int(text)


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  given = {flag: text for flag in ROWS if (text := getattr(args, flag))}
  if not given:
    raise errors.InputError(
      "no network: give --resnet, --xception or both, as "
      "--resnet=tf_deeplab:resnet_v1_101/model.ckpt"
    )
  if args.out.exists() and not args.out.is_dir():
    raise errors.InputError(f"--out={args.out} is a file; name a folder")
  every, folders = imagenet.pictures(args.images)
  networks = {f: imagenet.network(f, t, folders) for f, t in given.items()}
  count = min(args.max_images or len(every), len(every))
  chosen = [every[i * len(every) // count] for i in range(count)]
  print(f"{args.images}: {count} pictures of {len(every)}, {folders} classes")
  for n in networks.values():
    first = ", background first" if n.first else ""
    print(f"{n.file}: {n.backbone}, {n.model.num_classes} classes{first}")
  environment.compilation_cache(args.out)
  ranks = imagenet.classify(
    [*networks.values()], chosen, crop=args.crop, batch=args.batch
  )
  rows = [
    row(ROWS[f], networks[f], found, crop=args.crop, classes=folders)
    for f, found in zip(networks, ranks, strict=True)
  ]
  known = {"images": str(args.images), "classes": folders, "crop": args.crop}
  text = markdown(rows, **known)
  atomic.write_json(args.out / "table4.json", {**known, "rows": rows})
  atomic.write_text(args.out / "table.md", text)
  print(f"\n{text}\n{args.out / 'table.md'}")


def row(
  title: str,
  network: imagenet.Network,
  ranks: np.ndarray,
  *,
  crop: int,
  classes: int,
) -> dict[str, Any]:
  """Return a row of the table, errors in percent.

  Args:
    title: Of the paper's row.
    network: That classified.
    ranks: Of the right class, for each picture.
    crop: Side of what the network saw.
    classes: Of the pictures; only ImageNet's 1000 compare with the paper's.
  """
  published = {line[0]: line[1:] for line in papers.table(NAME)["rows"]}[title]
  found: dict[str, Any] = {"network": title, "images": len(ranks)}
  for top, paper in zip((1, 5), published, strict=True):
    error = 100 * float((ranks >= top).mean())
    found[f"top{top}_error"] = error
    if classes == imagenet.CLASSES:
      found |= {f"top{top}_paper": paper, f"top{top}_difference": error - paper}
  return found | {
    "parameters": cost.parameters(network.model),
    "multiply_adds": cost.multiply_adds(network.model, (crop, crop)),
    "backbone": network.backbone,
    "weights": network.file,
  }


def markdown(
  rows: list[dict[str, Any]], *, images: str, classes: int, crop: int
) -> str:
  """Return table.md."""
  lines = [[title for title, _, _ in COLUMNS]]
  for found in rows:
    lines.append(
      [f.format(found[k]) if k in found else "" for _, k, f in COLUMNS]
    )
  paper = papers.table(NAME)
  notes = [
    f"Errors in percent on {images}, {classes} classes: the central "
    f"{imagenet.CENTRAL:.1%} of the short side at {crop} x {crop}. "
    f"Paper: {paper['source']}.",
    *(f"{r['network']}: {r['weights']} as {r['backbone']}." for r in rows),
  ]
  table = tables.aligned(lines)
  return "\n\n".join([f"# {paper['title']}", table, *notes]) + "\n"


if __name__ == "__main__":
  main()
