"""The doctor and its warning about an accelerator that lies idle."""

import re
import subprocess
import sys

import jax
import pytest

from deeplax import doctor
from deeplax import machine
from deeplax.ops import backend
from deeplax.ops import depthwise
from deeplax.ops import form_check
from tests import commands


def _machine(root, *files):
  for file in files:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).touch()
  return root


@pytest.mark.parametrize(
  ("files", "environ", "words"),
  [
    (["dev/nvidia0", "dev/nvidiactl"], {}, "jax[cuda13]"),
    (["proc/driver/nvidia/gpus/0000:01:00.0"], {}, "jax[cuda13]"),
    (["dev/accel0"], {}, "jax[tpu]"),
    (["dev/vfio/0"], {"TPU_WORKER_ID": "0"}, "jax[tpu]"),
  ],
)
def test_an_idle_accelerator_is_told_with_the_install_line(
  tmp_path, files, environ, words
):
  root = _machine(tmp_path, *files)
  warning = machine.accelerator_warning(
    root=root, environ=environ, backend="cpu"
  )
  assert warning and "pip install -U" in warning and words in warning


@pytest.mark.parametrize(
  ("files", "environ", "backend"),
  [
    ([], {}, "cpu"),
    (["dev/nvidiactl"], {}, "cpu"),  # the driver without a GPU
    (["dev/vfio/0"], {}, "cpu"),  # some device of a virtual machine
    (["dev/nvidia0"], {}, "gpu"),
    (["dev/accel0"], {}, "tpu"),
    (["dev/nvidia0"], {"JAX_PLATFORMS": "cpu"}, "cpu"),
    (["dev/nvidia0"], {"CUDA_VISIBLE_DEVICES": ""}, "cpu"),
  ],
)
def test_no_warning_without_reason(tmp_path, files, environ, backend):
  root = _machine(tmp_path, *files)
  assert (
    machine.accelerator_warning(root=root, environ=environ, backend=backend)
    is None
  )


def test_the_convolution_is_right():
  milliseconds, error = machine.convolution()
  assert milliseconds > 0 and error < 1e-4


def test_a_missing_package_is_a_problem(monkeypatch):
  monkeypatch.setattr(machine, "PACKAGES", ("jax", "jaxlib", "no-such-package"))
  found, problems = machine.examine()
  assert found["no-such-package"] == "missing"
  assert problems == [
    "no-such-package is not installed: pip install -r requirements.txt"
  ]


def test_the_command_ends_with_0_and_names_versions_and_devices():
  done = commands.command("doctor")
  assert done.returncode == 0, done.stderr
  for word in (*machine.PACKAGES, "devices", "convolution", "disk", "ready"):
    assert f"\n{word}" in done.stdout
  if jax.default_backend() == "cpu":
    assert (
      "forms               depthwise shifted, dense products" in done.stdout
    )
    for operation, form in (("depthwise", "shifted"), ("resize", "gathers")):
      assert re.search(rf"\n  {operation} +{form} [\d.]+ ms; ", done.stdout)
    assert "\n  12 programs compiled" in done.stdout
  assert "problem" not in done.stdout


def test_kernels_that_do_not_run_are_told_with_the_reason(monkeypatch):
  monkeypatch.setattr(backend, "platform", lambda: "gpu")
  assert "depthwise rows" in doctor.forms()
  reason = "Tesla T4 has compute capability 7.5, they need 8.0"
  monkeypatch.setattr(backend, "kernels_missing", lambda: reason)
  told = doctor.forms()
  assert "depthwise fused" in told and "statistics one_pass" in told
  assert reason in told


def test_a_form_of_wrong_values_is_a_problem(monkeypatch, capsys):
  right = depthwise.FORMS["library"]
  monkeypatch.setitem(
    depthwise.FORMS, "fused", lambda *args: 1.01 * right(*args)
  )
  case = form_check.depthwise_case(1, 9, 4)
  monkeypatch.setattr(form_check, "cases", lambda: [(case, None)])
  with pytest.raises(SystemExit) as ended:
    doctor.main([])
  assert ended.value.code == 1
  *_, problem, last = capsys.readouterr().out.splitlines()
  assert problem.startswith("problem: depthwise as fused differs from library")
  assert last == "not ready"


def test_a_faster_form_is_noted_and_the_machine_ready(monkeypatch, capsys):
  def compare(case, large):
    seconds = {"gathers": [0.002], "products": [0.001]}
    return form_check.Found(case, "gathers", seconds, {}, {}, 2)

  monkeypatch.setattr(form_check, "compare", compare)
  case = form_check.resize_case(1, 5, 9)
  monkeypatch.setattr(form_check, "cases", lambda: [(case, None)])
  with pytest.raises(SystemExit) as ended:
    doctor.main([])
  assert ended.value.code == 0
  told = capsys.readouterr().out
  assert "\n  resize            gathers 2 ms; products 1\n" in told
  assert "\nnote: resize of 5x5x21 to 9x9: the form products takes 1" in told


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_a_problem(platform):
  done = commands.process("doctor", JAX_PLATFORMS=platform)
  assert done.returncode == 1 and not done.stderr, done.stderr[-2000:]
  problem, last = done.stdout.splitlines()[-2:]
  told = f"problem: JAX_PLATFORMS={platform}: JAX cannot start its devices"
  assert problem.startswith(told) and last == "not ready"


def test_importing_the_doctor_does_not_start_jax():
  code = "import sys, deeplax.doctor; sys.exit('jax' in sys.modules)"
  assert (
    subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
  )
