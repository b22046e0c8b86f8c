"""Pages as a real browser shows them, without a window; skips without one."""

import pathlib
import re
import shutil
import subprocess

import numpy as np
from PIL import Image
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def _run(page: pathlib.Path, place: str, size: str, flag: str):
  found = next(filter(None, map(shutil.which, NAMES)), None)
  if found is None:
    pytest.skip(f"no {' or '.join(NAMES)} on the PATH")
  return subprocess.run(
    [
      *(found, "--headless", "--no-sandbox", "--disable-gpu"),
      *("--enable-logging=stderr", "--hide-scrollbars"),
      *(f"--window-size={size}", f"--user-data-dir={page.parent / 'profile'}"),
      flag,
      f"file://{page}{place}",
    ],
    capture_output=True,
    text=True,
    timeout=300,
    check=True,
  )


def shown(
  page: pathlib.Path, place: str = "", size: str = "1500,2400"
) -> tuple[list[str], np.ndarray]:
  """Return the console's lines and the pixels, at `#place` of the page."""
  shot = page.with_suffix(".png")
  done = _run(page, place, size, f"--screenshot={shot}")
  with Image.open(shot) as picture:
    pixels = np.asarray(picture.convert("RGB"))
  return re.findall(r".*CONSOLE.*", done.stderr), pixels


def document(page: pathlib.Path) -> str:
  """Return the page's HTML after its scripts have run."""
  return _run(page, "", "1500,2400", "--dump-dom").stdout
