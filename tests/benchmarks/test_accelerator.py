import json
import math
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator import bench as bench_lib
from benchmarks.accelerator import checks
from benchmarks.accelerator import networks
from benchmarks.accelerator import operations
from benchmarks.accelerator import peer
from benchmarks.accelerator import profile
from benchmarks.accelerator import table
from deeplax.ops import backend
from deeplax.training import profile as trace
from tests.conftest import ROOT

# Why a row may have no number.
REASONS = ("not available here", "skipped: ", "of whole steps: ")
# Three minutes on two cores where nothing is compiled yet. CI takes them.
WHOLE = () if os.environ.get("CI") else pytest.mark.slow


@pytest.fixture
def bench():
  bench = bench_lib.Bench(small=True, limit=600)
  bench.start()
  return bench


def ended(monkeypatch, *arguments):
  """Run the command here; return its exit status."""
  monkeypatch.setattr(sys, "argv", ["accelerator", *arguments])
  with pytest.raises(SystemExit) as error:
    accelerator.main()
  return error.value.code


def measured(section):
  """Return a section's rows, each with a value or the reason for none."""
  for row in section["rows"]:
    numbers = [v["median"] for v in row.values() if isinstance(v, dict)]
    assert all(0 < n < math.inf for n in numbers), row
    numbers += [v for v in row.values() if isinstance(v, float)]
    assert numbers or row["remark"].startswith(REASONS), row
  return section["rows"]


def test_sections_that_compile_little_leave_values(monkeypatch, tmp_path):
  out = tmp_path / "out.json"
  names = ("ceilings", "operations", "crf", "torch_resnet")
  status = ended(
    monkeypatch, "--small", f"--sections={','.join(names)}", f"--out={out}"
  )
  assert status == 0
  sections = json.loads(out.read_text())["sections"]
  assert [*sections] == [*names]
  for name, section in sections.items():
    assert section["status"] == "done" and measured(section), name
  told = out.with_suffix(".md").read_text()
  assert all(f"## {name} (" in told for name in names)
  rows = sections["operations"]["rows"]
  whats = [row["what"] for row in rows]
  for operation in backend.FORMS:
    assert any(what.startswith(operation) for what in whats), operation
  timed = {(r["what"], r["form"]) for r in rows if "microseconds" in r}
  directions = ("forward", "input gradient", "kernel gradient")
  for form in ("shifted", "fused", "library"):
    for direction in directions:
      assert (f"depthwise, 3x3x46, {direction}", form) in timed
  (skipped,) = sections["torch_resnet"]["rows"]
  assert skipped["remark"].startswith("skipped: ")


def test_a_section_that_fails_is_recorded_and_the_next_goes_on(
  monkeypatch, tmp_path
):
  out = tmp_path / "out.json"

  def good(bench):
    yield {"what": "good", "seconds": 2.0}

  def bad(bench):
    yield {"what": "half", "seconds": 1.0}
    # What is known is in the file by now.
    before = json.loads(out.read_text())["sections"]
    assert before["bad"]["rows"] == [{"what": "half", "seconds": 1.0}]
    assert before["last"]["status"] == "not reached"
    raise RuntimeError("out of memory")

  sections = {
    "bad": accelerator.Section(bad),
    "long": accelerator.Section(good, 541),
    "last": accelerator.Section(good),
  }
  monkeypatch.setattr(accelerator, "SECTIONS", sections)
  everything = ["--small", "--sections=bad,long,last", f"--out={out}"]
  assert ended(monkeypatch, *everything) == 1
  report = json.loads(out.read_text())["sections"]
  assert report["bad"]["status"] == "failed"
  assert report["bad"]["reason"] == "RuntimeError: out of memory"
  assert len(report["bad"]["rows"]) == 1
  assert report["long"]["status"] == "skipped"
  assert "may take 541 s" in report["long"]["reason"]
  assert report["last"]["status"] == "done"
  told = out.with_suffix(".md").read_text()
  assert "failed: RuntimeError: out of memory" in told
  assert "| half | 1 |" in told


