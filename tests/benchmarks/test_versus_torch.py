"""deeplax against PyTorch: runs in turn, their ratio, and its picture."""

import importlib.util
import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from benchmarks import versus_torch
from tests import conftest

SIDE = """
import json, sys
seconds = 3.0 if sys.argv[1] == "torch" else 1.5
print("a library's own words")
print(json.dumps({"difference": 2e-6, sys.argv[1]: "1.0"}), flush=True)
for number, _ in enumerate(sys.stdin):
  run = {"seconds": seconds + number, "cpu_seconds": 2 * seconds}
  print(json.dumps({**run, "megabytes": 700.0 + number}), flush=True)
"""


@pytest.fixture
def row(monkeypatch, tmp_path):
  script = tmp_path / "side.py"
  script.write_text(SIDE)
  popen = subprocess.Popen

  def started(command, **keywords):
    return popen([sys.executable, str(script), *command[3:]], **keywords)

  monkeypatch.setattr(subprocess, "Popen", started)
  monkeypatch.setattr(
    sys, "argv", ["versus_torch", "--reps=3", "--networks=resnet101"]
  )
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
  monkeypatch.setattr(versus_torch, "WHATS", ("step",))
  monkeypatch.setattr(versus_torch, "RESULT", tmp_path / "found.json")
  monkeypatch.setattr(versus_torch.timing, "use_cores", lambda count: None)
  versus_torch.main()
  report = json.loads((tmp_path / "found.json").read_text())
  (found,) = report["rows"]
  return found, (tmp_path / "found.svg").read_text()


def test_each_round_runs_both_and_their_ratio_is_told(row, capsys):
  found, svg = row
  assert found["torch"] == found["deeplax"] == "1.0"
  assert found["seconds"]["torch"]["all"] == [3.0, 4.0, 5.0]
  assert found["ratio"]["all"] == [0.5, 2.5 / 4, 3.5 / 5]
  assert found["cpu_ratio"]["median"] == 0.5
  assert found["megabytes"] == {"torch": 702.0, "deeplax": 702.0}
  texts = [e.text for e in ElementTree.fromstring(svg).iter() if e.text]
  assert "resnet101, step" in texts and "0.62" in texts
  lines = versus_torch.text(found).splitlines()
  assert lines[0] == "resnet101, step, logits within 2e-06"
  assert lines[1].strip().startswith("torch    4.000 s (3.000 to 5.000)")
  assert lines[3].strip() == (
    "deeplax / torch 0.62 (0.50 to 0.70), CPU 0.50 (0.50 to 0.50)"
  )


def test_a_side_that_ends_is_told():
  with versus_torch.side("torch", "no such network", "step") as process:
    with pytest.raises(SystemExit, match="torch no such network step has end"):
      versus_torch.answer(process)


def test_what_is_missing_is_named():
  code = (
    "import sys; sys.modules['timm'] = None; sys.argv[1:] = ['--reps=1']; "
    "import importlib.util as u; find = u.find_spec; "
    "u.find_spec = lambda n: None if n == 'timm' else n; "
    "from benchmarks import versus_torch; versus_torch.main()"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=conftest.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert 'timm is not installed: pip install -e ".[bench]"' in done.stderr
