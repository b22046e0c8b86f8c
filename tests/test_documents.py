"""Every command that the documents show is understood, and works."""

import importlib
import pathlib
import re
import tomllib

import numpy as np
from PIL import Image
import pytest

from deeplax.settings import find
from deeplax.workdir import settings
from tests import commands
from tests import documents
from tests import runs
from tests.commands import ROOT
from tests.data import trees
from tests.stories import test_advice

BLOCKS = documents.blocks()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
  "optional-dependencies"
]
TAKES_CONFIG = ("deeplax.main", "deeplax.convert", "deeplax.overfit_check")
# Tools of other projects, and words of the shell.
OTHERS = ("cd", "export", "gcloud", "git", "pre-commit", "source", "srun")
MODULES = ("pip", "pyright", "pytest", "ruff", "venv")


def test_every_block_says_what_a_test_does_with_it():
  assert len(BLOCKS) > 30
  for block in BLOCKS:
    assert block.mark in documents.MARKS, block


def parser(module: str):
  name = module.removeprefix("deeplax.")
  if name == "data.build":
    module = "deeplax.data.prepare.command"
  found = importlib.import_module(module)
  # A benchmark's may be called otherwise.
  return getattr(found, "parser", None)


def understood_config(arguments: list[str], block: documents.Block) -> None:
  """Assert that a configuration is there and has the keys that are set."""
  (value,) = [a for a in arguments if a.startswith("--config=")]
  name, _, argument = value.partition("=")[2].partition(":")
  path = find.config(name)
  assert path.exists(), (name, block)
  module = importlib.import_module(f"configs.{path.stem}")
  config = settings.flatten(module.get_config(argument))
  for text in arguments:
    if key := re.match(r"--config\.([\w.]+)=", text):
      assert key[1] in config, (text, block)


def understood(module: str, words: list[str], block: documents.Block) -> None:
  """Assert that a command's parser takes its arguments."""
  rest = words
  if module in TAKES_CONFIG:
    if any(word.startswith("--config=") for word in words):
      understood_config(words, block)
    rest = [word for word in words if not word.startswith("--config")]
    if module == "deeplax.overfit_check":
      rest = [*rest, "--config=x"]
  if module in ("deeplax.main", "deeplax.data.shapes"):
    known = test_advice.OPTIONS[module.removeprefix("deeplax.")]
    for word in rest:
      assert word.partition("=")[0] in known, (word, block)
    return
  parse = parser(module)
  if parse is None:
    place = ROOT / module.replace(".", "/")
    files = place.glob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    text = "\n".join(path.read_text() for path in files)
    for flag in re.findall(r"--[a-z][\w-]*", " ".join(rest)):
      assert flag in text or f'"{flag[2:]}"' in text, (flag, block)
    return
  try:
    _, unread = parse().parse_known_args(rest)
  except SystemExit:
    pytest.fail(f"{module} {rest} is refused: {block}")
  # Flags that submit hands on to predict.
  assert not unread or module == "deeplax.submit", (unread, block)


def test_every_command_is_understood_by_its_own_parser():
  targets = set(
    re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
  )
  seen = 0
  for block in BLOCKS:
    if block.language == "python":
      continue
    for words in block.commands():
      found = documents.command(words)
      if found:
        understood(*found, block)
        seen += 1
      elif words[0] == "make":
        assert words[1] in targets, block
      elif words[:2] == ["pip", "install"] or words[:4] == [
        *("python", "-m", "pip", "install")
      ]:
        text = " ".join(words)
        for extra in re.findall(r"\[(\w+)\]", text):
          assert extra in EXTRAS, block
        for file in re.findall(r"-r (\S+)", text):
          assert (ROOT / file).exists(), block
      elif words[:2] == ["python", "-m"]:
        assert words[2] in MODULES, block
      else:
        assert words[0] in (*OTHERS, "deeplax", "rm"), (words, block)
  assert seen > 40


def test_python_that_is_shown_imports_what_there_is(monkeypatch):
  monkeypatch.syspath_prepend(EXAMPLES)
  for block in BLOCKS:
    if block.language == "python":
      compile(block.text, str(block), "exec")
      for line in re.findall(r"^(?:from|import) .*$", block.text, re.M):
        exec(line, {})


