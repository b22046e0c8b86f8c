"""Run a sweep: python -m experiments.run v3plus_table1[:debug]

A sweep is a module here with `BASE` (a configuration's name), `sweep(arg)`
(yields flat settings, one training run each) and `PAPER` (the published mIoU of
each, in percent, and its source). Every cell is a `python -m deeplax.main` in a
workdir of its own, so a stopped sweep goes on where it was; finished cells are
not run again. results.jsonl is rewritten after each cell.
"""

import argparse
from collections.abc import Iterable, Sequence
import dataclasses
import importlib
import json
import math
import pathlib
import re
import shlex
import subprocess
import sys
import time
from typing import Any

import ml_collections

from deeplax import errors
from deeplax import logs
from experiments import report

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Cell:
  """One training run of a sweep."""

  name: str
  base: str  # configuration with its argument: v3plus_resnet101:debug
  settings: dict[str, Any]
  config: ml_collections.ConfigDict  # base with settings
  unset: tuple[str, ...]  # keys that base sets and this cell does not
  paper: float | None
  paper_source: str

  def command(self, out: pathlib.Path) -> list[str]:
    """Return the command line that trains this cell, run in the checkout."""
    name, _, argument = self.base.partition(":")
    file = f"configs/{name}.py" + (f":{argument}" if argument else "")
    if self.unset:
      file = f"experiments/unset.py:{self.base}+{','.join(self.unset)}"
    workdir = self.workdir(out)
    if workdir.is_relative_to(ROOT):
      workdir = workdir.relative_to(ROOT)
    return [
      sys.executable,
      *("-m", "deeplax.main", f"--config={file}"),
      *(f"--config.{k}={v}" for k, v in self.settings.items() if v is not None),
      f"--workdir={workdir}",
    ]

  def workdir(self, out: pathlib.Path) -> pathlib.Path:
    """Return where this cell is trained."""
    return out / "runs" / self.name

  def log(self, out: pathlib.Path) -> pathlib.Path:
    """Return where the output of its command is kept."""
    return out / "runs" / f"{self.name}.log"


def load(sweep: str) -> list[Cell]:
  """Return the cells of `<module>[:<argument>]`, all checked.

  Raises:
    InputError: No such sweep, or a cell that its configuration refuses.
  """
  name, _, argument = sweep.partition(":")
  known = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if re.search(r"^def sweep\(", path.read_text(), re.M)
  )
  if name not in known:
    raise errors.InputError(f"no sweep {name!r} in experiments/; have {known}")
  module = importlib.import_module(f"experiments.{name}")
  base = f"{module.BASE}:{argument}" if argument else module.BASE
  all_settings = list(module.sweep(argument))
  # The paper's numbers are of its own data and schedule, not of an argument's.
  papers = module.PAPER["miou"] if not argument else [None] * len(all_settings)
  names = cell_names(all_settings)
  return [
    make_cell(cell_name, base, settings, paper, module.PAPER["source"])
    for cell_name, settings, paper in zip(
      names, all_settings, papers, strict=True
    )
  ]


def make_cell(
  name: str,
  base: str,
  settings: dict[str, Any],
  paper: float | None,
  paper_source: str,
) -> Cell:
  """Apply `settings` to configuration `base`; refuse what it refuses."""
  config_name, _, argument = base.partition(":")
  module = importlib.import_module(f"configs.{config_name}")
  try:
    config = module.get_config(argument).lock()
    old = {key: look_up(config, key) for key in settings}
    config.update_from_flattened_dict(settings)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.InputError(f"{base} with {settings}: {error}") from error
  return Cell(
    name=name,
    base=base,
    settings=settings,
    config=config,
    unset=tuple(
      k for k, v in settings.items() if v is None and old[k] is not None
    ),
    paper=paper,
    paper_source=paper_source,
  )


def look_up(config: ml_collections.ConfigDict, key: str) -> Any:
  """Return the value of a dotted key."""
  value: Any = config
  for part in key.split("."):
    value = value[part]
  return value


def cell_names(all_settings: Sequence[dict[str, Any]]) -> list[str]:
  """Name each cell by the settings that vary: low_level_channels=48."""
  keys = report.varying(all_settings)
  names = [
    re.sub(
      r"[^\w.=,-]+",
      "",
      ",".join(
        f"{key.rsplit('.', 1)[-1]}={settings[key]}"
        for key in keys
        if key in settings
      ),
    )
    or "base"
    for settings in all_settings
  ]
  if len(set(names)) < len(names):
    raise errors.InputError(f"two cells of this sweep are the same: {names}")
  return names


def final_evaluation(cell: Cell, out: pathlib.Path) -> dict[str, Any] | None:
  """Return the evaluation of a cell's last step; None before it has ended.

  Raises:
    InputError: The workdir is of other settings, left by an earlier sweep.
  """
  workdir = cell.workdir(out)
  if not (workdir / "config.json").exists():
    return None
  trained = json.loads((workdir / "config.json").read_text())
  for key, value in cell.settings.items():
    # Through JSON, where a tuple is a list.
    if look_up(trained, key) != json.loads(json.dumps(value)):
      raise errors.InputError(
        f"{workdir} was trained with {key}={look_up(trained, key)}, this sweep "
        f"has {value}. Move it away, or choose another --out"
      )
  evaluation, stride = cell.config.eval, cell.config.model.output_stride
  asked = {
    "split": cell.config.data.eval_split,
    "step": cell.config.train.total_steps,
    "output_stride": evaluation.output_stride or stride,
    "scales": list(evaluation.scales),
    "flip": evaluation.flip,
  }
  for path in sorted((workdir / "eval").glob("*.json")):
    result = json.loads(path.read_text())
    whole = evaluation.max_images or result["split_images"]
    if asked.items() <= result.items() and result["images"] == whole:
      return result
  return None


