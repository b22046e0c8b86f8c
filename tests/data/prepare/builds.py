"""Data sets built by the command, here, and read as a run reads them."""

import pathlib

import ml_collections
import numpy as np
import pytest

from deeplax.data import build
from deeplax.data import files
from deeplax.data import prepared as prepared_lib
from deeplax.data.prepare import command
from deeplax.settings import defaults
from tests.data import trees

CITYSCAPES = ("train", "val", "test", "train_extra")


def run(capsys, *argv) -> tuple[int, str, str]:
  """Run the command here; return its status and what it printed."""
  with pytest.raises(SystemExit) as end:
    command.main([str(word) for word in argv])
  printed = capsys.readouterr()
  return int(end.value.code or 0), printed.out, printed.err


def built(capsys, name, tree, out, *more) -> None:
  status, _, told = run(
    capsys, name, f"--source={tree}", f"--out={out}", "--allow_partial", *more
  )
  assert status == 0, told


def data(name: str, root: pathlib.Path) -> ml_collections.ConfigDict:
  config = defaults.base().data
  config.name, config.root = name, str(root)
  return config


def prepared(name: str, root: pathlib.Path, split: str) -> files.Decoded:
  """Read what was built, as a run does."""
  found = build.source(data(name, root), split)
  assert isinstance(found, prepared_lib.Prepared)
  return found


def assert_equal(found, expected) -> None:
  """Compare names, bytes of pictures, pixels of pictures and labels."""
  assert len(found) == len(expected) > 0
  for i in range(len(expected)):
    assert found.encoded(i).image == expected.encoded(i).image
    assert found[i]["name"] == expected[i]["name"]
    for key in ("image", "label"):
      np.testing.assert_array_equal(found[i][key], expected[i][key])


def contents(root: pathlib.Path) -> dict[str, bytes]:
  return {
    p.relative_to(root).as_posix(): p.read_bytes()
    for p in root.rglob("*")
    if p.is_file()
  }


def readable(out: pathlib.Path, name: str) -> bool:
  return prepared_lib.newest(out / name) is not None


MAKE = {
  "voc2012": lambda root: trees.voc(root),
  "cityscapes": lambda root: trees.cityscapes(root),
  "ade20k": lambda root: trees.ade20k(root),
  "folder": lambda root: trees.folder(root / "mine"),
  "coco": lambda root: trees.coco(root),
}
