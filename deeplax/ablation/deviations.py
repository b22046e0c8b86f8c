"""Differences of a training from its paper's, and their known costs in mIoU."""

from collections.abc import Sequence
import json
from typing import Any

from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import papers
from deeplax.ablation import recipes
from deeplax.workdir import settings

# Keys without influence on the trained network.
SILENT = (
  *settings.FREE_KEYS,
  *("checkpoint.", "log.", "eval.every", "data.shapes_", "seed"),
  "init.checkpoint",
)
HEAD = ["setting", "paper", "here", "known to cost"]


def differences(cell: experiment_lib.Cell) -> dict[str, tuple[str, str, str]]:
  """Return (paper's value, this one, known cost) by key."""
  paper, here = (
    settings.flatten(json.loads(config.to_json()))  # keeps the keys' order
    for config in (cell.protocol, cell.config)
  )
  return {
    key: (_text(paper[key]), _text(value), recipes.KNOWN.get(key, ""))
    for key, value in here.items()
    if paper[key] != value and not key.startswith(SILENT)
  }


def _text(value: Any) -> str:
  if value is None:
    return "default"
  return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def recipe(
  experiment: experiment_lib.Experiment, lines: Sequence[dict[str, Any]]
) -> tuple[list[list[str]], dict[str, list[list[str]]]]:
  """Return a table of the differences of all trainings, and each one's others.

  Args:
    experiment: Of the trainings.
    lines: Of results.jsonl, with the weights that finished runs started from.
  """
  by_cell = {cell.name: differences(cell) for cell in experiment.cells}
  for cell in experiment.cells:
    starts = [
      line["init"]
      for line in lines
      if line.get("cell") == cell.name and line.get("init")
    ]
    start = cell.config.init.checkpoint or (starts or ["random"])[0]
    if start.startswith("random"):
      cost = recipes.KNOWN["init.checkpoint"]
      by_cell[cell.name]["init"] = ("ImageNet weights", "random weights", cost)
  lines_of = {
    name: [[key, *values] for key, values in differing.items()]
    for name, differing in by_cell.items()
  }
  every, first = lines_of.values(), next(iter(lines_of.values()), [])
  shared = [line for line in first if all(line in lines for lines in every)]
  own = {
    name: [HEAD, *(line for line in lines if line not in shared)]
    for name, lines in lines_of.items()
  }
  return [HEAD, *shared], {name: t for name, t in own.items() if len(t) > 1}


def refused(experiment: experiment_lib.Experiment) -> list[tuple[str, str]]:
  """Return (row, reason) of rows that are not trained."""
  return [(row.name, row.why) for row in experiment.rows if row.cell is None]


def times(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
  """Return a table of training times, the papers' and ours, with hardware."""
  times = [["training", "time", "hardware", "source"]]
  for published in papers.training_times():
    times.append([published[k] for k in ("what", "time", "hardware", "source")])
  by_hardware: dict[str, dict[str, float]] = {}
  for line in lines:  # several rows are of one training
    if line["status"] == "finished" and line.get("seconds"):
      where = line.get("hardware") or "unknown"
      by_hardware.setdefault(where, {})[line["workdir"]] = line["seconds"]
  for where, seconds in by_hardware.items():
    mean = sum(seconds.values()) / len(seconds) / 60
    what = "a training here, its evaluations included"
    times.append([what, f"{mean:.1f} minutes", where, "measured"])
  return times
