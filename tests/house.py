"""The rules of the house: each takes the sources and returns the breaches.

The sources are a dictionary, path -> text, so that tests can plant a breach.
ARCHITECTURE.md tells the rules; test_house.py holds them.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
import functools
import importlib.metadata
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
CODE = ("deeplax", "configs", "experiments", "benchmarks")
Tree = Mapping[str, str]

# Files of deeplax/ that are no doors; flags are what doors share.
GROUND = (
  *("ahead", "arrays", "atomic", "clocks", "commands", "errors", "machine"),
  *("labels", "parallel", "paths", "text_files"),
)
# Names alone: a leaf may know them.
VALUES = ("deeplax.arrays", "deeplax.errors", "deeplax.labels")
FLAGS = ("flags", "config_flag")
# From the ground up: an import never goes up, nor sideways.
FLOORS = (
  (*GROUND, "settings", "ops", "metrics", "crf"),
  ("models", "data", "workdir"),
  ("pretrained",),
  ("inference",),
  ("reports",),
  ("training",),
  ("ablation", "api", *FLAGS),
)
# (from, to) on one floor, and why.
SIDEWAYS = {
  ("workdir", "data"): "a run keeps the names and colors of its classes",
}
DOOR_LINES = 100
# Doors inside rooms. The first two are also what their names say, libraries;
# the last one stands above all rooms, though it lies in the lowest.
DOORS_IN_ROOMS = ("deeplax.data.build", "deeplax.data.shapes")
HIGH_DOOR = "deeplax.crf.search"
# What doors import for their flags' choices: values, which load nothing else.
CHOICES = (
  *("deeplax.settings.protocols", "deeplax.settings.published"),
  *("deeplax.data.spec", "deeplax.data.evaluation_servers"),
)
# What doors and their flags import before a flag is read.
LIGHT = (
  *sys.stdlib_module_names,
  *("absl", "ml_collections", "deeplax.settings", *CHOICES),
  *(f"deeplax.{name}" for name in (*GROUND, *FLAGS)),
)
LIGHT_TABLES = (
  *("deeplax.ablation.flags", "deeplax.ablation.experiment"),
  "deeplax.ablation.imagenet_sources",
)
# These know only themselves, errors and what stands behind them here.
LEAVES = {
  "deeplax.ops": (),
  "deeplax.metrics": (),
  "deeplax.crf": (),
  "deeplax.data.spec": (),
  "deeplax.training.losses": ("deeplax.ops",),
}

# Files that read a configuration by their name, but never in these rooms.
CONFIG_FILES = ("settings.py", "build.py", "*_from_config.py")
NO_CONFIG = (
  *("deeplax.ops", "deeplax.metrics", "deeplax.crf", "deeplax.pretrained"),
)

FILE_LINES = 400
FUNCTION_LINES = 80
ARGUMENTS = 8
TESTED_LINES = 60
LAYOUT = "deeplax/workdir/layout.py"  # every name of a run's files

OPTIONAL = ("tensorboard", "tensorflow", "torch")
# clu's and flax's modules that import TensorFlow.
NEEDS_TENSORFLOW = (
  *("clu.checkpoint", "clu.metric_writers", "clu.periodic_actions"),
  "flax.training.checkpoints",
)


def sources() -> dict[str, str]:
  """Return the checkout's Python, tests included."""
  paths = [p for f in (*CODE, "tests") for p in (ROOT / f).rglob("*.py")]
  return {p.relative_to(ROOT).as_posix(): p.read_text() for p in sorted(paths)}


@functools.cache
def parsed(text: str) -> ast.Module:
  return ast.parse(text)


@functools.cache
def nodes(text: str) -> list[ast.AST]:
  return [*ast.walk(parsed(text))]


def module(path: str) -> str:
  return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def imports(text: str, *, when_loaded: bool = False) -> list[str]:
  """Return the dotted names that import statements name, `from` joined.

  Args:
    text: Of a file.
    when_loaded: Leave out what only a call of a function imports.
  """
  names = []
  for node in at_module_level(parsed(text)) if when_loaded else nodes(text):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, "relative import"
      names += [f"{node.module}.{alias.name}" for alias in node.names]
  return names


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
  """Walk what runs when a module is imported: all but function bodies."""
  for child in ast.iter_child_nodes(node):
    if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
      yield child
      yield from at_module_level(child)


