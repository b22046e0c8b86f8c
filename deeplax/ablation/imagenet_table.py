"""The table of ImageNet errors (v3+, table 4), as JSON and Markdown."""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from deeplax import atomic
from deeplax.ablation import imagenet
from deeplax.ablation import imagenet_sources
from deeplax.ablation import papers
from deeplax.data import views
from deeplax.metrics import printed
from deeplax.models import cost
from deeplax.workdir import environment

NAME = "v3plus_table4"
# Columns of table.md: title, key in table4.json, how it is printed.
COLUMNS = (
  ("network", "network", str),
  ("images", "images", str),
  ("top-1 error", "top1_error", printed.points),
  ("paper", "top1_paper", "{:.2f}".format),
  ("difference", "top1_difference", printed.gain),
  ("top-5 error", "top5_error", printed.points),
  ("paper", "top5_paper", "{:.2f}".format),
  ("difference", "top5_difference", printed.gain),
  ("parameters", "parameters", "{:,}".format),
  ("Multiply-Adds", "multiply_adds", "{:,}".format),
)


def write(
  weights: Mapping[str, str],
  images: pathlib.Path,
  out: pathlib.Path,
  *,
  crop: int,
  batch: int,
  max_images: int | None,
) -> str:
  """Classify the pictures; write table4.json and table.md, return the table.

  Args:
    weights: "source:file" by flag of `imagenet_sources.ROWS`.
    images: Folder with a subfolder of pictures for each class.
    out: Where to write.
    crop: Side of what the networks see.
    batch: Pictures at once.
    max_images: So many, evenly over the folder; None: all.

  Raises:
    InputError: Folder, pictures or weights are not what they should be.
  """
  labeled, folders = imagenet.pictures(images)
  networks = {
    flag: imagenet.network(flag, text, folders)
    for flag, text in weights.items()
  }
  chosen = [labeled[i] for i in views.evenly(len(labeled), max_images or 0)]
  print(
    f"{images}: {len(chosen)} pictures of {len(labeled)}, {folders} classes"
  )
  for n in networks.values():
    first = ", background first" if n.first else ""
    print(f"{n.file}: {n.backbone}, {n.model.num_classes} classes{first}")
  environment.compilation_cache(out)
  ranks = imagenet.classify(
    [*networks.values()], chosen, crop=crop, batch=batch
  )
  rows = [
    row(
      imagenet_sources.ROWS[flag],
      networks[flag],
      of_network,
      crop=crop,
      classes=folders,
    )
    for flag, of_network in zip(networks, ranks, strict=True)
  ]
  about = {"images": str(images), "classes": folders, "crop": crop}
  text = markdown(rows, **about)
  atomic.write_json(out / "table4.json", {**about, "rows": rows})
  atomic.write_text(out / "table.md", text)
  return text


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
  values: dict[str, Any] = {"network": title, "images": len(ranks)}
  for top, paper in zip((1, 5), published, strict=True):
    error = 100 * float((ranks >= top).mean())
    values[f"top{top}_error"] = error
    if classes == imagenet.CLASSES:
      values |= {
        f"top{top}_paper": paper,
        f"top{top}_difference": error - paper,
      }
  return values | {
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
  for values in rows:
    lines.append(
      [form(values[k]) if k in values else "" for _, k, form in COLUMNS]
    )
  paper = papers.table(NAME)
  notes = [
    f"Errors in percent on {images}, {classes} classes: the central "
    f"{imagenet.CENTRAL:.1%} of the short side at {crop} x {crop}. "
    f"Paper: {paper['source']}.",
    *(f"{r['network']}: {r['weights']} as {r['backbone']}." for r in rows),
  ]
  table = printed.markdown(lines)
  return "\n\n".join([f"# {paper['title']}", table, *notes]) + "\n"
