"""The notebook of the documents: kept without outputs, and it runs."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests import conftest

NOTEBOOK = conftest.ROOT / "docs" / "first_steps.ipynb"


def cells(kind: str) -> list[dict]:
  found = json.loads(NOTEBOOK.read_text())
  assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
  ids = [cell["id"] for cell in found["cells"]]
  assert len(ids) == len(set(ids))
  return [cell for cell in found["cells"] if cell["cell_type"] == kind]


def test_it_is_kept_without_outputs():
  for cell in cells("code"):
    assert cell["outputs"] == [] and cell["execution_count"] is None
  assert NOTEBOOK.stat().st_size < 20_000
  assert "".join(cells("markdown")[0]["source"]).startswith("# ")


@pytest.mark.slow  # 100 s: two trainings, each compiled
def test_its_cells_run_in_order(tmp_path):
  code = "\n\n".join("".join(cell["source"]) for cell in cells("code"))
  (tmp_path / "first_steps.py").write_text(code)
  done = subprocess.run(
    [sys.executable, "-W", "error::FutureWarning", "first_steps.py"],
    cwd=tmp_path, capture_output=True, text=True, check=False,
    env=os.environ | {"PYTHONPATH": str(conftest.ROOT)},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]
  assert (tmp_path / "runs" / "first_steps" / "checkpoints" / "200").is_dir()
  said = done.stdout
  assert re.search(r"^background +[5-9]\d\.\d%$", said, re.M), said
  miou = re.search(r"^mIoU ([\d.]+)%$", said, re.M)
  assert miou and float(miou[1]) > 15, said  # background alone: 8.6
  loss = re.search(r"^loss ([\d.]+) -> ([\d.]+)$", said, re.M)
  assert loss and float(loss[2]) < 0.8 * float(loss[1]), said
  assert "did you mean 'model.output_stride'" in said