@functools.cache
def functions(text: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
  kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
  return [node for node in nodes(text) if isinstance(node, kinds)]


def within(name: str, packages: Iterable[str]) -> bool:
  return any(name == p or name.startswith(f"{p}.") for p in packages)


def room(name: str) -> str:
  """Return the folder or file of deeplax/ that a dotted name is in."""
  top, _, rest = name.partition(".")
  return rest.partition(".")[0] if top == "deeplax" else ""


def floor(name: str) -> int | None:
  """Return the floor of a module; doors and experiments are above all."""
  if name == HIGH_DOOR or within(name, ("experiments",)):
    return len(FLOORS)
  for number, rooms in enumerate(FLOORS):
    if room(name) in rooms:
      return number
  return None


def of(tree: Tree, *packages: str) -> list[str]:
  """Return the paths of the packages' modules; without any, all but tests."""
  return [path for path in tree if within(module(path), packages or CODE)]


def doors(tree: Tree) -> list[str]:
  """Return the paths of deeplax/*.py that are neither ground nor flags."""
  known = ("__init__", "__main__", *GROUND, *FLAGS)
  top = [path for path in of(tree, "deeplax") if path.count("/") == 1]
  return [p for p in top if pathlib.PurePath(p).stem not in known]


def doors_hold_flags_and_one_call(tree: Tree) -> list[str]:
  wrong = []
  tables = [p for p in of(tree, "experiments") if "\ndef main(" in tree[p]]
  high = f"{HIGH_DOOR.replace('.', '/')}.py"
  for path in (*doors(tree), high, *tables):
    mains = [f for f in functions(tree[path]) if f.name == "main"]
    marks = [ast.unparse(mark) for f in mains for mark in f.decorator_list]
    if marks != ["errors.command"]:
      wrong.append(f"{path}: no main under errors.command")
    if (lines := len(tree[path].splitlines())) > DOOR_LINES:
      wrong.append(f"{path}: {lines} lines, over {DOOR_LINES}")
    wrong += [
      f"{path}: imports {name} outside main"
      for name in imports(tree[path], when_loaded=True)
      if not within(name, (*LIGHT, *(LIGHT_TABLES if path in tables else ())))
    ]
  wrong += [
    f"{path}: imports {name}, and doors import it"
    for path in of(tree, *(f"deeplax.{name}" for name in FLAGS))
    for name in imports(tree[path], when_loaded=True)
    if not within(name, LIGHT)
  ]
  for name in DOORS_IN_ROOMS:
    text = tree.get(f"{name.replace('.', '/')}.py", "")
    if "main" not in [function.name for function in functions(text)]:
      wrong.append(f"{name}: no main")
  return wrong


def choices_load_nothing(tree: Tree) -> list[str]:
  allowed = (
    *CHOICES,
    "deeplax.errors",
    "deeplax.labels",
    *sys.stdlib_module_names,
  )
  return [
    f"{path}: imports {name}, and doors import it for their flags"
    for path in of(tree, *CHOICES)
    for name in imports(tree[path], when_loaded=True)
    if not within(name, allowed)
  ]


def doors_lead_nowhere(tree: Tree) -> list[str]:
  """Nothing but tests imports a door, nothing but doors the flags."""
  ends = (*(module(path) for path in doors(tree)), HIGH_DOOR)
  shared = tuple(f"deeplax.{name}" for name in FLAGS)
  wrong = []
  for path in of(tree):
    for name in imports(tree[path]):
      if within(name, ends) and path != "deeplax/__main__.py":
        wrong.append(f"{path}: imports the door {name}")
      if within(name, shared) and module(path) not in ends:
        wrong.append(f"{path}: imports {name}, which doors share")
  return wrong


def imports_never_go_up(tree: Tree) -> list[str]:
  top = doors(tree)
  wrong = []
  for path in of(tree, "deeplax"):
    if path in top or module(path) in ("deeplax", "deeplax.__main__"):
      continue
    here, own = floor(module(path)), room(module(path))
    if here is None:
      wrong.append(f"{path}: no floor for {own}")
      continue
    for name in imports(tree[path]):
      there, other = floor(name), room(name)
      if there is None or other == own:
        continue
      if there > here:
        wrong.append(f"{path}: imports {name} of a higher floor")
      aside = there == here and other not in GROUND
      if aside and (own, other) not in SIDEWAYS:
        wrong.append(f"{path}: imports {name} of the same floor")
  return wrong


def files_load_in_any_order(tree: Tree) -> list[str]:
  """Imports at module level have no circles: whichever file comes first."""
  known = {module(path): path for path in of(tree, "deeplax")}
  wanted = {
    name: {i for i in imports(tree[path], when_loaded=True) if i in known}
    for name, path in known.items()
  }
  while free := [n for n, needs in wanted.items() if not needs & {*wanted}]:
    for name in free:
      del wanted[name]
  return [f"{known[name]}: imports itself, through others" for name in wanted]


def leaves_know_nothing_else(tree: Tree) -> list[str]:
  wrong = []
  for leaf, others in LEAVES.items():
    allowed = (leaf, *VALUES, *others)
    for path in of(tree, leaf):
      for name in imports(tree[path]) if module(path) != HIGH_DOOR else ():
        if within(name, ("deeplax",)) and not within(name, allowed):
          wrong.append(f"{path}: imports {name}")
  return wrong


def the_package_knows_no_other(tree: Tree) -> list[str]:
  return [
    f"{path}: imports {name}"
    for path in of(tree, "deeplax")
    for name in imports(tree[path])
    if within(name, ("configs", "experiments", "benchmarks", "tests"))
  ]


def configs_import_settings_alone(tree: Tree) -> list[str]:
  """So that each loads by its path, from any folder."""
  allowed = ("deeplax.settings", "ml_collections", *sys.stdlib_module_names)
  return [
    f"{path}: imports {name}"
    for path in of(tree, "configs")
    for name in imports(tree[path])
    if not within(name, allowed)
  ]


@functools.cache
def reads_config(text: str) -> bool:
  """Whether a file knows ConfigDict, or a function in it takes one."""
  for function in functions(text):
    given = function.args
    for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs):
      kind = ast.unparse(arg.annotation) if arg.annotation else ""
      if arg.arg == "config" or "ConfigDict" in kind:
        return True
  return any(within(name, ("ml_collections",)) for name in imports(text))