@pytest.mark.parametrize(
  ("flag", "told"),
  [
    ("--sections=check,chekc,all", "'chekc', 'all' not in ['check', "),
    ("--forms=depth=rows", "'depth' not in ['depthwise', "),
    ("--forms=statistics=three", "statistics has no form 'three', but ["),
  ],
)
def test_an_unknown_name_ends_with_one_message(flag, told, monkeypatch, capsys):
  assert ended(monkeypatch, flag) == 2
  message = capsys.readouterr().err
  assert message.startswith("deeplax: --") and told in message
  assert message.count("\n") == 1


def test_floors_are_those_of_the_networks():
  bench = bench_lib.Bench(small=False, limit=60)
  # A copy's bytes and a product's operations a second of an NVIDIA H200.
  bench.ceilings = {"bytes": {"median": 4.3e12}, "flops": {"median": 776e12}}
  config = networks.NETWORKS["xception"].configuration(small=False)
  row = networks.speed(bench, config, 16, "step", [0.0427, 0.0427])
  # The paper (1802.02611, table 5) has 54.17 billion Multiply-Adds.
  assert row["gmacs_of_an_image"] == pytest.approx(54.17, rel=0.01)
  assert row["images_per_second"]["median"] == pytest.approx(374.7, abs=0.1)
  assert row["tflops_of_a_device"] == pytest.approx(
    6e-3 * 16 * row["gmacs_of_an_image"] / 0.0427
  )
  assert row["floor_of_flops_ms"] == pytest.approx(6.7, abs=0.1)
  assert row["floor_of_bytes_ms"] == pytest.approx(20.1, abs=0.1)
  assert row["share_of_floor"] == pytest.approx(20.13 / 42.7, abs=1e-3)


@pytest.mark.slow  # compiles four programs
@pytest.mark.usefixtures("short")
def test_a_training_step_and_its_forward_passes_are_timed(bench, monkeypatch):
  only = {"mobilenet": networks.NETWORKS["mobilenet"]}
  monkeypatch.setattr(networks, "NETWORKS", only)
  (step,) = networks.train(bench, "mobilenet")
  assert step["first_loss"] == pytest.approx(math.log(21), rel=0.1)
  for key in ("lower_seconds", "compile_seconds", "needs_gib"):
    assert step[key] > 0, key
  assert step["peak_gib"] == "not available here"
  passes = [*networks.forwards(bench)]
  assert [p["what"].rpartition(" ")[2] for p in passes] == ["1", "2"]
  for row in (step, *passes):
    speed = row["images_per_second"]["median"]
    assert 0 < speed and 0 < row["share_of_floor"] < 1
  kernels = [*networks.kernels(bench)]
  assert all(row["milliseconds"] >= 0 and row["calls"] > 0 for row in kernels)
  assert kernels[0]["milliseconds"] == max(k["milliseconds"] for k in kernels)


@pytest.mark.slow
def test_a_form_with_other_values_fails_the_check(bench, monkeypatch):
  window = checks.Window(5, 7, 3, rate=2, relu=True)
  monkeypatch.setattr(checks, "WINDOWS", (window,) * 3)
  rows = [*checks.check(bench)]
  assert len(rows) == 4
  for row in rows:
    if row["dtype"] == "float32":
      assert row["value"] < 1e-5 and row["map_gradient"] < 1e-5
    assert 0 < row["value"] < row["limit"]

  right = checks.depthwise.depthwise_conv

  def wrong(x, kernel, **keywords):
    y = right(x, kernel, **keywords)
    return y if backend.form("depthwise") == "library" else y.at[:, -1].set(0)

  monkeypatch.setattr(checks.depthwise, "depthwise_conv", wrong)
  with pytest.raises(ArithmeticError, match="depthwise, 5x7x3.*value differs"):
    list(checks.check(bench))


def test_a_section_leaves_out_what_its_limit_does_not_allow():
  bench = bench_lib.Bench(small=True, limit=-1)
  bench.start()
  for section in (checks.check, operations.operations, networks.forwards):
    for row in section(bench):
      assert row["remark"].startswith(("not reached in", "of whole steps"))


