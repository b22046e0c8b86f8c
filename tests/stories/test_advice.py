"""What messages tell the user to write or to run is there, and works."""

import ast
import importlib
import re

import pytest

from deeplax import __main__ as overview
from deeplax import config_flag
from deeplax.settings import defaults
from deeplax.workdir import settings
from experiments import report
from experiments import run as run_door
from experiments import v3plus_table4
from tests import commands
from tests import house
from tests import runs
from tests.data import trees


def options() -> dict[str, set[str]]:
  """Return the flags of each command."""
  found = {
    name: importlib.import_module(f"deeplax.{name}")
    for name in overview.commands()
    if name not in ("main", "data.build", "data.shapes")
  }
  found["data.build"] = importlib.import_module("deeplax.data.prepare.command")
  parsers = {name: module.parser for name, module in found.items()}
  parsers |= {
    "experiments.run": run_door.parser,
    "experiments.report": report.parser,
    "experiments.v3plus_table4": v3plus_table4.parser,
  }
  result = {
    name: {text for a in parser()._actions for text in a.option_strings}
    for name, parser in parsers.items()
  }
  result["submit"] |= result["predict"]  # passed on
  result["main"] = {f"--{name}" for name in (*config_flag._FLAGS, "help")}
  result["data.shapes"] = {"--out", "--images", "--size"}
  return result


OPTIONS = options()
KEYS = set(settings.flatten(defaults.base()))


def texts(tree: ast.AST):
  """Yield every text of a file, what f-strings fill in as a question mark."""
  for node in ast.walk(tree):
    if isinstance(node, ast.JoinedStr):
      parts = (
        p.value if isinstance(p, ast.Constant) else "?" for p in node.values
      )
      yield "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield node.value


def messages():
  """Yield (file, text) of all texts of deeplax and of experiments."""
  for path, text in house.sources().items():
    if path.startswith(("deeplax/", "experiments/")):
      for found in texts(house.parsed(text)):
        yield path, found


# Of torchvision, git and TensorBoard.
OTHERS = {"--weight_decay", "--always", "--dirty", "--logdir"}


def test_every_flag_that_a_message_names_is_one():
  known = set.union(*OPTIONS.values())
  seen = 0
  for path, text in messages():
    for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*(?![\w.?-])", text):
      assert flag in known | OTHERS, (path, flag)
      seen += 1
  assert seen > 200


def test_every_key_that_a_message_names_is_one():
  seen = 0
  parts = {key.rpartition(".")[0] for key in KEYS}
  for path, text in messages():
    for key in re.findall(r"--config\.([a-z_][\w.]*\w)(?![?\w])", text):
      assert key in KEYS | {"name"} or key in parts, (path, key)
      seen += 1
  assert seen > 20


def test_every_command_that_a_message_runs_has_its_flags():
  seen = 0
  for path, text in messages():
    words = " ".join(text.replace("\\\n", " ").split())
    for name, rest in re.findall(
      r"python -m deeplax\.([a-z_][\w.]*\w)((?: --?[\w.=,?/'-]+)*)", words
    ):
      assert name in OPTIONS, (path, name)
      for flag in re.findall(r" (--[a-z]\w*)(?=[ =]|$)", rest):
        takes_config = {"main", "convert", "overfit_check"}
        known = OPTIONS[name] | (
          {"--config"} if name in takes_config else set()
        )
        assert flag in known, (path, name, flag)
      seen += 1
  assert seen > 30


MAIN = (*runs.SMALL, "--workdir={run}")  # has finished

