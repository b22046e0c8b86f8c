"""A job, one training of a cell with one seed: its commands and their files.

`running.py` runs the commands. The state of a job lies in three places: its
workdir, `<workdir>.log` and `<workdir>.json`.
"""

from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import platform
import re
import sys
from typing import Any

from etils import epath

from deeplax import atomic
from deeplax import errors
from deeplax.ablation import experiment
from deeplax.inference import settings as settings_lib
from deeplax.reports import gallery
from deeplax.settings import own
from deeplax.workdir import layout
from deeplax.workdir import own_code
from deeplax.workdir import settings

LOG_LINES = 12  # at the end of a failed run's log
POINTS = 60  # of a learning curve


@dataclasses.dataclass(frozen=True)
class Job:
  """A cell and a seed.

  Attributes:
    cell: What is trained.
    seed: `config.seed`.
    rows: Those that evaluate the training.
    measure: Flags of every evaluation.
    weights: "source:file" to start from, or "".
    out: Of the experiment.
  """

  cell: experiment.Cell
  seed: int
  rows: tuple[experiment.Row, ...]
  measure: tuple[str, ...]
  weights: str
  out: pathlib.Path

  @property
  def name(self) -> str:
    """The name of its workdir."""
    return f"{self.cell.name}-seed{self.seed}"

  @property
  def workdir(self) -> pathlib.Path:
    """The workdir of the training."""
    return self.out / "runs" / self.name

  def sibling(self, suffix: str) -> pathlib.Path:
    """Return `<workdir><suffix>`."""
    return self.workdir.with_name(self.name + suffix)

  def record(self) -> dict[str, Any]:
    """Return the record of earlier attempts: status, seconds, log's end, ..."""
    path = self.sibling(".json")
    return json.loads(path.read_text()) if path.exists() else {}

  def commands(self, *, missing_only: bool = False) -> list[list[str]]:
    """Return its command lines, to be run in the checkout one after another.

    Args:
      missing_only: Leave out the commands that are done.
    """
    missing = [r for r in self.rows if not (missing_only and self.result(r))]
    # The training does the other evaluations itself, at its end.
    rest = [
      row
      for row in missing
      if self.measure or row.evaluation != own_evaluation(self.cell)
    ]
    commands = []
    if not (missing_only and self.trained() and (self._saved() or not rest)):
      converted = (self._start() / layout.CHECKPOINTS / "0").is_dir()
      if not (missing_only and converted):
        commands += self._convert()
      commands.append(self._train())
    most = self.cell.config.eval.max_images
    root = self.cell.settings.get("data.root")  # the data may have moved since
    code = ["--own_code"] if self._runs_own_code() else []
    return commands + [
      [*_python("deeplax.evaluate"), f"--workdir={self.shown(self.workdir)}"]
      + [*code, *flags, *self.measure]
      + ([f"--max_images={most}"] if most else [])
      + ([f"--data_root={root}"] if root else [])
      for flags in evaluations(
        [row.evaluation for row in rest], self.cell.config.eval.sweep.flip
      )
    ]

  def _runs_own_code(self) -> bool:
    """Return whether the workdir names files that the experiment names."""
    wanted, path = own.named(self.cell.config), self.workdir / layout.CONFIG
    if not (wanted and path.exists()):
      return bool(wanted)
    return own.named(json.loads(path.read_text())) == wanted

  def _train(self) -> list[str]:
    start = []
    if self._starts():
      start = [f"--config.init.checkpoint={self.shown(self._start())}"]
    return [
      *_python("deeplax.main"),
      *self.cell.flags(),
      *start,
      f"--config.seed={self.seed}",
      f"--workdir={self.shown(self.workdir)}",
    ]

  def _start(self) -> pathlib.Path:
    """Return the workdir to start from; the seed draws its new layers."""
    return self.sibling("-start")

  def source(self) -> str:
    """Return `weights`, or those of an earlier attempt."""
    return self.weights or self.record().get("weights", "")

  def _starts(self) -> bool:
    """Return whether it starts from weights; rows after COCO have their own."""
    return bool(self.source()) and self.cell.config.init.checkpoint is None

  def _saved(self) -> bool:
    """Return whether the checkpoint of the last step exists, to be evaluated.

    It does not if a training is stopped after its last evaluation.
    """
    last = str(self.cell.config.train.total_steps)
    return (self.workdir / layout.CHECKPOINTS / last).is_dir()

  def _convert(self) -> list[list[str]]:
    """Return the command that makes the workdir to start from, if any."""
    if not self._starts():
      return []
    source, _, file = self.source().partition(":")
    return [
      [
        *_python("deeplax.convert"),
        *(f"--source={source}", f"--checkpoint={file}"),
        *(*self.cell.flags(), f"--config.seed={self.seed}"),
        f"--workdir={self.shown(self._start())}",
      ]
    ]

  def shown(self, path: pathlib.Path) -> str:
    """Return a path for commands, which run in the checkout."""
    if path.is_relative_to(experiment.ROOT):
      path = path.relative_to(experiment.ROOT)
    return path.as_posix()

  def trained(self) -> bool:
    """Return whether the training has finished with these settings.

    Raises:
      InputError: The workdir is of other settings, or of another file of the
        user's own.
    """
    path = self.workdir / layout.CONFIG
    if not path.exists():
      return False
    trained = settings.flatten(json.loads(path.read_text()))
    wanted = settings.flatten(json.loads(self.cell.config.to_json()))
    wanted["seed"] = self.seed
    start = trained["init.checkpoint"]
    if self._starts() or (start or "").endswith("-start"):
      # Wherever those weights lay: a report has no --weights.
      wanted["init.checkpoint"] = start or "--weights"
    for key, value in wanted.items():
      filled = key in settings.FILLED_KEYS and value is None
      # A key that is newer than the workdir has its default there.
      have = trained.get(key, value)
      if own.is_own(have) and own.is_own(value):
        # The folder may have moved; `own_code` compares the contents.
        have, value = own.short(have), own.short(value)
      if have != value and key not in settings.FREE_KEYS and not filled:
        raise errors.InputError(
          f"{self.workdir} was trained with {key}={have}, this experiment has "
          f"{value}. Move it away, or choose another --out"
        )
    own_code.refuse_other(self.workdir, self.cell.config)
    steps = self.cell.config.train.total_steps
    return any(r["step"] == steps for r in self._results().values())

  def _results(self) -> dict[str, dict[str, Any]]:
    """Return the result in each file of eval/ that is not a table."""
    results = {}
    for path in sorted((self.workdir / layout.EVALUATIONS).glob("*.json")):
      result = json.loads(path.read_text())
      if "rows" not in result and "step" in result:
        results[path.name] = result
    return results

  def result(self, row: experiment.Row) -> dict[str, Any] | None:
    """Return a row's evaluation of the last step, or None."""
    if not self.trained():
      return None
    config, how = self.cell.config, row.evaluation
    asked = {
      "split": config.data.eval_split,
      "step": config.train.total_steps,
      "output_stride": how.output_stride,
      "scales": list(how.scales),
      "flip": how.flip,
    }
    # A user may have added evaluations in other ways.
    sizing = settings_lib.sizing(config)
    asked["sizes"] = sizing.sizes
    for file, result in self._results().items():
      most = config.eval.max_images or result["split_images"]
      if (
        asked.items() <= ({"sizes": "reference"} | result).items()
        and bool(result.get("window")) == bool(sizing.windows)
        and bool(result.get("crf")) == how.crf
        and result["images"] == min(most, result["split_images"])
        and all(_measured(flag, result) for flag in self.measure)
      ):
        return {"file": file, **result}
    return None

  def done(self) -> bool:
    """Return whether every row has its result."""
    return all(self.result(row) for row in self.rows)

  def speed(self, file: str) -> float | None:
    """Return the images/s of an evaluation, if a table has measured it."""
    for path in sorted(
      (self.workdir / layout.EVALUATIONS).glob("*-table*.json")
    ):
      for line in json.loads(path.read_text())["rows"]:
        if line["file"] == file:
          return line["images_per_second"]
    return None

  def curve(self) -> dict[str, list[list[float | int]]]:
    """Return the [step, value] pairs of loss and mIoU, thinned out."""
    curves: dict[str, list[list[float | int]]] = {"loss": [], "miou": []}
    for line in self._metrics():
      for key, points in curves.items():
        if key in line:
          points.append([line["step"], line[key]])
    return {key: thinned(points) for key, points in curves.items()}

  def _metrics(self) -> list[dict[str, Any]]:
    """Return the lines of the training's metrics.jsonl."""
    path = self.workdir / layout.METRICS
    return list(atomic.read_jsonl(path)) if path.exists() else []

  def _logged(self, pattern: str) -> list[tuple[str, str]]:
    """Return the groups of a pattern's matches in the lines of the log."""
    log = self.sibling(".log")
    text = log.read_text(errors="replace") if log.exists() else ""
    return re.findall(pattern, text, re.M)

  def training(self) -> dict[str, Any]:
    """Return the training's images/s and the memory of a step in bytes."""
    speeds = [v["images_per_second"] for v in self._metrics() if "loss" in v]
    speeds = sorted(speeds[1:])  # the first includes the compilation
    needed = None
    for amount, unit in self._logged(r"^ *memory +([\d.]+) (\w+) needed"):
      factor = {"GB": 1e9, "MB": 1e6, "kB": 1e3}.get(unit)
      needed = float(amount) * factor if factor else None
    return {
      "train_images_per_second": speeds[len(speeds) // 2] if speeds else None,
      "step_memory": needed,
    }

  def hardware(self) -> str | None:
    """Return the devices in the training's log, a CPU by its model's name."""
    devices = self._logged(r"^ *devices +(\d+) x (.+)$")
    if not devices:
      return None
    count, kind = devices[-1]
    if kind == "cpu":
      return f"{os.cpu_count()} x {_processor()}"
    return f"{count} x {kind}"

  def picture(self) -> str | None:
    """Return the newest sheet of pictures, relative to the experiment."""
    sheets = gallery.sheets(epath.Path(self.workdir))
    if not sheets:
      return None
    return pathlib.Path(sheets[-1].path).relative_to(self.out).as_posix()


def _measured(flag: str, result: dict[str, Any]) -> bool:
  """Return whether a result has the measure of a flag of deeplax.evaluate."""
  name, _, widths = flag.partition("=")
  if name == "--trimap":
    return set(result.get("trimap", ())) == set(widths.split(","))
  return experiment.MEASURES[name] in result


def thinned(points: list[list[float | int]]) -> list[list[float | int]]:
  """Return about `POINTS` points: the means of equal stretches."""
  size = -(-len(points) // POINTS) or 1
  return [
    [part[-1][0], sum(value for _, value in part) / len(part)]
    for part in (points[i : i + size] for i in range(0, len(points), size))
  ]


def _processor() -> str:
  """Return the name of this machine's CPU."""
  path = pathlib.Path("/proc/cpuinfo")
  text = path.read_text() if path.exists() else ""
  named = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
  return named.group(1) if named else f"{platform.machine()} CPU"


def _python(module: str) -> list[str]:
  return [sys.executable, "-m", module]


def own_evaluation(cell: experiment.Cell) -> experiment.Evaluation:
  """Return the evaluation that the training does at its end."""
  config = cell.config
  return experiment.Evaluation(
    settings_lib.output_stride(config),
    tuple(float(s) for s in config.eval.scales),
    config.eval.flip,
    False,
  )


def evaluations(
  wanted: Sequence[experiment.Evaluation], flips: Sequence[bool] = (False, True)
) -> list[list[str]]:
  """Return flags for deeplax.evaluate, which shares work inside a command.

  A command of several scales also evaluates one scale, and no flips.

  Args:
    wanted: The evaluations of the rows.
    flips: The configuration's eval.sweep.flip.
  """
  commands = []
  plain = [e for e in wanted if not e.crf]
  several = dict.fromkeys(
    e.scales for e in plain if len(e.scales) > 1 or e.flip
  )
  done = set()
  for scales in several:
    group = [e for e in plain if e.scales == scales]
    strides = _strides(group)
    flip = any(e.flip for e in group) and {*flips} == {False, True}
    commands.append([
      *("--sweep", f"--output_strides={strides}", f"--scales={_join(scales)}"),
      *([] if flip else ["--no-flip"]),
    ])  # fmt: skip
    for e in group:
      done |= {(e.output_stride, s, False) for s in ((1.0,), scales)}
      done |= {(e.output_stride, scales, flip)}
  rest = [
    e for e in plain if (e.output_stride, e.scales, e.flip) not in done
  ] + [e for e in wanted if e.crf]
  modes = dict.fromkeys((e.scales, e.flip, e.crf) for e in rest)
  for scales, flip, crf in modes:
    group = [
      e for e in rest if (e.scales, e.flip, e.crf) == (scales, flip, crf)
    ]
    commands.append([
      *("--no-sweep", f"--output_strides={_strides(group)}"),
      *(f"--scales={_join(scales)}", "--flip" if flip else "--no-flip"),
      *(["--crf"] if crf else []),
    ])  # fmt: skip
  return commands


def _strides(group: Sequence[experiment.Evaluation]) -> str:
  return ",".join(dict.fromkeys(str(e.output_stride) for e in group))


def _join(scales: Sequence[float | int]) -> str:
  return ",".join(map(str, scales))
