"""docs/protocols.md says what the configurations do, line by line."""

import ast
import importlib
import operator
import re

from deeplax.crf import search
from deeplax.models import conventions
from deeplax.settings import defaults
from deeplax.settings import protocols
from tests import conftest

DOC = conftest.ROOT / "docs" / "protocols.md"
ROW = re.compile(
  r"^\| (?P<what>[^|]+) \| `(?P<key>[^`]+)` \| `(?P<value>[^`]+)` "
  r"\| `(?P<place>[^`]+)` \| (?P<source>[^|]+) \|$"
)
TABLE_LINES = [
  line
  for line in DOC.read_text().splitlines()
  if line.startswith("|") and "`" in line
]


def setting(place, key):
  """Return what `place` sets `key` to."""
  if place in conventions.CONVENTIONS:
    row = conventions.get(place)
    name, _, field = key.partition(".")
    owner = row.backbones.get(name)
    found = operator.attrgetter(field if owner else key)(owner or row)
    return tuple(found) if isinstance(found, tuple) else found
  if place == "deeplax.crf.search":
    if key.startswith("--"):
      return search.parser().get_default(key.removeprefix("--"))
    grid, name = key.split(".")
    return protocols.CRF_GRIDS[grid][name]
  if place == "base":
    config = defaults.base()
  elif place in protocols.STAGES:
    config = protocols.STAGES[place](defaults.base(), "name")
  elif hasattr(protocols, place):
    config = getattr(protocols, place)(defaults.base())
  else:
    config = importlib.import_module(f"configs.{place}").get_config()
  for part in key.split("."):
    config = config[part]
  return config


def test_every_documented_number_is_the_code_s():
  for line in TABLE_LINES:
    row = ROW.match(line)
    assert row, f"not a line of five cells: {line}"
    expected = ast.literal_eval(row["value"])
    found = setting(row["place"], row["key"])
    assert found == expected and type(found) is type(expected), line


def test_the_tables_cover_every_paper():
  assert len(TABLE_LINES) > 60
  sources = " ".join(ROW.match(line)["source"] for line in TABLE_LINES)  # pyright: ignore
  assert all(paper in sources for paper in ("v1", "v2", "v3", "v3+"))


def test_every_stage_sets_keys_that_exist():
  for name, stage in protocols.STAGES.items():
    config = defaults.base().lock()  # a new key would raise
    assert stage(config, "name") is config, name


def test_every_paper_sets_keys_that_exist():
  for paper in ("v1", "v2_vgg16", "v2_resnet101", "v3_cascade"):
    config = defaults.base().lock()
    assert getattr(protocols, paper)(config) is config, paper
