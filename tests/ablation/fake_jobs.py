"""Jobs whose commands take no time, for tests of what runs them."""

import json
import sys

from deeplax.ablation import jobs as jobs_lib
from deeplax.ablation import load
from deeplax.ablation import results as results_lib
from deeplax.ablation import running

# What the commands of a job do here in place of training and evaluating.
TRAIN = """
import json, pathlib, sys
workdir, config = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
print("training", flush=True)
(workdir / "eval").mkdir(parents=True, exist_ok=True)
(workdir / "config.json").write_text(sys.argv[2])
(workdir / "env.json").write_text(
  '{"commit": "abc", "devices": ["TFRT_CPU_0"]}')
step = config["train"]["total_steps"]
lines = [dict(step=s, loss=1 / s, images_per_second=4.0) for s in (1, 2, 3)]
lines.append(dict(step=3, miou=0.25))
(workdir / "metrics.jsonl").write_text(
  "".join(json.dumps(line) + chr(10) for line in lines))
"""


EVALUATE = """
miou = float(sys.argv[3])
for stride, scales, flip, crf in json.loads(sys.argv[4]):
  name = f"val-os{stride}-s{scales}-{flip}-{crf}.json"
  classes = {"car": miou, "road": 2 * miou}
  result = dict(miou=miou, iou=classes, pixel_accuracy=miou, step=step,
    output_stride=stride, scales=scales, flip=flip, images=4, split_images=4,
    split=config["data"]["eval_split"], init="random", crf={"w1": 1} if crf
    else None, trimap_kind="void", trimap={"1": miou, "5": miou},
    trimap_accuracy={"1": miou, "5": miou}, boundary_f=miou)
  (workdir / "eval" / name).write_text(json.dumps(result))
  miou += 0.01
"""


FAIL = """
print("deeplax: no luck today")
raise SystemExit(2)
"""


def fake(monkeypatch, failing=()):
  """Make jobs' commands take no time; return the names of what was run."""
  ran = []

  def commands(self, *, missing_only=False):
    how = [row.evaluation for row in self.rows]
    if missing_only:
      ran.append(self.name)
    code = TRAIN + EVALUATE
    if self.cell.name in failing:
      code = TRAIN + FAIL
    miou = 0.5 + 0.02 * self.seed
    return [
      [sys.executable, "-S", "-c", code, str(self.workdir)]
      + [self.config_json(), str(miou), json.dumps(how)]
    ]

  def config_json(self):
    config = json.loads(self.cell.config.to_json())
    return json.dumps(config | {"seed": self.seed})

  monkeypatch.setattr(jobs_lib.Job, "commands", commands)
  monkeypatch.setattr(running, "POLL_EVERY", 0.01)
  monkeypatch.setattr(jobs_lib.Job, "config_json", config_json, raising=False)
  return ran


def started(name, out, seeds=(0, 1), **settings):
  experiment = load.load(name, **settings)
  return experiment, results_lib.jobs(experiment, out, seeds=seeds)
