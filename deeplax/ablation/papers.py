"""The papers' tables, read from papers.json.

Numbers only: mIoU in percent, Multiply-Adds in billions. Tables of a test
server, of PASCAL-Context and of Person-Part are there for reference; no
experiment mirrors them.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

from deeplax import errors

# Of an evaluation at several scales: v3, sec. 4.1; v3+ has the same.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

FILE = pathlib.Path(__file__).with_name("papers.json")


@dataclasses.dataclass(frozen=True)
class Paper:
  """A paper's numbers for the rows of an experiment, in their order.

  Attributes:
    source: Paper and table.
    miou: In percent; None: no number for that row.
    multiply_adds: In billions; empty: no numbers.
    inconsistent: Values of these that contradict the paper's other numbers.
    table: Name in papers.json; "": not from there.
  """

  source: str
  miou: tuple[float | None, ...]
  multiply_adds: tuple[float, ...] = ()
  inconsistent: tuple[float, ...] = ()
  table: str = ""

  def rows(self) -> list[list[Any]]:
    """Return the lines of `table`."""
    return table(self.table)["rows"]


@functools.cache
def _read() -> dict[str, Any]:
  return json.loads(FILE.read_text())


def table(name: str) -> dict[str, Any]:
  """Return a table: title, source, columns, rows and note.

  Raises:
    InputError: There is none of that name.
  """
  tables = _read()["tables"]
  if name not in tables:
    raise errors.InputError(f"no table {name!r} in {FILE}; have {list(tables)}")
  return tables[name]


def training_times() -> list[dict[str, str]]:
  """Return the training times that the papers state, with their hardware."""
  return _read()["training_times"]


def numbers(
  name: str,
  columns: tuple[str, ...] = ("mIOU",),
  *,
  multiply_adds: str = "",
) -> Paper:
  """Return a table's numbers, line by line.

  Args:
    name: Of the table.
    columns: Of mIoU; several give several rows a line, from left to right.
    multiply_adds: The column of Multiply-Adds.
  """
  published = table(name)
  places = [published["columns"].index(column) for column in columns]
  counts, wrong = [], ()
  if multiply_adds:
    place = published["columns"].index(multiply_adds)
    counts = [row[place] for row in published["rows"] for _ in places]
    wrong = published.get("inconsistent", {}).get(multiply_adds, ())
  return Paper(
    source=published["source"],
    miou=tuple(row[place] for row in published["rows"] for place in places),
    multiply_adds=tuple(counts),
    inconsistent=tuple(wrong),
    table=name,
  )