SMALL_OWN = (
  *("--config.train.total_steps=2", "--config.train.batch_size=2"),
  *("--config.eval.every=2", "--config.data.crop_size=(33, 33)"),
  *("--config.model.depth_multiplier=0.1", "--config.model.channels=8"),
  "--config.model.decoder.channels=8",
)
FOLDERS = ("runs/", "my_data", "photos/", "labeled")
EXAMPLES = ROOT / "docs" / "examples"


def small(module: str, arguments: list[str], folder: pathlib.Path) -> list[str]:
  """Return a command's arguments with small numbers and paths in `folder`."""
  words = []
  for text in arguments:
    flag, equals, value = text.rpartition("=")
    if flag == "--config":
      own = value.startswith("own_data")
      words += [text, *SMALL_OWN] if own else runs.SMALL
      given = any(a.startswith("--workdir") for a in arguments)
      if module == "deeplax.main" and not given:
        words.append(f"--workdir={folder}/runs/{workdir(arguments)}")
    elif "my_decoder.py" in text:
      words.append(text.replace("my_decoder.py", f"{EXAMPLES}/my_decoder.py"))
    elif value.startswith(FOLDERS):
      words.append(f"{flag}{equals}{folder / value}")
    else:
      words.append(text)
  if module == "deeplax.overfit_check":
    words += ["--images=2", "--steps=2", "--every=1"]
  return words


def world(folder: pathlib.Path, trained: set[str]) -> None:
  """Make what the documents' commands speak of, but for a page's own runs."""
  trees.folder(folder / "my_data")
  rng = np.random.default_rng(0)
  for path in (folder / "my_data" / "images").rglob("*.jpg"):
    with Image.open(path) as picture:  # all alike: a fault of the data
      noise = rng.integers(0, 256, (*picture.size[::-1], 3), np.uint8)
    Image.fromarray(noise).save(path)
  for name in ("a", "b"):
    trees.image(folder / "photos" / f"{name}.jpg")
  # Pages that only evaluate name a run that another page trains.
  for name in {"v3plus_xception", "x65", "mine"} - trained:
    runs.train(folder / "runs" / name)


def workdir(arguments: list[str]) -> str:
  """Return the name of the folder below runs/ that a training makes."""
  flags = dict(text.split("=", 1) for text in arguments if "=" in text)
  config = pathlib.PurePath(flags["--config"].partition(":")[0]).stem
  return pathlib.PurePath(flags.get("--workdir", config)).name


DEBUG_PAGES = sorted({b.page for b in BLOCKS if b.mark == "debug"})


@pytest.mark.slow
@pytest.mark.parametrize("page", DEBUG_PAGES, ids=lambda page: page.stem)
def test_blocks_marked_debug_run_on_made_up_data(page, tmp_path):
  found = [
    command
    for block in documents.blocks(page)
    if block.mark == "debug"
    for words in block.commands()
    if (command := documents.command(words))  # installation is none
  ]
  trained = {workdir(words) for name, words in found if name == "deeplax.main"}
  world(tmp_path, trained)
  for module, arguments in found:
    done = commands.command(
      module.removeprefix("deeplax."),
      *small(module, arguments, tmp_path),
      short=True,
    )
    # Two steps memorize nothing: the overfit check says so.
    allowed = (0, 1) if module == "deeplax.overfit_check" else (0,)
    assert done.returncode in allowed, (arguments, done.stderr[-2000:])


RUN = [b for b in BLOCKS if b.mark == "run"]


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=str)
def test_blocks_marked_run_are_executed(block, tmp_path, monkeypatch, short):
  assert block.language == "python", "shell is marked debug or shown"
  monkeypatch.chdir(tmp_path)
  runs.train(tmp_path / "runs" / "x65")
  rng = np.random.default_rng(0)
  shares = rng.dirichlet(np.ones(4), (33, 40)).astype(np.float32)
  image = rng.integers(0, 256, (33, 40, 3), np.uint8)
  Image.fromarray(image).save("photo.jpg")
  exec(
    compile(block.text, str(block), "exec"),
    {"image": image, "probabilities": shares},
  )
