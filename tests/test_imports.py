"""Imports point one way, and the optional packages stay optional."""

import ast
from collections.abc import Iterator
import functools
import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = [
  path.relative_to(ROOT).as_posix()
  for folder in ("deeplax", "configs", "experiments", "benchmarks")
  for path in sorted((ROOT / folder).rglob("*.py"))
]
# Of the package's purpose: each must be required and used by the main command.
CARD = (
  *("clu", "flax", "jax", "ml-collections", "optax", "orbax-checkpoint"),
  "tensorflow-datasets",
)
# Loaded by the main command when the data is prepared by it.
LATE = ("tensorflow_datasets",)
OPTIONAL = ("onnx", "tensorboard", "tensorflow", "torch")
# clu's and flax's modules that import TensorFlow.
NEEDS_TENSORFLOW = (
  *("clu.checkpoint", "clu.metric_writers", "clu.periodic_actions"),
  "flax.training.checkpoints",
)
# These know nothing of the rest of deeplax; what they share is errors.
LEAVES = (
  *("deeplax.ops", "deeplax.metrics", "deeplax.crf", "deeplax.training.losses"),
  "deeplax.data.spec",
)
# A command that lies beside what it searches for; the package does not load it.
COMMANDS_IN_LEAVES = ("deeplax.crf.search",)


@functools.cache
def tree(source: str) -> ast.Module:
  return ast.parse((ROOT / source).read_text())


def module(source: str) -> str:
  return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
  """Yield the dotted names that import statements name, `from` joined."""
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, "relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
  """Walk what runs when a module is imported: all but function bodies."""
  for child in ast.iter_child_nodes(node):
    if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
      yield child
      yield from at_module_level(child)


def within(name: str, packages: tuple[str, ...]) -> bool:
  return any(name == p or name.startswith(f"{p}.") for p in packages)


def sources_of(*packages: str) -> list[str]:
  return [source for source in SOURCES if within(module(source), packages)]


@pytest.mark.parametrize("package", LEAVES)
def test_leaves_know_nothing_of_deeplax(package):
  allowed = (package, "deeplax.errors")
  if package == "deeplax.training.losses":
    allowed += ("deeplax.ops",)
  for source in sources_of(package):
    if module(source) in COMMANDS_IN_LEAVES:
      continue
    for name in imported(ast.walk(tree(source))):
      assert not within(name, COMMANDS_IN_LEAVES), f"{source} imports {name}"
      assert not within(name, ("deeplax",)) or within(name, allowed), (
        f"{source} imports {name}"
      )


@pytest.mark.parametrize(
  "package, forbidden",
  [
    ("deeplax.models", "deeplax.data"),
    ("deeplax.data", "deeplax.models"),
    ("deeplax.models", "deeplax.training.loop"),
    ("deeplax", "configs"),
    ("deeplax", "experiments"),
    ("deeplax", "tests"),
  ],
)
def test_imports_point_one_way(package, forbidden):
  for source in sources_of(package):
    names = set(imported(ast.walk(tree(source))))
    if (module(source), forbidden) == ("deeplax.workdir.checkpoint", "configs"):
      names.remove(
        "deeplax.settings.defaults"
      )  # the one reader of a saved configuration
    assert not [n for n in names if within(n, (forbidden,))], source


def test_configs_import_only_ml_collections_and_configs():
  for source in sources_of("configs"):
    for name in imported(ast.walk(tree(source))):
      assert within(name, ("ml_collections", "configs", "typing")), (
        f"{source}: {name}"
      )


@pytest.mark.parametrize("source", SOURCES)
def test_optional_packages_are_imported_inside_functions_only(source):
  for name in imported(at_module_level(tree(source))):
    assert not within(name, OPTIONAL + NEEDS_TENSORFLOW), (
      f"{source} imports {name} at module level"
    )


@pytest.mark.parametrize("folder", ["ops", "models", "metrics", "data"])
def test_a_config_is_read_only_by_build_files(folder):
  for source in sources_of(f"deeplax.{folder}"):
    if not source.endswith("/build.py"):
      names = imported(ast.walk(tree(source)))
      assert not [n for n in names if within(n, ("ml_collections",))], source


def requirements() -> set[str]:
  """Names in requirements.txt, as package indices write them."""
  lines = (ROOT / "requirements.txt").read_text().splitlines()
  names = (re.match(r"[\w.-]+", line) for line in lines)
  return {normalised(name[0]) for name in names if name}


def normalised(name: str) -> str:
  return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_imported_is_required():
  distributions = importlib.metadata.packages_distributions()
  for source in sources_of("deeplax", "configs", "experiments"):
    for name in imported(ast.walk(tree(source))):
      top = name.split(".")[0]
      own = top in ("deeplax", "configs", "experiments")
      if own or top in sys.stdlib_module_names or within(name, OPTIONAL):
        continue
      required = {normalised(d) for d in distributions.get(top, [top])}
      assert required & requirements(), f"{source} imports {top}"


@functools.cache
def loaded_by_main() -> frozenset[str]:
  """Modules in memory once the main command has imported what it needs."""
  code = (
    "import json, sys; import deeplax.main, deeplax.training.run; "
    "print(json.dumps(sorted(sys.modules)))"
  )
  result = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT, capture_output=True, text=True, check=True,
  )  # fmt: skip
  return frozenset(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", CARD)
def test_each_package_of_the_card_is_required_and_used_by_main(package):
  assert package in requirements()
  names = {"orbax-checkpoint": "orbax.checkpoint"}
  name = names.get(package, package.replace("-", "_"))
  assert name in loaded_by_main() or name in LATE
  reached = {s for s in SOURCES if module(s) in loaded_by_main()}
  assert any(
    within(imported_name, (name,))
    for source in reached
    if source.startswith(("deeplax/", "configs/"))
    for imported_name in imported(ast.walk(tree(source)))
  ), f"nothing that main reaches imports {name}"


def test_main_leaves_tensorflow_and_torch_alone():
  assert not loaded_by_main() & set(OPTIONAL)
