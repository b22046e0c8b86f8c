"""Values that a run is refused for by name, and the norms' warning."""

import re

import pytest

from deeplax import errors
from deeplax.models import build
from deeplax.settings import defaults
from deeplax.training import limits


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("train.hard_pixels", 0.0, "train.hard_pixels 0.0: give a share"),
    ("train.hard_pixels", 1.5, "train.hard_pixels 1.5: give a share"),
    ("train.auxiliary_weight", -0.4, "train.auxiliary_weight -0.4: give 0"),
    ("train.accumulate", 0, "train.accumulate 0: give 1 or more"),
    ("train.profile", -1, "train.profile -1: give 0 or more"),
    ("train.profile", 30_001, "the run has 30000 steps. Give one of 1 to"),
    ("optim.ema_decay", 1.0, "optim.ema_decay 1.0: give 0"),
    ("model.batch_norm.group", "0", "group 0: give all, device or a number"),
    ("model.batch_norm.group", "half", "group half: give all, device or a"),
    ("eval.batch", -1, "eval.batch -1: give 0 or more"),
    ("eval.pictures", -1, "eval.pictures -1: give 0 or more"),
  ],
)
def test_impossible_values_are_refused_by_name(key, value, message):
  config = defaults.base()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.InputError, match=message):
    limits.refuse_values(config)


def test_accumulation_under_trained_norms_must_be_asked_for():
  config = defaults.base()
  config.train.accumulate = 4
  with pytest.raises(errors.InputError) as caught:
    limits.refuse_values(config)
  assert "would see 4 images at a time instead of 16" in str(caught.value)
  config.train.accumulate_trained_norm = True
  limits.refuse_values(config)
  config.train.accumulate_trained_norm = False
  config.model.batch_norm.mode = "frozen"
  limits.refuse_values(config)


def norm_warning(total_steps, *, trained=(), **settings):
  config = defaults.base()
  config.update_from_flattened_dict(
    {f"model.batch_norm.{k}": v for k, v in settings.items()}
  )
  model = build.from_config(config.model, num_classes=3, trained=trained)
  return limits.norm_warning(
    model, total_steps=total_steps, start="random start"
  )


def test_a_run_too_short_for_its_norm_decay_is_told():
  text = norm_warning(1_000)
  assert text and "26% adapted after 1,000 steps at decay 0.9997" in text
  # What it advises leaves less than the 5% that it warns of.
  advised = float(re.search(r"decay=(0\.\d+)", text)[1])  # pyright: ignore
  assert norm_warning(1_000, decay=advised) is None
  assert advised**500 < 0.06


def test_the_papers_run_and_frozen_norms_need_no_warning():
  assert norm_warning(30_000) is None
  assert norm_warning(1_000, mode="frozen") is None
  assert norm_warning(1_000, mode="fixed") is None


def test_norms_of_parts_that_do_not_train_need_no_warning():
  assert norm_warning(1_000, trained=("logits",)) is None
  text = norm_warning(1_000, trained=("decoder", "logits"))
  assert text and "at decay 0.9997" in text


def test_the_slower_of_backbone_and_head_is_warned_of():
  config = defaults.base()
  config.model.backbone = "resnet_v1_50_beta"  # 0.95, the head 0.9997
  model = build.from_config(config.model, num_classes=3)
  text = limits.norm_warning(model, total_steps=1_000, start="")
  assert text and "at decay 0.9997" in text


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("optim.momentum", -3.0),
    ("optim.second_moment", 2.0),
    ("optim.base_lr", -0.1),
    ("optim.weight_decay", float("inf")),
  ],
)
def test_impossible_optimizer_numbers_are_refused_by_name(key, value):
  config = defaults.base()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(errors.InputError, match=f"{key} "):
    limits.refuse_values(config)


def test_a_slow_start_that_never_ends_is_told_with_steps_that_do():
  optim = defaults.base().optim
  optim.slow_start_steps = 1_000
  text = limits.slow_start_warning(optim, total_steps=1_000)
  assert text is not None and "optim.slow_start_steps 1,000" in text
  advised = re.search(r"--config\.optim\.slow_start_steps=(\d+)", text)
  assert advised is not None
  optim.slow_start_steps = int(advised[1])
  assert limits.slow_start_warning(optim, total_steps=1_000) is None
  # Half of a run in its slow start is the user's own business; none is usual.
  optim.slow_start_steps = 999
  assert limits.slow_start_warning(optim, total_steps=1_000) is None
  optim.slow_start_steps = 0
  assert limits.slow_start_warning(optim, total_steps=1) is None
