"""Running an experiment's jobs: the processes, their logs and records.

A job is a `python -m deeplax.main` in its own workdir, followed by a `python -m
deeplax.evaluate` for the rows that the training does not evaluate itself.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
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
from deeplax import clocks
from deeplax import errors
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import jobs as jobs_lib
from deeplax.ablation import results as results_lib
from deeplax.metrics import printed

# Seconds between a job's lines, and between checks of its process.
REPORT_EVERY = 30.0
POLL_EVERY = 0.1


def environment(out: pathlib.Path) -> dict[str, str]:
  """Return the commands' environment: all trainings share compiled programs.

  Seeds run the same programs. If the user has chosen a cache folder for JAX, it
  is kept.
  """
  folder = jax.config.values["jax_compilation_cache_dir"]
  folder = folder or os.path.abspath(out / "runs" / "compiled")
  return os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder)}


def start(
  command: list[str],
  log: pathlib.Path,
  *,
  env: dict[str, str] | None = None,
  progress: Callable[..., None] = print,
) -> tuple[int, int]:
  """Run a command, its output appended to `log`.

  Args:
    command: With its arguments.
    log: May have the output of earlier commands.
    env: Environment; None: this process's.
    progress: Receives the log's last line now and then, with flush=True.

  Returns:
    Exit status, and peak memory on the host in bytes.
  """
  with log.open("a") as file:
    file.write(f"$ {shlex.join(command)}\n")
    file.flush()
    process = subprocess.Popen(
      command, cwd=experiment_lib.ROOT, env=env, stdout=file, stderr=file
    )
    reported = time.perf_counter()
    pid = 0
    code, usage = 0, None
    try:
      while not pid:
        pid, code, usage = os.wait4(process.pid, os.WNOHANG)
        if not pid:
          time.sleep(POLL_EVERY)
        if time.perf_counter() - reported > REPORT_EVERY:
          reported = time.perf_counter()
          if line := last_line(log):
            progress(f"    {line}", flush=True)
    except KeyboardInterrupt:
      # A terminal has signaled the process too; it writes a checkpoint.
      process.send_signal(signal.SIGINT)
      process.wait()
      raise
    process.returncode = os.waitstatus_to_exitcode(code)
  # In kilobytes, except on macOS.
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
  """Run the commands of a job that are not done; return its record."""
  log, path = job.sibling(".log"), job.sibling(".json")
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
    for command in job.commands(missing_only=True):
      code, needed = start(command, log, env=environment(job.out))
      memory = max(memory, needed)
      if code:
        record["status"] = "failed"
        break
    else:
      record["status"] = "finished" if job.done() else "failed"
  except errors.InputError as error:
    record |= {"status": "failed", "log_tail": [str(error)]}
  except KeyboardInterrupt:
    record["status"] = "stopped"
    raise
  finally:
    record["host_memory"] = memory
    record["hardware"] = job.hardware() or record.get("hardware")
    # Earlier attempts count too.
    record["seconds"] = round(before + time.perf_counter() - begin, 1)
    if record["status"] == "failed" and not record["log_tail"]:
      record["log_tail"] = tail(log, offset)
    atomic.write_json(path, record)
  return record


def run(
  experiment: experiment_lib.Experiment,
  jobs: Sequence[jobs_lib.Job],
  out: pathlib.Path,
  *,
  others: Sequence[jobs_lib.Job] = (),
) -> list[results_lib.Line]:
  """Run the jobs that are not done; return the lines of all rows.

  Args:
    experiment: Of the jobs.
    jobs: To run.
    out: Folder of results.jsonl.
    others: All jobs with a line in results.jsonl, other shards' included.
  """
  every_job = others or jobs
  todo = [job for job in jobs if not job.done()]
  print(
    f"{len(jobs)} trainings, {len(jobs) - len(todo)} of them done before",
    flush=True,
  )
  for row in experiment.rows:
    if row.cell is None:
      print(f"  {row.name}: not run: {row.why}")
  seconds = [
    job.record()["seconds"]
    for job in jobs
    if job not in todo and "seconds" in job.record()
  ]
  for place, job in enumerate(todo):
    left = len(todo) - place
    rest = sum(seconds) / len(seconds) * left if seconds else math.nan
    print(
      f"[{place + 1}/{len(todo)}] {job.name}, ETA {clocks.duration(rest)}, "
      f"log {job.sibling('.log')}",
      flush=True,
    )
    record = run_job(job)
    results_lib.write(out, results_lib.collect(experiment, every_job, out))
    if record["status"] == "finished":
      seconds.append(record["seconds"])
    print(_outcome(job, record), flush=True)
  lines = results_lib.collect(experiment, every_job, out)
  results_lib.write(out, lines)
  return lines


def _outcome(job: jobs_lib.Job, record: dict[str, Any]) -> str:
  """Return the outcome of a job: its scores, or the end of its log."""
  if record["status"] != "finished":
    lines = "\n".join(f"  | {line}" for line in record["log_tail"][-3:])
    return f"  failed, see {job.sibling('.log')}\n{lines}"
  scores = (
    f"{row.name} {printed.score(result['miou'])}"
    for row in job.rows
    if (result := job.result(row))
  )
  return f"  {clocks.duration(record['seconds'])}, mIoU {'; '.join(scores)}"


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
  """Treat SIGTERM, which batch systems send, like Ctrl-C inside.

  The training is then stopped too.
  """
  previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)


def chosen(
  experiment: experiment_lib.Experiment,
  jobs: Sequence[jobs_lib.Job],
  *,
  patterns: Sequence[str],
  shard: tuple[int, int],
) -> list[jobs_lib.Job]:
  """Return the jobs of some rows that belong to a shard.

  Args:
    experiment: Of the jobs.
    jobs: All of them.
    patterns: Names of rows, as for `only`; none: all rows.
    shard: (place, number), places from 1: every number-th job.
  """
  if patterns:
    names = {row.name for row in only(experiment, patterns)}
    jobs = [
      dataclasses.replace(job, rows=rows)
      for job in jobs
      if (rows := tuple(row for row in job.rows if row.name in names))
    ]
  place, number = shard
  return list(jobs[place - 1 :: number])


def only(
  experiment: experiment_lib.Experiment, patterns: Sequence[str]
) -> list[experiment_lib.Row]:
  """Return the rows with a name, or a cell's name, that matches a pattern.

  Raises:
    InputError: A pattern matches no row.
  """
  rows = []
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
    rows += matching
  return rows


def print_commands(
  experiment: experiment_lib.Experiment, jobs: Sequence[jobs_lib.Job]
) -> None:
  """Print every command of the jobs, and the reasons of rows without one."""
  for job in jobs:
    for command in job.commands():
      print(shlex.join(["python", *command[1:]]))
  for row in experiment.rows:
    if row.cell is None:
      print(f"# {row.name}: {row.why}")
