"""results.jsonl of an experiment: one line for each row and seed.

Lines are made anew from the workdirs. If a workdir has been deleted, or lies on
another host, its earlier line stays.
"""

from collections.abc import Iterable, Sequence
import json
import math
import os
import pathlib
import platform
import shlex
import statistics
import sys
from typing import Any

from deeplax import atomic
from deeplax import errors
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import jobs as jobs_lib
from deeplax.workdir import layout

FILE = "results.jsonl"
# Fields of an evaluation's result that a line has.
KEPT = (
  *("miou", "pixel_accuracy", "iou", "images", "step", "init", "crf"),
  *("trimap_kind", "trimap", "trimap_accuracy", "boundary_f", "boundary_iou"),
)
Line = dict[str, Any]


def read(out: pathlib.Path) -> list[Line]:
  """Return the lines of results.jsonl.

  Raises:
    InputError: There is no such file.
  """
  path = out / FILE
  if not path.exists():
    raise errors.InputError(
      f"no {FILE} in {out}. Run: {experiment_lib.command('run')} NAME"
    )
  return list(atomic.read_jsonl(path))


def write(out: pathlib.Path, lines: Iterable[Line]) -> None:
  """Write all lines at once, even if another shard writes them too."""
  own = out / f".{FILE}.{platform.node()}-{os.getpid()}"
  atomic.write_text(own, "".join(json.dumps(x) + "\n" for x in lines))
  own.replace(out / FILE)


def jobs(
  experiment: experiment_lib.Experiment,
  out: pathlib.Path,
  *,
  seeds: Sequence[int] = (),
  weights: str = "",
) -> list[jobs_lib.Job]:
  """Return all trainings, those of the first seed first."""
  return [
    jobs_lib.Job(
      cell,
      seed,
      tuple(experiment.rows_of(cell)),
      experiment.measure,
      weights,
      out,
    )
    for seed in seeds or experiment.seeds
    for cell in experiment.cells
  ]


def collect(
  experiment: experiment_lib.Experiment,
  jobs: Sequence[jobs_lib.Job],
  out: pathlib.Path,
) -> list[Line]:
  """Return a line for each row and seed, in the order of the rows.

  Raises:
    InputError: A workdir or a line is of other settings.
  """
  old = {}
  if (out / FILE).exists():
    old = {(line["row"], line["seed"]): line for line in read(out)}
  lines = []
  for row in experiment.rows:
    of_row = [j for j in jobs if row.cell and j.cell.name == row.cell.name]
    for job in of_row:
      line = old.pop((row.name, job.seed), None)
      has_run = (job.workdir / layout.CONFIG).exists() or (
        job.record() and not (line and "miou" in line)
      )
      lines.append(of_job(row, job) if has_run or line is None else line)
    # Seeds of an earlier command.
    others = [key for key in old if key[0] == row.name and key[1] is not None]
    lines += [old.pop(key) for key in others]
    for line in lines:
      _refuse_other_length(row, line, out)
    if row.cell is None:
      lines.append({**_plain(row), "seed": None, "status": "not here"})
  # As `read` returns them: lists in place of tuples.
  return json.loads(json.dumps(lines))


def _refuse_other_length(
  row: experiment_lib.Row, line: Line, out: pathlib.Path
) -> None:
  """Raise InputError for a line of this row with another number of steps."""
  if row.cell is None or line["row"] != row.name or "step" not in line:
    return
  steps = row.cell.config.train.total_steps
  if line["step"] != steps:
    raise errors.InputError(
      f"{out / FILE} has {row.name} trained for {line['step']} steps, this "
      f"command is of {steps}. Give the --steps that it was run with, or "
      "choose another --out"
    )


def _plain(row: experiment_lib.Row) -> Line:
  return {
    "row": row.name,
    "why": row.why,
    "settings": row.settings,
    "evaluation": row.evaluation._asdict(),
    "paper": row.miou,
  }


def of_job(row: experiment_lib.Row, job: jobs_lib.Job) -> Line:
  """Return the line of a row, from its job's files."""
  result = job.result(row)
  record = job.record()
  environment = job.workdir / layout.ENVIRONMENT
  about = {}
  if environment.exists():
    about = json.loads(environment.read_text())
  status = record.get("status", "not run")
  if result:
    status = "finished"
  elif status == "finished":  # but its workdir has been deleted
    status = "not run"
  tail = record.get("log_tail", [])
  line = {
    **_plain(row),
    "cell": job.cell.name,
    "seed": job.seed,
    "config": job.cell.file,
    "status": status,
    "seconds": record.get("seconds"),
    "host_memory": record.get("host_memory"),
    "log_tail": [] if result else list(map(_plain_text, tail)),
    "commit": about.get("commit"),
    "hardware": record.get("hardware") or job.hardware(),
    "workdir": job.workdir.relative_to(job.out).as_posix(),
    "commands": [
      _plain_text(shlex.join(["python", *command[1:]]))
      for command in job.commands()
    ],
    **job.training(),
    "curve": job.curve(),
    "picture": job.picture(),
  }
  if result:
    line |= {key: result[key] for key in KEPT if key in result}
    line["images_per_second"] = job.speed(result["file"])
  return line


def _plain_text(text: str) -> str:
  """Return a line of a log without this machine's paths."""
  for folder in (experiment_lib.ROOT, pathlib.Path(sys.prefix)):
    text = text.replace(f"{folder}/", "")
  return text.replace(f"{os.path.expanduser('~')}/", "~/")


def mean_std(values: Sequence[float]) -> tuple[float, float]:
  """Return mean and standard deviation (n - 1), NaN if not defined."""
  mean = statistics.fmean(values) if values else math.nan
  return mean, statistics.stdev(values) if len(values) > 1 else math.nan