# A command, what is wrong, what the message tells, and what that makes of it.
# The last may take words from the message: the groups of the second.
FOLLOWED = (
  (
    *("check_data", ["{data}", "--split=val", "--full", "--images=3"]),
    *("leave --images out", ["{data}", "--split=val", "--full"]),
  ),
  (
    *("check_data", ["{data}", "--images=-1"]),
    *("--images=-1: give 0 or more", ["{data}", "--images=0"]),
  ),
  (
    *("check_data", ["{data}", "--threads=0"]),
    *("--threads=0: give 1 or more", ["{data}", "--threads=1"]),
  ),
  (
    *("score", ["{labels}", "{labels}", "--trimap=1;2"]),
    *("commas between, as (16,8)", ["{labels}", "{labels}", "--trimap={0}"]),
  ),
  (
    *("__main__", ["evalute", "--help"]),
    *("did you mean (evaluate)\\?", ["{0}", "--help"]),
  ),
  (
    *("predict", ["--workdir={run}", "--out={file}", "{image}"]),
    *(
      "is a file; name a folder",
      ["--workdir={run}", "--out={tmp}", "{image}"],
    ),
  ),
  (
    *("predict", ["--workdir={run}", "--out={tmp}", "--step=3", "{image}"]),
    r"no step 3 in \S+; steps: \[(\d+), \d+\]",
    ["--workdir={run}", "--out={tmp}", "--step={0}", "{image}"],
  ),
  (
    *("predict", ["--workdir={run}", "--out={tmp}", "--step=last", "{image}"]),
    r"'last' must be a number or (best)",
    ["--workdir={run}", "--out={tmp}", "--step={0}", "{image}"],
  ),
  (
    *("predict", ["--workdir={runs}/run", "--out={tmp}", "{image}"]),
    r"Nearest: .*?({run}) \(steps 2, 4\)",
    ["--workdir={0}", "--out={tmp}", "{image}"],
  ),
  (
    *("predict", ["--workdir={run}", "--out={tmp}", "--overlap=9", "{image}"]),
    r"see (--window) and --overlap",
    ["--workdir={run}", "--out={tmp}", "--overlap=9", "{0}=65", "{image}"],
  ),
  (
    *(
      "predict",
      [
        *("--workdir={run}", "--out={tmp}", "--crf", "{image}"),
        "--crf_negligible=1",
      ],
    ),
    r"less than 1, such as (\S+) \((--crf_negligible)",
    [*("--workdir={run}", "--out={tmp}", "--crf", "{image}", "{1}={0}")],
  ),
  (
    *("main", [*MAIN, "--config.log.every", "=", "5"]),
    r"Write (--config.log.every)=value without spaces",
    [*MAIN, "{0}=5"],
  ),
  (
    *("main", [*MAIN, "5"]),
    r"Write (--config).name=value without spaces",
    [*MAIN, "{0}.log.every=5"],
  ),
  (
    *("convert", ["--workdir={run}"]),
    r"or (--to), --workdir and (--out) to write them",
    ["--workdir={run}", "{0}=tf_deeplab", "{1}={tmp}/a.npz"],
  ),
)


@pytest.mark.parametrize(
  ("name", "wrong", "told", "right"),
  FOLLOWED,
  ids=[f"{name}-{place}" for place, (name, *_) in enumerate(FOLLOWED)],
)
def test_what_a_message_advises_works(
  name, wrong, told, right, trained, tmp_path
):
  data = trees.folder(tmp_path / "data")
  (tmp_path / "file").touch()
  filled = {
    **{"data": data, "labels": data / "labels" / "val"},
    **{"image": data / "images" / "val" / "00.jpg", "tmp": tmp_path / "out"},
    **{"file": tmp_path / "file", "run": trained.workdir},
    "runs": trained.workdir.parent,
  }
  words = [word.format(**filled) for word in wrong]
  done = commands.command(name, *words, short=True)
  assert done.returncode == 2, done.stderr[-2000:]
  told = told.replace("{run}", re.escape(str(trained.workdir)))
  found = re.search(told, done.stderr)
  assert found, done.stderr
  words = [word.format(*found.groups(), **filled) for word in right]
  done = commands.command(name, *words, short=True)
  assert done.returncode == 0, (words, done.stderr[-2000:])


def test_what_a_finished_run_advises_next_works(trained, tmp_path):
  data = trees.folder(tmp_path / "data")
  *_, line = trained.done.stdout.splitlines()
  found = re.findall(r"python -m deeplax\.(\w+)((?: --\S+| [A-Z]\S+)*)", line)
  assert [name for name, _ in found] == ["evaluate", "predict"]
  for name, words in found:
    words = words.replace("=DIR", f"={tmp_path / 'out'}").rstrip(",")
    image = data / "images" / "val" / "00.jpg"
    words = words.replace("IMAGE...", str(image)).split()
    if name == "evaluate":
      words.append("--no-sweep")  # for time
    done = commands.command(name, *words, short=True)
    assert done.returncode == 0, done.stderr[-2000:]