def few_files_read_a_config(tree: Tree, readers: Iterable[str]) -> list[str]:
  exempt = (*doors(tree), *(f"deeplax/{name}.py" for name in FLAGS))
  wrong = []
  for path in of(tree, "deeplax"):
    by_name = any(pathlib.PurePath(path).match(name) for name in CONFIG_FILES)
    free = path in exempt or module(path) == HIGH_DOOR
    free |= within(module(path), ("deeplax.settings",))
    free |= by_name and not within(module(path), NO_CONFIG)
    if not free and path not in readers and reads_config(tree[path]):
      wrong.append(f"{path}: reads a configuration")
  for path in readers:
    if not reads_config(tree.get(path, "")):
      wrong.append(f"{path}: reads no configuration, is listed in vain")
  return wrong


def _measured(
  large: Mapping[str, int], allowed: Iterable[str], unit: str, what: str
) -> list[str]:
  """Return what is too large, and what the list allows without need."""
  wrong = [f"{k}: {v} {unit}" for k, v in large.items() if k not in allowed]
  return wrong + [
    f"{key}: not {what}, is listed in vain"
    for key in allowed
    if key not in large
  ]


def nothing_is_too_long(tree: Tree, allowed: Iterable[str]) -> list[str]:
  """Files by path, functions by path::name; what is allowed must be long."""
  long = {}
  for path in of(tree):
    if (lines := len(tree[path].splitlines())) > FILE_LINES:
      long[path] = lines
    for function in functions(tree[path]):
      lines = (function.end_lineno or 0) - function.lineno + 1
      if lines > FUNCTION_LINES:
        long[f"{path}::{function.name}"] = lines
  return _measured(long, allowed, "lines", "too long")


