"""Golden tensors, CamVid and the like: a folder that lies beside the checkout.

The project passes its tests without it; with it, it checks more. A small part
of the golden tensors is in tests/fixtures, for when it is not there.
"""

import os
import pathlib

import pytest

from tests.commands import ROOT

FIXTURES = ROOT / "tests" / "fixtures"


def path(name: str) -> pathlib.Path:
  """`name` in the shared folder or the fixtures, or skip and say why."""
  folder = pathlib.Path(
    os.environ.get("DEEPLAX_SHARED") or ROOT.parent / "shared"
  )
  for place in (folder / name, FIXTURES / name):
    if place.exists():
      return place
  pytest.skip(f"no {name} in {folder} (set DEEPLAX_SHARED to its folder)")