def result_line(
  cell: Cell, out: pathlib.Path, *, status: str, seconds: float | None
) -> dict[str, Any]:
  """Return a cell's line of results.jsonl, from what its workdir says."""
  evaluation = final_evaluation(cell, out) or {}
  environment = cell.workdir(out) / "env.json"
  commit = None
  if environment.exists():
    commit = json.loads(environment.read_text())["commit"]
  return {
    "cell": cell.name,
    "config": cell.base,
    "settings": cell.settings,
    "miou": evaluation.get("miou"),
    "paper": cell.paper,
    "paper_source": cell.paper_source,
    "images": evaluation.get("images"),
    "step": evaluation.get("step"),
    "init": evaluation.get("init"),
    "status": status,
    "seconds": seconds,
    "commit": commit,
    "workdir": cell.workdir(out).relative_to(out).as_posix(),
  }


def train(cell: Cell, out: pathlib.Path) -> str:
  """Train one cell; its output goes to <workdir>.log. Return its status."""
  log = cell.log(out)
  log.parent.mkdir(parents=True, exist_ok=True)
  with log.open("a") as file:
    begin = file.tell()
    process = subprocess.Popen(
      cell.command(out), cwd=ROOT, stdout=file, stderr=file
    )
    try:
      code = process.wait()
    except KeyboardInterrupt:
      process.wait()  # it has the signal too and writes a checkpoint
      raise
  if code == 0 and final_evaluation(cell, out):
    return "finished"
  tail = "\n".join(
    f"  {line}" for line in log.read_text()[begin:].splitlines()[-3:]
  )
  print(f"  failed with exit status {code}, see {log}\n{tail}", flush=True)
  return "failed"


def run(cells: Sequence[Cell], out: pathlib.Path) -> list[dict[str, Any]]:
  """Train the cells that are not finished; return one line a cell."""
  seconds = {cell.name: None for cell in cells}
  if (out / "results.jsonl").exists():
    seconds |= {line["cell"]: line["seconds"] for line in report.read(out)}
  todo = [cell for cell in cells if final_evaluation(cell, out) is None]
  results = {
    cell.name: result_line(
      cell,
      out,
      status="not run" if cell in todo else "finished",
      seconds=seconds[cell.name],
    )
    for cell in cells
  }
  print(f"{len(cells)} cells, {len(cells) - len(todo)} of them finished before")
  start = time.perf_counter()
  for done, cell in enumerate(todo):
    begin = time.perf_counter()
    rest = (begin - start) / done * (len(todo) - done) if done else math.nan
    print(
      f"[{done + 1}/{len(todo)}] {cell.name}, ETA {logs.duration(rest)}, "
      f"log {cell.log(out)}",
      flush=True,
    )
    status = train(cell, out)
    # A cell that was stopped before has taken that time as well.
    took = (seconds[cell.name] or 0) + round(time.perf_counter() - begin, 1)
    line = result_line(cell, out, status=status, seconds=took)
    results[cell.name] = line
    write(out, results.values())
    if status == "finished":
      print(f"  mIoU {100 * line['miou']:.2f}, {logs.duration(took)}")
  write(out, results.values())
  return list(results.values())


def write(out: pathlib.Path, lines: Iterable[dict[str, Any]]) -> None:
  """Write results.jsonl in one go."""
  out.mkdir(parents=True, exist_ok=True)
  partial = out / ".results.jsonl.partial"
  partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
  partial.replace(out / "results.jsonl")


@errors.command
def main(argv: Sequence[str] | None = None) -> int:
  """Run the sweep on the command line; status 1 when a cell failed."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.run",
    description="Train every cell of a sweep and print its table.",
    epilog="Example: python -m experiments.run v3plus_table1:debug",
  )
  parser.add_argument("sweep", help="module in experiments/, [:argument]")
  parser.add_argument(
    "--out",
    type=pathlib.Path,
    help="default experiments/results/<sweep>[_<argument>]",
  )
  parser.add_argument(
    "--dry_run", action="store_true", help="print the commands, run nothing"
  )
  args = parser.parse_args(argv)
  cells = load(args.sweep)
  default = ROOT / "experiments" / "results" / args.sweep.replace(":", "_")
  out = (args.out or default).resolve()
  if args.dry_run:
    for cell in cells:
      print(shlex.join(["python", *cell.command(out)[1:]]))
    return 0
  try:
    results = run(cells, out)
  except KeyboardInterrupt:
    print(f"\nstopped; the same command goes on in {out}")
    return 130
  print(f"\n{report.markdown(results)}\n\n{out / 'results.jsonl'}")
  return int(any(line["status"] == "failed" for line in results))


if __name__ == "__main__":
  main()