def test_kernels_are_added_up_by_kind():
  def line(name, *events):
    return types.SimpleNamespace(
      name=name,
      events=[
        types.SimpleNamespace(
          name=n, start_ns=i * 10**6, duration_ns=d, stats=[("hlo_op", op)]
        )
        for i, (n, d, op) in enumerate(events)
      ],
    )

  def plane(name, *lines):
    return types.SimpleNamespace(name=name, lines=lines)

  planes = [
    plane("/host:CPU", line("Stream", ("thread", 9, "x"))),
    plane(
      "/device:GPU:0",
      line(
        "Stream #13(Compute)",
        ("loop_add_fusion_3", 2000, "loop_add_fusion.3"),
        ("loop_add_fusion_12", 3000, "loop_add_fusion.12"),
        ("nvjet_sm90_tst_192x176_64x4", 4000, "custom-call.7"),
        ("depthwise_walk__33", 1500, "custom-call.8"),
      ),
      line("XLA Modules", ("jit_step", 99, "y")),
    ),
    plane("/device:GPU:1", line("Stream #13", ("loop_add_fusion_3", 9, "z"))),
  ]
  moved = {"loop_add_fusion_3": 1000, "custom_call_8": 6000}
  kinds = profile.kinds(trace.of_planes(planes), moved)
  assert [(k.name, k.calls) for k in kinds] == [
    ("loop_add_fusion", 2), (trace.LIBRARY, 1), ("depthwise_walk", 1),
  ]  # fmt: skip
  assert [k.seconds for k in kinds] == pytest.approx([5e-6, 4e-6, 1.5e-6])
  # Only of kernels whose bytes are known.
  assert kinds[0].speed == pytest.approx(1000 / 2e-6)
  assert kinds[1].speed is None and kinds[1].row()["gb_per_second"] == "unknown"
  assert kinds[2].row()["gb_per_second"] == pytest.approx(4.0)


def test_a_programs_bytes_are_those_of_its_operands_and_results():
  def function(x, y):
    return jnp.tanh(x) + y, (x * 2).astype(jnp.bfloat16)

  x = jnp.ones((8, 128))
  text = jax.jit(function).lower(x, x).compile().as_text()
  # x, y and their sum; x and its double in half precision.
  assert text and {3 * 4096, 4096 + 2048} <= {*profile.bytes_of(text).values()}
  planted = """
  %p.1 = bf16[2,3]{1,0} parameter(0)
  ROOT %fusion.2 = (f32[2]{0}, pred[5]{0}) fusion(%p.1, %p.1), kind=kLoop
  """
  assert profile.bytes_of(planted) == {"p_1": 12, "fusion_2": 8 + 5 + 24}


def test_a_peers_results_are_heard_until_its_time_is_over():
  code = "import sys, time; print('{\"what\": 1}', flush=True); "
  command = [sys.executable, "-c", code + "time.sleep(600)"]
  assert list(peer.lines(command, 1.5)) == [{"what": 1}]
  command[-1] = code + "print('warning'); sys.exit('no kernel')"
  heard = peer.lines(command, 60)
  assert next(heard) == {"what": 1}
  with pytest.raises(RuntimeError, match="no kernel"):
    next(heard)


def test_cells_have_four_digits():
  spread = {"median": 374.62, "min": 12.3456, "max": 1086.9, "all": []}
  assert table.cell(spread) == "374.6 (12.35 to 1,087)"
  assert table.cell(0.00012345) == "0.0001234" and table.cell("a|b") == "a/b"


@pytest.mark.parametrize("size", [pytest.param("small", marks=WHOLE)])
def test_everything_runs_on_a_cpu(size, tmp_path):
  out = tmp_path / "out.json"
  command = [sys.executable, "-m", "benchmarks.accelerator", f"--{size}"]
  command += ["--limit=900", "--minutes=60", f"--out={out}"]
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  sections = json.loads(pathlib.Path(out).read_text())["sections"]
  assert [*sections] == [*accelerator.SECTIONS]
  for name, section in sections.items():
    assert section["status"] == "done" and measured(section), name
  for row in sections["check"]["rows"]:
    for name in ("value", "map_gradient"):
      assert row[name] < row["limit"], row
  (step,) = sections["check_step"]["rows"]
  assert step["loss"] < 1e-5 and step["gradient"] < 0.03
