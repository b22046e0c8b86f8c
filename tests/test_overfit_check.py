"""A few images are memorized, or the reason why not is named.

The causes are provoked: a network of two convolutions really fails to learn.
"""

import json
import re
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from configs import quickstart
from deeplax import overfit_check
from deeplax import parallel
from deeplax.data import spec as spec_lib
from deeplax.data.checks import check
from deeplax.metrics import confusion
from deeplax.models import build as model_build
from deeplax.models import layers
from deeplax.settings import defaults
from deeplax.training import inputs
from deeplax.training import limits
from deeplax.training import overfit
from deeplax.training import overfit_diagnosis
from tests.commands import command
from tests.models import networks

NAMES = ("road", "sky", "pole")
SPEC = spec_lib.Spec("toy", NAMES, ((9, 9, 9), (0, 0, 9), (9, 0, 0)))
COLORS = np.array([[60, 60, 60], [60, 60, 220], [220, 60, 60]])


class Tiny(nn.Module):
  """Two 1x1 convolutions: it sees colors only."""

  norm: layers.Norm
  num_classes: int
  mean: tuple[float, ...] = (127.5,) * 3

  @nn.compact
  def coarse(self, images, *, train):
    x = jnp.asarray(images, jnp.float32) / 30
    x = layers.ConvNorm(8, norm=self.norm, activation="relu", name="first")(
      x, train=train
    )
    return layers.ConvNorm(self.num_classes, use_bias=True, name="logits")(
      x, train=train
    )

  def __call__(self, images, *, train):
    return self.coarse(images, train=train)


class Source:
  """Pictures whose colors tell the class; stripes of given widths."""

  spec, split = SPEC, "train"

  def __init__(self, *, images=4, widths=(9, 6, 1), change=lambda e, i: None):
    self._images, self._widths, self._change = images, widths, change

  def __len__(self):
    return self._images

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    row = np.repeat(np.arange(3), self._widths)
    label = np.repeat(row.reshape(1, -1), 16, axis=0).astype(np.uint8)
    noise = rng.integers(-20, 20, (*label.shape, 3))
    image = (COLORS[label] + noise).astype(np.uint8)
    example = {"image": image, "label": label, "name": f"{index}.png"}
    self._change(example, index)
    return example


@pytest.fixture
def attempt(monkeypatch):
  """A function that runs the check on a source: (status, printed lines)."""

  def model(config, *, num_classes, **_):
    norm = config.batch_norm
    settings = layers.Norm(norm.decay or 0.9, 1e-3, norm.mode)
    return Tiny(settings, num_classes)

  monkeypatch.setattr(model_build, "from_config", model)
  monkeypatch.setattr(check, "check", lambda *_, **__: None)
  monkeypatch.setattr(limits, "norm_warning", lambda *_, **__: None)

  def run(source, *flags, **changes):
    config = defaults.base()
    config.data.crop_size = (16, 16)
    config.optim.base_lr = 0.5
    config.update_from_flattened_dict(changes)
    args = overfit_check.parser().parse_args(["--config=x", *flags])
    lines = []
    status = overfit.run(config, args, source, lines.append)
    return status, "\n".join(lines)

  return run


def test_what_can_be_learned_passes_and_stops_early(attempt):
  status, text = attempt(Source(), "--every=10")
  assert status == 0, text
  assert "3 of 3 classes: road 56.2%, sky 37.5%, pole 6.2%" in text
  assert "100.0% labeled" in text and "norm decay 0.9 for so few" in text
  score = r"mIoU (9\d\.\d|100\.0)%"
  passed = re.search(rf"\npassed: {score} after (\d+) steps \(", text)
  assert passed and int(passed[2]) < 200
  assert "ETA" in text


def test_a_learning_rate_that_is_too_low_is_told_from_the_loss(attempt):
  status, text = attempt(Source(), "--steps=20", **{"optim.base_lr": 1e-6})
  assert status == 1
  assert "too low for 20 steps. Set --config.optim.base_lr=1e-05" in (text)
  for other in ("too high", "clip_norm", "not learned: road", "predicted as"):
    assert other not in text


def test_clipping_is_named_where_the_steps_are_too_small(attempt):
  _, text = attempt(Source(), "--steps=20", **{"optim.clip_norm": 1e-5})
  assert "or a larger --config.optim.clip_norm than 1e-05" in text


def test_a_learning_rate_that_is_too_high_is_told_from_the_loss(attempt):
  status, text = attempt(Source(), "--steps=20", **{"optim.base_lr": 3000.0})
  assert status == 1
  assert "the learning rate is too high. Set --config.optim.base_lr=300" in text
  assert "too low" not in text


def test_a_loss_that_is_no_number_stops_at_once(attempt):
  status, text = attempt(Source(), **{"optim.base_lr": 1e30})
  assert status == 1
  assert "1. the loss is " in text and "Set --config.optim.base_lr=1e+29" in (
    text
  )
  assert "not learned: mIoU 0.0% after" in text and "step 25/500" not in text


