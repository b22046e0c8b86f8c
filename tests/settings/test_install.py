"""An installed deeplax is one package and works from any folder."""

import ast
import fnmatch
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tests import conftest

ROOT = conftest.ROOT
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
  "setuptools"
]


def folder(package):
  given = SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))
  return ROOT / given


def test_every_package_is_listed_and_all_lie_in_deeplax():
  expected = {
    path.parent.relative_to(ROOT).as_posix().replace("/", ".")
    for path in (ROOT / "deeplax").rglob("__init__.py")
  }
  expected |= {"deeplax.configs", "deeplax.experiments"}
  assert sorted(expected) == SETUPTOOLS["packages"]
  assert folder("deeplax.configs") == ROOT / "configs"
  assert folder("deeplax.experiments") == ROOT / "experiments"


def test_every_file_that_is_no_module_is_listed():
  for package in SETUPTOOLS["packages"]:
    patterns = SETUPTOOLS["package-data"].get(package, [])
    for path in folder(package).iterdir():
      if path.is_file() and path.suffix != ".py":
        assert any(fnmatch.fnmatch(path.name, p) for p in patterns), path


@pytest.mark.parametrize("name", ["configs", "experiments"])
def test_files_that_lie_elsewhere_once_installed_do_not_import_each_other(name):
  for path in (ROOT / name).glob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      names = [alias.name for alias in getattr(node, "names", [])]
      if isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
      for imported in names:
        top = imported.partition(".")[0]
        assert top not in ("configs", "experiments", "tests"), path


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """Build the wheel and unpack it, as pip does."""
  pytest.importorskip("setuptools", reason="setuptools builds the wheel")
  source = tmp_path_factory.mktemp("source")
  for name in ("deeplax", "configs", "experiments"):
    leave = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / name, source / name, ignore=leave)
  for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
    shutil.copy(ROOT / name, source)
  code = "from setuptools import build_meta; build_meta.build_wheel('out')"
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=source, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]
  (wheel,) = (source / "out").glob("*.whl")
  target = tmp_path_factory.mktemp("installed")
  with zipfile.ZipFile(wheel) as file:
    file.extractall(target)
  return target


@pytest.fixture
def run(installed, tmp_path):
  """Return what runs a module where other packages have deeplax's names."""
  for name in ("configs", "experiments"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('theirs')")

  def run(*words, code=0, start=("-m",)):
    done = subprocess.run(
      [sys.executable, *start, *words],
      cwd=tmp_path, capture_output=True, text=True, check=False,
      env=os.environ | {"PYTHONPATH": str(installed), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr

  return run


def test_nothing_but_deeplax_is_installed(installed):
  tops = {path.name.partition("-")[0] for path in installed.iterdir()}
  assert tops == {"deeplax"}
  (scripts,) = installed.glob("deeplax-*.dist-info/entry_points.txt")
  assert scripts.read_text().split("\n")[:2] == [
    "[console_scripts]",
    "deeplax = deeplax.__main__:main",
  ]
  within = installed / "deeplax"
  assert not (within / "experiments" / "results").exists()
  for name in ("configs/camvid.py", "configs/cityscapes_as_camvid.json"):
    assert (within / name).exists(), name
  for name in ("experiments/v3plus_table1.py", "ablation/papers.json"):
    assert (within / name).exists(), name


def test_help_is_there(run):
  assert "--workdir" in run("deeplax.predict", "--help")


@pytest.mark.parametrize(
  "text", ["v3plus_xception", "configs/v3plus_xception.py"]
)
def test_a_configuration_is_found_and_said(run, installed, text):
  said = run("deeplax.main", f"--config={text}", code=2)
  path = installed / "deeplax" / "configs" / "v3plus_xception.py"
  assert f"--config={text} comes with deeplax: {path}" in said
  assert "VOCdevkit" in said  # it was read: its data is what is missing


@pytest.fixture
def typed(run, tmp_path):
  """Return what runs the console command as pip makes it."""
  script = tmp_path / "bin" / "deeplax"
  script.parent.mkdir()
  script.write_text(
    "import sys\nfrom deeplax.__main__ import main\nsys.exit(main())\n"
  )
  return lambda *words, code=0: run(*words, code=code, start=[script])


def test_the_console_command_works_in_any_folder(typed, tmp_path):
  assert "  train  " in typed()
  assert "did you mean evaluate" in typed("evalute", code=2)
  assert "usage: deeplax predict " in typed("predict", "--help")
  said = typed("train", "--config=v3plus_xception", code=2)
  assert "VOCdevkit" in said
  said = typed("evaluate", "--workdir=nowhere", code=2)
  assert "Train first: deeplax train --config=" in said
  said = typed("ablation", "report", "v3plus_table1", code=2)
  assert "Run: deeplax ablation run NAME" in said


@pytest.mark.slow  # 20 s: three starts of JAX, one training
def test_a_training_and_an_experiment_run_from_the_installed_package(
  run, typed, installed, tmp_path
):
  said = typed(
    "train", "--config", "quickstart:debug", "--config.train.total_steps=1"
  )
  assert "Next: deeplax evaluate --workdir=runs/quickstart_debug, or " in said
  assert (tmp_path / "runs" / "quickstart_debug" / "config.json").exists()
  first, *_ = run(
    "deeplax.experiments.run", "v3plus_table1:debug", "--dry_run"
  ).splitlines()
  within = installed / "deeplax" / "configs"
  assert f"--config={within}/v3plus_resnet101.py:debug " in first
  assert "--workdir=experiments/results/v3plus_table1_debug/" in first
  said = run("deeplax.experiments.report", "--help")
  assert "--costs-only" in said
