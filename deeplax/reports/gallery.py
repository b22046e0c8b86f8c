"""The page of a run's validation pictures.

pictures/<split>-<step>.png is a sheet of images, truths and predictions, the
same images after each evaluation; pictures/index.html shows all sheets, newest
first, and reloads itself.
"""

import re
from typing import NamedTuple

from etils import epath
from PIL import Image

from deeplax import atomic
from deeplax.metrics import printed
from deeplax.reports import html
from deeplax.workdir import layout
from deeplax.workdir import results

_NAME = re.compile(r"(?P<split>.+)-(?P<step>\d{8})\.png")
_REFRESH = '<meta http-equiv="refresh" content="30">'


class Sheet(NamedTuple):
  """A picture of the page."""

  step: int
  split: str
  path: epath.Path


def add(
  workdir: epath.Path, split: str, step: int, sheet: Image.Image
) -> epath.Path:
  """Write the sheet of a step, and the page anew; return the sheet's path."""
  path = workdir / layout.PICTURES / f"{split}-{step:08d}.png"
  with atomic.writing(path) as file:
    sheet.save(file, format="PNG")
  _write_page(workdir)
  return path


def cut(workdir: epath.Path, step: int) -> None:
  """Delete the sheets after `step`, from which a run is resumed."""
  later = [sheet for sheet in sheets(workdir) if sheet.step > step]
  for sheet in later:
    sheet.path.unlink()
  if later:
    _write_page(workdir)


def sheets(workdir: epath.Path) -> list[Sheet]:
  """Return every sheet of a run, the oldest first."""
  folder = workdir / layout.PICTURES
  pictures = []
  for path in folder.iterdir() if folder.is_dir() else ():
    if match := _NAME.fullmatch(path.name):
      pictures.append(Sheet(int(match["step"]), match["split"], path))
  return sorted(pictures)


def _write_page(workdir: epath.Path) -> None:
  figures = [
    f"<h2>step {step:,} {html.escape(split)}{_score(workdir, split, step)}</h2>"
    f'\n<img src="{html.escape(path.name)}" alt="step {step}">'
    for step, split, path in reversed(sheets(workdir))
  ]
  border = "img { border: 1px solid #ccc; }\n"
  page = html.page(workdir.name, figures, style=border, head=_REFRESH)
  atomic.write_text(workdir / layout.PICTURES / "index.html", page)


def _score(workdir: epath.Path, split: str, step: int) -> str:
  """Return ", mIoU 54.50%" if the step was evaluated, else ""."""
  paths = (workdir / layout.EVALUATIONS).glob(f"{split}-{step:08d}-os*.json")
  # The shortest name is the plain evaluation's; a sweep may have left others.
  for path in sorted(paths, key=lambda p: (len(p.name), p.name)):
    miou = results.miou_in(path)
    return "" if miou is None else f", mIoU {printed.score(miou)}"
  return ""
