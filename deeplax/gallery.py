"""The same validation images after each evaluation, on one local page.

pictures/<split>-<step>.png is a sheet of image, truth and prediction;
pictures/index.html shows the sheets, newest first, and reloads itself.
"""

import html
import io
import json
import re

from etils import epath
from PIL import Image

_NAME = re.compile(r"(?P<split>.+)-(?P<step>\d{8})\.png")
_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="30">
<title>{title}</title>
<style>
  body {{ font: 15px sans-serif; margin: 2em; }}
  img {{ max-width: 100%; border: 1px solid #ccc; }}
</style>
<h1>{title}</h1>
{figures}
"""


def add(
  workdir: epath.Path, split: str, step: int, sheet: Image.Image
) -> epath.Path:
  """Write the sheet of a step and the page of all; return the sheet's path.

  Sheets of later steps, which a resumed run has not reached again, go.
  """
  folder = workdir / "pictures"
  folder.mkdir(parents=True, exist_ok=True)
  for path, _, later in _sheets(folder):
    if later > step:
      path.unlink()
  data = io.BytesIO()
  sheet.save(data, format="PNG")
  path = folder / f"{split}-{step:08d}.png"
  _write(path, data.getvalue())
  figures = [
    f"<h2>step {at:,} {html.escape(name)}{_score(workdir, name, at)}</h2>\n"
    f'<img src="{html.escape(picture.name)}" alt="step {at}">'
    for picture, name, at in reversed(_sheets(folder))
  ]
  title = html.escape(workdir.name)
  page = _PAGE.format(title=title, figures="\n".join(figures))
  _write(folder / "index.html", page.encode())
  return path


def _sheets(folder: epath.Path) -> list[tuple[epath.Path, str, int]]:
  """Return (path, split, step) of every sheet, by step."""
  found = []
  for path in folder.iterdir():
    if match := _NAME.fullmatch(path.name):
      found.append((path, match["split"], int(match["step"])))
  return sorted(found, key=lambda item: (item[2], item[1]))


def _score(workdir: epath.Path, split: str, step: int) -> str:
  """Return ", mIoU 54.5%" where that step was evaluated."""
  for path in sorted((workdir / "eval").glob(f"{split}-{step:08d}-*.json")):
    return f", mIoU {json.loads(path.read_text())['miou']:.1%}"
  return ""


def _write(path: epath.Path, data: bytes) -> None:
  """Write so that the page never shows half a picture."""
  partial = path.parent / f".{path.name}.partial"
  partial.write_bytes(data)
  partial.replace(path)
