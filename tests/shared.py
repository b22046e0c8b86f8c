"""Golden tensors, CamVid and the like: a folder that lies beside the checkout.

The project passes its tests without it; with it, it checks more.
"""

import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def path(name: str) -> pathlib.Path:
  """`name` inside the shared folder, or skip the test and say why."""
  folder = pathlib.Path(
    os.environ.get("DEEPLAX_SHARED") or ROOT.parent / "shared"
  )
  found = folder / name
  if not found.exists():
    pytest.skip(f"no {name} in {folder} (set DEEPLAX_SHARED to its folder)")
  return found