def test_statistics_that_lag_behind_are_told_from_training(
  attempt, monkeypatch
):
  monkeypatch.setattr(overfit, "NORM_DECAY", 0.9999)
  monkeypatch.setattr(limits, "SETTLED", 0.001)
  status, text = attempt(Source(), "--steps=60")
  assert status == 1
  assert "mIoU is 100.0% with the batch's own norm statistics and " in text
  assert "deeplax.recalibrate" in text


@pytest.mark.parametrize("mode", ["frozen", "fixed"])
def test_frozen_norms_on_random_weights_are_told(attempt, mode):
  frozen = {"model.batch_norm.mode": mode}
  status, text = attempt(Source(), "--steps=2", **frozen)
  assert status == 1 and "1. the norms are frozen" in text
  assert "norm decay" not in text


def test_one_class_everywhere_is_told_with_its_true_share(attempt):
  def blind(example, index):
    rng = np.random.default_rng(index)
    example["image"] = rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)

  status, text = attempt(Source(widths=(14, 1, 1), change=blind), "--steps=50")
  assert status == 1
  assert "% of the pixels are predicted as 'road' (truth 88%)" in text
  assert "not learned: sky (6.25% of the pixels), pole (6.25% of the" in text


def test_a_class_that_looks_like_another_is_named(attempt):
  def hide(example, index):
    example["label"][:2, :9] = 2
    example["image"][:, -1] = COLORS[1]
    example["label"][:, -1] = 1

  status, text = attempt(Source(change=hide), "--steps=100")
  assert status == 1
  assert "not learned: pole (7.03% of the pixels)" in text
  assert text.count("not learned: ") == 2  # the headline is the other


@pytest.mark.parametrize(("steps", "outcome"), [(1, 1), (200, 0)])
def test_masks_that_are_nearly_all_ignored_are_told(attempt, steps, outcome):
  def ignore(example, index):
    example["label"][1:] = 255
    example["label"][0, :8] = 255

  status, text = attempt(Source(change=ignore), f"--steps={steps}")
  assert status == outcome
  assert "only 3.1% of the pixels have a label" in text


def test_one_class_alone_is_nothing_to_learn(attempt):
  status, text = attempt(Source(widths=(16, 0, 0)))
  assert status == 1 and "1 of 3 classes: road 100.0%" in text
  assert "1. 1 class occurs in these crops" in text
  assert "compiling" not in text


def test_masks_without_any_label_need_no_training(attempt):
  def ignore(example, index):
    example["label"][:] = 255

  status, text = attempt(Source(change=ignore))
  assert status == 1 and "not learned: mIoU 0.0% after 0 steps" in text
  assert "1. only 0.0% of the pixels have a label" in text
  assert "compiling" not in text


def test_equal_pictures_with_other_masks_are_named(attempt):
  def contradict(example, index):
    if index == 3:
      first = Source()[1]
      example["image"][:] = first["image"]
      example["label"][:] = first["label"][:, ::-1]

  status, text = attempt(Source(change=contradict), "--steps=50")
  assert status == 1
  assert "1. 1.png and 3.png are the same picture with different" in text


def test_a_step_that_does_not_fit_is_refused(attempt, monkeypatch):
  monkeypatch.setattr(parallel, "memory_free", lambda mesh: 1000)
  with pytest.raises(overfit_check.errors.InputError, match="--images=4: one"):
    attempt(Source())


@pytest.mark.slow  # a whole network traced
def test_pooling_over_one_image_is_refused_where_its_norm_trains(short):
  config = quickstart.get_config("debug")
  config.model = networks.config(**networks.SMALL)
  args = overfit_check.parser().parse_args(["--config=x", "--images=1"])
  with pytest.raises(overfit_check.errors.InputError, match="image_pooling"):
    overfit.run(config, args, inputs.examples(config), lambda _: None)


TRUTH = np.repeat([0, 1, 2], [60, 37, 3])


def seen(**changes) -> overfit_diagnosis.Trial:
  fields: dict[str, Any] = dict(
    losses=[1.0] * 5 + [0.1] * 5,
    base_lr=0.05,
    clip_norm=0.0,
    init=None,
    evaluated=confusion.scores(
      confusion.count(TRUTH[None], TRUTH[None], 3), NAMES
    ),
    labeled=0.9,
    classes=3,
    frozen=False,
    contradictions=[],
  )
  fields["trained"] = fields["evaluated"]
  return overfit_diagnosis.Trial(**(fields | changes))


@pytest.mark.parametrize(
  "changes", [{}, {"frozen": True, "init": "runs/pretrained"}]
)
def test_where_nothing_is_wrong_nothing_is_blamed(changes):
  (text,) = overfit_diagnosis.diagnose(seen(**changes))
  assert text.startswith("no single cause: the loss fell from 1 to 0.1")


