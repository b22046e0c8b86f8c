"""The documents' code blocks, and the commands in them.

A block of shell or Python has a line before it that says what a test does with
it: `<!-- run -->` executes it, `<!-- debug -->` executes its commands with a
small network and made-up data, `<!-- shown -->` reads them with the commands'
own parsers.
"""

import pathlib
import re
import shlex
from typing import NamedTuple

from deeplax import __main__ as overview
from deeplax import commands as names
from tests.commands import ROOT

PAGES = (
  *(ROOT / name for name in ("README.md", "ARCHITECTURE.md")),
  *(ROOT / name for name in ("CONTRIBUTING.md", "benchmarks/README.md")),
  *sorted((ROOT / "docs").glob("*.md")),
)
MARKS = ("run", "debug", "shown")
_BLOCK = re.compile(r"([^\n]*)\n```(bash|sh|python)\n(.*?)^```", re.M | re.S)


class Block(NamedTuple):
  """A block of code.

  Attributes:
    page: Its page.
    language: "bash" or "python".
    mark: One of MARKS; "" without one.
    text: The code.
  """

  page: pathlib.Path
  language: str
  mark: str
  text: str

  def __str__(self) -> str:
    first = self.text.partition("\n")[0]
    return f"{self.page.relative_to(ROOT)}, {first!r}"

  def commands(self) -> list[list[str]]:
    """Return the words of each line of a shell block; \\ joins lines."""
    lines = self.text.replace("\\\n", " ").splitlines()
    split = (shlex.split(line, comments=True) for line in lines)
    # A line may prepare the next command: cd DIR && make.
    return [part for words in split for part in _parts(words)]


def blocks(*pages: pathlib.Path) -> list[Block]:
  """Return the blocks of some pages, or of all."""
  found = []
  for page in pages or PAGES:
    for before, language, text in _BLOCK.findall(page.read_text()):
      mark = re.fullmatch(r"<!-- (\w+) -->", before)
      language = "python" if language == "python" else "bash"
      found.append(Block(page, language, mark[1] if mark else "", text))
  return found


def _parts(words: list[str]) -> list[list[str]]:
  parts: list[list[str]] = [[]]
  for word in words:
    if word == "&&":
      parts.append([])
    else:
      parts[-1].append(word)
  return [part for part in parts if part]


def command(words: list[str]) -> tuple[str, list[str]] | None:
  """Return (module, arguments) of one of this project's commands; else None.

  The module is that after `python -m`: deeplax.main, experiments.run.
  """
  if words[:1] == ["srun"] and "deeplax" in words:
    words = words[words.index("deeplax") :]
  if words[:1] == ["deeplax"] and len(words) > 1:
    name, *arguments = words[1:]
    if name == "ablation":
      return f"experiments.{arguments[0]}", arguments[1:]
    modules = {names.name(module): module for module in overview.commands()}
    return f"deeplax.{modules[name]}", arguments
  if words[:2] == ["python", "-m"]:
    top = words[2].partition(".")[0]
    if top in ("deeplax", "experiments", "benchmarks"):
      return words[2], words[3:]
  return None
