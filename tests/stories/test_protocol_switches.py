"""Every switch of the training protocol at once, through the command."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from deeplax.workdir import checkpoint
from tests import commands

SWITCHES = (
  commands.DEBUG,
  "--config.train.batch_size=4",
  "--config.train.accumulate=2",
  "--config.train.accumulate_trained_norm=True",
  "--config.train.class_weights=median_frequency",
  "--config.train.hard_pixels=0.5",
  "--config.train.hard_pixel_steps=4",
  "--config.train.auxiliary_weight=0.4",
  "--config.data.duplicate_classes=('small box',)",
  "--config.optim.name=adamw",
  "--config.optim.base_lr=0.001",
  "--config.optim.schedule=cosine",
  "--config.optim.slow_start=linear",
  "--config.optim.clip_norm=1.0",
  "--config.optim.ema_decay=0.5",
  "--config.eval.every=2",
)


run = functools.partial(commands.command, short=True)


@pytest.mark.slow  # two runs and an evaluation
@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_all_switches_train_resume_exactly_and_evaluate_the_average(tmp_path):
  whole, again = tmp_path / "whole", tmp_path / "again"
  done = run("main", *SWITCHES, f"--workdir={whole}")
  assert done.returncode == 0, done.stderr[-3000:]
  for text in (
    "adamw 0.9",
    "clipped at 1",
    "hardest 50% of each",
    "0.4 x the",
    "parts",
  ):
    assert text in done.stdout
  assert (whole / "histogram.json").exists()
  pictures = sorted(p.name for p in (whole / "pictures").iterdir())
  assert pictures == ["index.html", "val-00000002.png", "val-00000004.png"]

  shutil.copytree(whole, again)
  shutil.rmtree(again / "checkpoints" / "4")
  resumed = run("main", *SWITCHES, f"--workdir={again}")
  assert "resuming from step 2 of 4" in resumed.stdout, resumed.stderr

  # All of the state, parameters, the moments of AdamW and the average included.
  with checkpoint.ocp.PyTreeCheckpointer() as reader:
    tree, other = (
      reader.restore(run / "checkpoints" / "4" / "state")
      for run in (whole, again)
    )
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, tree, other)

  # What evaluation reads is the average, not the last step's parameters.
  used, _ = checkpoint.restore_variables(whole)
  jax.tree.map(
    np.testing.assert_array_equal, used["params"], tree["average"]["params"]
  )
  moved = np.abs(
    tree["params"]["logits"]["kernel"] - used["params"]["logits"]["kernel"]
  )
  assert moved.max() > 0
  shutil.rmtree(whole / "eval")  # the training's own
  scored = run("evaluate", f"--workdir={whole}", "--no-sweep")
  assert scored.returncode == 0, scored.stderr
  (result,) = (whole / "eval").glob("val-00000004-*.json")
  lines = (whole / "metrics.jsonl").read_text().splitlines()
  logged = [json.loads(line).get("miou") for line in lines]
  assert json.loads(result.read_text())["miou"] == logged[-1]