def test_equal_pictures_with_other_masks_contradict_each_other():
  images = np.zeros((3, 2, 2, 3), np.uint8)
  images[1] = 1
  labels = np.zeros((3, 2, 2), np.uint8)
  labels[2, 0, 0] = 1
  batch = {"image": images, "label": labels}
  assert overfit_diagnosis.contradictions(batch, "abc") == [("a", "c")]
  labels[2] = 0
  assert overfit_diagnosis.contradictions(batch, "abc") == []


def test_the_crops_are_the_middles_of_images_of_any_size():
  class Sizes:
    spec, split = SPEC, "train"

    def __len__(self):
      return 2

    def __getitem__(self, index):
      size = ((5, 9), (2, 3))[index]
      label = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
      image = np.repeat(label[..., None], 3, -1)
      return {"image": image, "label": label, "name": str(index)}

  config = defaults.base()
  config.data.crop_size = (3, 5)
  batch, names = overfit.crops(config, Sizes(), 8)
  assert names == ["0", "1"]
  rows = np.arange(45).reshape(5, 9)[1:4, 2:7]
  np.testing.assert_array_equal(batch["label"][0], rows)
  np.testing.assert_array_equal(batch["image"][0, ..., 0], rows)
  small = np.full((3, 5), 255)
  small[:2, :3] = np.arange(6).reshape(2, 3)
  np.testing.assert_array_equal(batch["label"][1], small)


@pytest.mark.parametrize(("steps", "decay"), [(500, 0.9), (10, 0.05**0.2)])
def test_a_short_run_keeps_an_even_rate_and_a_quick_norm(steps, decay):
  config = quickstart.get_config()
  config.model.batch_norm.decay = 0.9997
  config.optim.slow_start_steps = 1_000
  config.optim.ema_decay = 0.999
  changed = overfit.short(config, steps=steps, images=3)
  assert changed.model.batch_norm.decay == pytest.approx(decay)
  assert changed.optim.slow_start_steps == steps // 10
  assert changed.optim.end_lr == changed.optim.base_lr
  assert changed.optim.ema_decay == 0 and changed.train.batch_size == 3
  assert config.optim.slow_start_steps == 1_000


def folder(root):
  """Write a data set of 4 equal pictures with different masks."""
  for kind in ("images", "labels"):
    (root / kind / "train").mkdir(parents=True)
  for i in range(4):
    picture = np.full((40, 40, 3), 90, np.uint8)
    label = np.zeros((40, 40), np.uint8)
    label[:, 10 * i : 10 * i + 10] = 1
    Image.fromarray(picture).save(root / "images" / "train" / f"{i}.png")
    Image.fromarray(label).save(root / "labels" / "train" / f"{i}.png")
  (root / "classes.json").write_text(json.dumps({"names": ["a", "b"]}))
  return root


@pytest.mark.slow  # 30 s: compiles a training step
def test_the_command_fails_with_the_cause(tmp_path):
  done = command(
    "overfit_check",
    "--config=configs/own_data.py",
    f"--config.data.root={folder(tmp_path / 'data')}",
    "--config.data.crop_size=(33, 33)",
    "--config.model.depth_multiplier=0.35",
    "--steps=4",
    "--every=2",
  )
  assert done.returncode == 1, done.stderr
  assert "are the same picture with different masks" in done.stdout
  assert "not learned: mIoU" in done.stdout
  assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.slow  # 60 s: compiles a training step and a prediction
def test_every_switch_of_training_is_checked_with_it():
  done = command(
    "overfit_check",
    "--config=configs/quickstart.py:debug",
    "--config.train.auxiliary_weight=0.4",
    "--config.train.class_weights=median_frequency",
    "--config.train.hard_pixels=0.5",
    "--config.train.hard_pixel_steps=10",
    "--config.train.accumulate=2",
    "--config.train.accumulate_trained_norm=True",
    "--config.optim.ema_decay=0.9",
    "--config.optim.name=adamw",
    "--config.optim.base_lr=0.001",
    "--steps=4",
  )
  assert done.returncode == 1, done.stdout + done.stderr
  assert "step 4/4" in done.stdout and "not learned: mIoU" in done.stdout


@pytest.mark.slow  # 100 s: about 325 steps on 97x97 crops
def test_the_quickstart_learns_its_pictures():
  done = command("overfit_check", "--config=configs/quickstart.py")
  assert done.returncode == 0, done.stdout + done.stderr
  assert "passed: mIoU" in done.stdout


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config=configs/own_data.py", "--images=0"], "--images=0: give 1"),
    (["--config=configs/nothing.py"], "nothing"),
    ([], "--config"),
    (
      ["--config=configs/own_data.py", "--workdir=runs/a"],
      "--workdir=runs/a: nothing is written",
    ),
  ],
)
def test_wrong_input_is_refused_by_name(arguments, message):
  done = command("overfit_check", *arguments)
  assert done.returncode == 2 and message in done.stderr
  assert "Traceback" not in done.stderr


def test_help_says_what_the_exit_status_means():
  done = command("overfit_check", "--help")
  assert done.returncode == 0 and "--images N" in done.stdout
  words = " ".join(done.stdout.split())
  assert "Exit status: 0 learned, 1 not, 2 wrong" in words
