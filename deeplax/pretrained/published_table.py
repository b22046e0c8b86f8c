"""The table of the published networks, for a terminal and for a document."""

from collections.abc import Iterable

from deeplax.data import spec
from deeplax.metrics import printed
from deeplax.settings import published

SIZE = (513, 513)  # (height, width) of the image that Multiply-Adds are of
IMAGENET = "ImageNet"
_MIOU = "mIoU, % (split, output stride, more scales)"
_READ = """\
* its outputs were compared here with those of real weights.
Networks of ImageNet lend their backbone. Fetch a file, unpack it, and
  python -m deeplax.convert --source=PROGRAM --checkpoint=FILE \\
    --config=published:NETWORK --workdir=runs/NETWORK"""


def text() -> str:
  """Return two lines for each network, and how to have one, for a terminal."""
  width = max(map(len, published.NETWORKS)) + 4
  lines = [f"{'network'.ljust(width)}{'data'.ljust(12)}{_MIOU}"]
  lines.append("  program: file")
  for name, row in published.NETWORKS.items():
    known = f"{name} *" if row.checked else name
    words = [known.ljust(width), (row.data or IMAGENET).ljust(12), _miou(row)]
    lines.append("".join(words).rstrip())
    lines.append(f"  {row.source}: {row.address or 'no file is published'}")
  return "\n".join([*lines, "", _READ])


def markdown(names: Iterable[str] = published.NETWORKS) -> str:
  """Return the networks as a Markdown table with links to their files.

  Args:
    names: Of the networks; all take a minute, because Multiply-Adds need a
      trace of each.
  """
  titles = ("network", "data", _MIOU, "Multiply-Adds, B", "file")
  lines = [[*titles, "checked here with", "`--source`"]]
  for name in names:
    row = published.NETWORKS[name]
    lines.append([
      *(name, row.data or IMAGENET, _miou(row)),
      f"{multiply_adds(row) / 1e9:.1f}",
      f"[{row.file}]({row.address})" if row.file else "none is published",
      *(row.checked, f"`{row.source}`"),
    ])  # fmt: skip
  return printed.markdown(lines)


def multiply_adds(row: published.Network) -> int:
  """Return the Multiply-Adds of one image of SIZE at one scale.

  They are those of the output stride of the network's first figure; one of
  ImageNet has a new head and decoder, and VOC's 21 classes.
  """
  # The table itself needs no JAX.
  from deeplax.models import build
  from deeplax.models import cost
  from deeplax.settings import defaults

  config = defaults.base().model
  config.update_from_flattened_dict(row.settings)
  strides = [figure.output_stride for figure in row.reported[:1]]
  model = build.from_config(
    config,
    num_classes=spec.SPECS[row.data or "voc2012"].num_classes,
    output_stride=strides[0] if strides else None,
  )
  return cost.multiply_adds(model, SIZE)


def _miou(row: published.Network) -> str:
  """Return 75.32 (val, 16); 77.33 (val, 8, 6 scales, flip)."""
  figures = []
  for figure in row.reported:
    how = [figure.split, str(figure.output_stride)]
    if len(figure.scales) > 1:
      how.append(f"{len(figure.scales)} scales")
    if figure.flip:
      how.append("flip")
    figures.append(f"{figure.miou} ({', '.join(how)})")
  return "; ".join(figures)
