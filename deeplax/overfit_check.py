"""Can the network learn a few images by heart? python -m deeplax.overfit_check
--config=configs/own_data.py --config.data.root=DIR

Trains the configuration's own network, loss and optimizer on a few training
images without augmentation. A sound set-up reaches a mIoU of 0.95 on them; one
that does not is told what was measured, what that means, and what to change.
Nothing is written.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import math
import sys
import tempfile
import time
from typing import Any

from absl import flags as absl_flags
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeplax import checkpoint
from deeplax import commands
from deeplax import errors
from deeplax import evaluate
from deeplax import launch
from deeplax import logs
from deeplax import losses
from deeplax import main as main_command
from deeplax import preflight
from deeplax import state as state_lib
from deeplax import train
from deeplax.data import build as data_build
from deeplax.data import check
from deeplax.data import transforms
from deeplax.metrics import confusion
from deeplax.models import build as model_build

PASSED = 0.95  # mIoU
# Forgets the random start in 50 steps, where a run has thousands.
NORM_DECAY = 0.9
COLLAPSED = 0.99  # share of the predicted pixels


@dataclasses.dataclass
class Measured:
  """What was seen while it tried.

  Attributes:
    losses: Of each step.
    base_lr: Of the configuration.
    evaluated: Scores (`confusion.scores`) with running norm statistics.
    trained: Scores with the batch's own, as training sees it.
    labelled: Share of the pixels that have a label.
    frozen: Whether the norms keep their statistics.
    contradictions: Pairs of names: one image, two masks.
  """

  losses: list[float]
  base_lr: float
  evaluated: dict[str, Any]
  trained: dict[str, Any]
  labelled: float
  frozen: bool
  contradictions: list[tuple[str, str]]


def diagnose(seen: Measured) -> list[str]:
  """Return what keeps it from learning, the most certain cause first."""
  found = []
  for one, other in seen.contradictions[:3]:
    found.append(
      f"{one} and {other} are the same picture with different masks: no "
      "network can learn both. Remove one"
    )
  if seen.labelled < 0.05:
    found.append(
      f"only {seen.labelled:.1%} of the pixels have a label; the rest is "
      "ignored. Check ignore_label and label_map: python -m deeplax.check_data"
    )
  first, last = np.mean(seen.losses[:5]), np.mean(seen.losses[-5:])
  if not math.isfinite(last):
    found.append(
      f"the loss is {last}: set --config.optim.base_lr={seen.base_lr / 10:g}"
    )
    return found
  if last > 0.9 * first:
    found.append(
      f"the loss went from {first:.3f} to {last:.3f}: it does not fall. Try "
      f"--config.optim.base_lr={seen.base_lr * 10:g} and "
      f"{seen.base_lr / 10:g}; of the two the one that lets it fall is right"
    )
  gap = seen.trained["miou"] - seen.evaluated["miou"]
  if gap > 0.1:
    found.append(
      f"mIoU is {seen.trained['miou']:.2f} with the batch's own norm "
      f"statistics and {seen.evaluated['miou']:.2f} with the running ones: "
      "these lag behind. Give it more --steps; in the real run lower "
      "--config.model.batch_norm.decay or use python -m deeplax.recalibrate"
    )
  if seen.frozen:
    found.append(
      "the norms are frozen: from random weights a network hardly learns so. "
      "Start from trained weights, --config.init.workdir=DIR, or set "
      "--config.model.batch_norm.mode=train"
    )
  for name, (true, predicted) in seen.evaluated["pixel_share"].items():
    if predicted > COLLAPSED > true:
      found.append(
        f"{predicted:.1%} of the pixels are predicted as {name!r} (truth "
        f"{true:.0%}): the rest is too rare for this loss so far. Give it more "
        "--steps, or --config.train.class_weights=median_frequency"
      )
  missed = [
    f"{name} ({seen.evaluated['pixel_share'][name][0]:.2%} of the pixels)"
    for name, value in seen.evaluated["iou"].items()
    if value is not None and value < 0.5
  ]
  if missed:
    found.append(
      f"not learnt: {', '.join(missed)}. Look at their masks; thin or small "
      "classes need a larger crop scale, a decoder, or class weights"
    )
  if not found:
    found.append("it was still learning: give it more --steps")
  return found


def crops(
  config: ml_collections.ConfigDict,
  source: Any,
  images: int,
) -> tuple[dict[str, np.ndarray], list[str]]:
  """Return the middles of images spread over a source, and their names."""
  chosen = evaluate.Subset(source, images)
  mean = model_build.mean_pixel(config.model)
  height, width = config.data.crop_size
  batch: dict[str, list[np.ndarray]] = {"image": [], "label": []}
  names = []
  for index in range(len(chosen)):
    example = chosen[index]
    image, label = transforms.pad(
      example["image"], example["label"], size=(height, width), pad_value=mean
    )
    top, left = (label.shape[0] - height) // 2, (label.shape[1] - width) // 2
    image, label = transforms.crop(image, label, (top, left, height, width))
    batch["image"].append(image)
    batch["label"].append(label)
    names.append(example["name"])
  return {key: np.stack(value) for key, value in batch.items()}, names


def contradictions(
  batch: dict[str, np.ndarray], names: Sequence[str]
) -> list[tuple[str, str]]:
  """Return pairs of equal images whose labels differ."""
  found = []
  for i in range(len(names)):
    for j in range(i):
      same = np.array_equal(batch["image"][i], batch["image"][j])
      if same and not np.array_equal(batch["label"][i], batch["label"][j]):
        found.append((names[j], names[i]))
  return found


def short(
  config: ml_collections.ConfigDict, steps: int
) -> ml_collections.ConfigDict:
  """Return the configuration for a run of so few steps, at an even rate."""
  config = config.copy_and_resolve_references()
  optim = config.optim
  optim.end_lr = optim.base_lr
  config.train.total_steps = steps
  optim.slow_start_steps = min(optim.slow_start_steps, steps // 10)
  optim.decay_steps = 0
  optim.step_every = max(optim.step_every, steps)
  if config.model.batch_norm.mode == "train":
    config.model.batch_norm.decay = NORM_DECAY
  return config


def learn(
  config: ml_collections.ConfigDict,
  source: Any,
  loss: losses.Settings,
  *,
  images: int,
  every: int,
  say: Callable[..., None],
) -> Measured:
  """Train on the crops until they are known, and return what was seen."""
  names = source.spec.class_names
  batch, files = crops(config, source, images)
  model = model_build.from_config(
    config.model,
    num_classes=len(names),
    auxiliary=config.train.auxiliary_weight > 0,
  )
  variables = launch.initial_variables(
    config, model, source.spec, resumed=False
  )
  _, tx = launch.optimizer(config)
  state = state_lib.create(variables, tx, seed=config.seed)
  step = jax.jit(
    train.make_train_step(model, tx, loss=loss, axis_name=None),
    donate_argnums=0,
  )

  def logits(variables, image, *, trains):
    found, _ = model.apply(
      variables,
      image,
      train=trains,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(0)},
    )
    return jnp.argmax(found, -1)

  predict = jax.jit(logits, static_argnames="trains")

  def scores(state, *, trains):
    found = np.asarray(predict(state.variables, batch["image"], trains=trains))
    matrix = confusion.count(batch["label"], found, len(names))
    return confusion.scores(matrix, names)

  seen = Measured(
    losses=[],
    base_lr=config.optim.base_lr,
    evaluated={},
    trained={},
    labelled=float((batch["label"] < len(names)).mean()),
    frozen=config.model.batch_norm.mode == "frozen",
    contradictions=contradictions(batch, files),
  )
  say("compiling the training step ...")
  start, total = None, config.train.total_steps
  for number in range(1, total + 1):
    state, metrics = step(state, batch)
    seen.losses.append(float(metrics.compute()["loss"]))
    start = start or time.perf_counter()
    if number % every and number < total:
      continue
    if not math.isfinite(seen.losses[-1]):
      seen.evaluated = seen.trained = scores(state, trains=False)
      return seen
    seen.evaluated = scores(state, trains=False)
    rate = max(number - 1, 1) / max(time.perf_counter() - start, 1e-9)
    say(
      f"step {number}/{total}  loss {seen.losses[-1]:.4f}  "
      f"mIoU {seen.evaluated['miou']:.3f}  "
      f"ETA {logs.duration((total - number) / rate)}"
    )
    if seen.evaluated["miou"] > PASSED:
      break
  seen.trained = scores(state, trains=True)
  return seen


def parser() -> argparse.ArgumentParser:
  """The command line, without the flags of the configuration."""
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.overfit_check",
    description="Train on a few images until they are known by heart, or say "
    "why that fails. Exit status: 0 learnt, 1 not, 2 wrong input.",
    epilog="example: python -m deeplax.overfit_check "
    "--config=configs/own_data.py --config.data.root=my_data",
    allow_abbrev=False,
  )
  parser.add_argument(
    "--config",
    required=True,
    metavar="CONFIG[:ARG]",
    help="the run; any --config.KEY=VALUE as for deeplax.main",
  )
  parser.add_argument(
    "--images", type=int, default=8, metavar="N", help="(default: 8)"
  )
  parser.add_argument(
    "--steps",
    type=int,
    default=500,
    metavar="N",
    help="at most; it stops as soon as they are known (default: 500)",
  )
  parser.add_argument(
    "--every",
    type=int,
    default=25,
    metavar="N",
    help="steps between looks at the mIoU (default: 25)",
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args, rest = parser().parse_known_args(argv)
  for name in ("images", "steps", "every"):
    if getattr(args, name) < 1:
      raise errors.InputError(f"--{name}={getattr(args, name)}: give 1 or more")
  main_command.parse([sys.argv[0], f"--config={args.config}", *rest])
  config = short(absl_flags.FLAGS["config"].value, args.steps)
  with tempfile.TemporaryDirectory() as folder:
    commands.compilation_cache(folder)
    sys.exit(run(config, args, print))


def run(
  config: ml_collections.ConfigDict,
  args: argparse.Namespace,
  say: Callable[..., None],
) -> int:
  """Return the exit status: 0 where the images were learnt, else 1."""
  with preflight.input_errors():
    preflight.refuse_values(config)
    source = data_build.source(config.data, config.data.train_split)
    check.check(source, images=args.images)
    _, loss = launch.train_on(config, source, None, say)
    if config.init.workdir:
      checkpoint.load_config(config.init.workdir)
    say(
      f"{min(args.images, len(source))} images of {source.spec.name}, crop "
      f"{'x'.join(map(str, config.data.crop_size))}, at most {args.steps} "
      f"steps, {commands.init_text(config)}"
    )
    seen = learn(
      config, source, loss, images=args.images, every=args.every, say=say
    )
  miou = seen.evaluated["miou"]
  if miou > PASSED:
    say(f"passed: mIoU {miou:.2f} after {len(seen.losses)} steps")
    return 0
  say(f"not learnt: mIoU {miou:.2f} after {len(seen.losses)} steps")
  for number, text in enumerate(diagnose(seen), start=1):
    say(f"  {number}. {text}")
  return 1


if __name__ == "__main__":
  main()