def no_function_takes_too_much(tree: Tree, allowed: Iterable[str]) -> list[str]:
  """Functions by path::name; without self and cls, *args and **kwargs."""
  many = {}
  for path in of(tree):
    for function in functions(tree[path]):
      args = function.args
      names = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
      count = len([name for name in names if name not in ("self", "cls")])
      if count > ARGUMENTS:
        many[f"{path}::{function.name}"] = count
  return _measured(many, allowed, "arguments", "too many arguments")


def every_file_has_its_test(
  tree: Tree, covered: Mapping[str, str]
) -> list[str]:
  """At its own path below tests/, or at the one that `covered` gives."""
  wrong, needed = [], set()
  for path in of(tree, "deeplax"):
    inside = path.removeprefix("deeplax/")
    folder, _, name = inside.rpartition("/")
    own = pathlib.PurePath(folder, f"test_{name}").as_posix()
    short = len(tree[path].splitlines()) <= TESTED_LINES
    if short or f"tests/{own}" in tree:
      continue
    needed.add(inside)
    if (test := f"tests/{covered.get(inside, own)}") not in tree:
      wrong.append(f"{path}: no {test}")
  return wrong + [
    f"{path}: gone, short or has its own test, is listed in vain"
    for path in covered
    if path not in needed
  ]


def outside_f_strings(node: ast.AST) -> Iterator[ast.AST]:
  for child in ast.iter_child_nodes(node):
    if not isinstance(child, ast.JoinedStr):
      yield child
      yield from outside_f_strings(child)


@functools.cache
def constants(text: str) -> list[ast.Constant]:
  """Return what is written out outside of f-strings."""
  found = outside_f_strings(parsed(text))
  return [node for node in found if isinstance(node, ast.Constant)]


def one_room_knows_a_workdirs_files(tree: Tree) -> list[str]:
  names = {
    node.value.value
    for node in parsed(tree[LAYOUT]).body
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
  }
  return [
    f"{path}:{node.lineno}: {node.value!r}"
    for path in of(tree)
    for node in constants(tree[path])
    if node.value in names
    if not within(module(path), ("deeplax.workdir",))
  ]


def optional_packages_wait_for_a_call(tree: Tree) -> list[str]:
  return [
    f"{path}: imports {name} at module level"
    for path in of(tree)
    for name in imports(tree[path], when_loaded=True)
    if within(name, OPTIONAL + NEEDS_TENSORFLOW)
  ]


def everything_imported_is_required(tree: Tree) -> list[str]:
  own = ("deeplax", "configs", "experiments")
  known = (*own, *OPTIONAL, *sys.stdlib_module_names)
  wrong = []
  for path in of(tree, *own):
    for name in imports(tree[path]):
      top = name.partition(".")[0]
      if top in known:
        continue
      needed = {normalized(d) for d in distributions().get(top, [top])}
      if not needed & requirements():
        wrong.append(f"{path}: imports {top}, not in requirements.txt")
  return wrong


@functools.cache
def distributions() -> Mapping[str, list[str]]:
  """Return the installed packages that a top-level name comes from."""
  return importlib.metadata.packages_distributions()


@functools.cache
def requirements() -> frozenset[str]:
  """Return the names in requirements.txt, as package indices write them."""
  lines = (ROOT / "requirements.txt").read_text().splitlines()
  names = (re.match(r"[\w.-]+", line) for line in lines)
  return frozenset(normalized(name[0]) for name in names if name)


def normalized(name: str) -> str:
  return re.sub(r"[-_.]+", "-", name).lower()


def loaded_by(code: str) -> set[str]:
  """Return the modules in memory once a process of its own has run `code`."""
  done = subprocess.run(
    [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return set(done.stdout.splitlines()[-1].split())
