"""The table of a sweep: python -m experiments.report experiments/results/NAME

Everything it prints comes from results.jsonl of that folder.
"""

import argparse
from collections.abc import Sequence
import pathlib
from typing import Any

from deeplax import errors
from deeplax import logs


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Return the lines of a sweep's results.jsonl, one a cell."""
  path = folder / "results.jsonl"
  if not path.exists():
    raise errors.InputError(
      f"no results.jsonl in {folder}. Run: python -m experiments.run NAME"
    )
  return list(logs.read_jsonl(path))


def varying(settings: Sequence[dict[str, Any]]) -> list[str]:
  """Return the keys whose values differ between cells, in order."""
  keys = dict.fromkeys(key for cell in settings for key in cell)
  return [
    key for key in keys if len({repr(cell.get(key)) for cell in settings}) > 1
  ] or list(keys)


def markdown(results: Sequence[dict[str, Any]]) -> str:
  """Return the table; mIoU in percent, empty where no run has ended."""
  keys = varying([line["settings"] for line in results])
  head = [key.rsplit(".", 1)[-1] for key in keys]
  head += ["mIoU", "paper", "step", "init", "status"]
  rows = [head, ["---"] * len(head)]
  for line in results:
    miou = line["miou"]
    rows.append(
      [str(line["settings"].get(key, "")) for key in keys]
      + ["" if miou is None else f"{100 * miou:.2f}"]
      + ["" if line["paper"] is None else f"{line['paper']:.2f}"]
      + [str(line[key] or "") for key in ("step", "init", "status")]
    )
  table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
  commits = sorted({line["commit"] or "unknown" for line in results})
  configs = sorted({line["config"] for line in results})
  text = (
    f"{table}\n\nConfiguration {', '.join(configs)}; commit "
    f"{', '.join(commits)}; one run (one seed) a row."
  )
  if any(line["paper"] is not None for line in results):
    text += f" Paper: {results[0]['paper_source']}."
  return text


@errors.command
def main(argv: Sequence[str] | None = None) -> None:
  """Print the table of the folder on the command line."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.report",
    description="Print the table of a sweep.",
    epilog="Example: python -m experiments.report "
    "experiments/results/v3plus_table1",
  )
  parser.add_argument("folder", type=pathlib.Path, help="with results.jsonl")
  print(markdown(read(parser.parse_args(argv).folder)))


if __name__ == "__main__":
  main()
