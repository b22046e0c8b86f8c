"""What does not fit on the disk is told before step 0, with what would."""

import re
import shutil
import types

import pytest

from deeplax import errors
from deeplax.settings import defaults
from deeplax.training import disk_space
from deeplax.training import limits

GB = 10**9


@pytest.fixture
def refuse(tmp_path, monkeypatch):
  """A function that asks whether states of a gigabyte fit."""

  def ask(
    free,
    *,
    keep=2,
    steps=10_000,
    every=1_000,
    evaluated=0,
    there=(),
    where="run",
  ):
    usage = types.SimpleNamespace(free=int(free * (GB + disk_space.SMALL)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    for step in there:
      (tmp_path / "run" / "checkpoints" / str(step)).mkdir(parents=True)
    config = defaults.base()
    config.train.total_steps = steps
    config.checkpoint.keep, config.checkpoint.every = keep, every
    config.eval.every = evaluated
    limits.refuse_values(config)
    workdir = where if "://" in where else tmp_path / where
    disk_space.refuse_full(config, workdir, state_bytes=GB)

  return ask


def test_those_that_stay_and_one_more_must_fit(refuse):
  refuse(4.0, keep=3)
  with pytest.raises(errors.InputError) as told:
    refuse(3.9, keep=3)
  text = str(told.value)
  assert "a checkpoint takes 1.0 GB, 4 more" in text and "3.9 GB are" in text
  (keep,) = re.findall(r"keep fewer: --config.checkpoint.keep=(\d+)$", text)
  refuse(3.9, keep=int(keep))  # what it advises


def test_the_best_one_lies_beside_the_newest(refuse):
  refuse(4.0, evaluated=2_000)
  with pytest.raises(errors.InputError, match="4 more"):
    refuse(3.9, evaluated=2_000)


def test_an_evaluated_step_is_a_saved_one(refuse):
  refuse(1.0, every=0)
  with pytest.raises(errors.InputError, match="4 more"):
    refuse(1.0, every=0, evaluated=1_000)


def test_where_fewer_than_may_be_kept_fit_only_room_helps(refuse):
  with pytest.raises(errors.InputError) as told:
    refuse(2.5)
  assert str(told.value).endswith("Make room there, or take another --workdir")


@pytest.mark.parametrize(
  "asked",
  [
    {"free": 1.0, "steps": 1_000},  # one checkpoint, the last
    {"free": 2.0, "steps": 1_500},
    {"free": 1.0, "there": (1_000, 2_000)},
    {"free": 1.0, "there": (9_500,), "keep": 5},  # one to come
    {"free": 0.0, "where": "gs://bucket/run"},
    {"free": 1.0, "every": 0},
  ],
)
def test_no_more_room_is_asked_for_than_will_be_needed(refuse, asked):
  refuse(**asked)
  if "://" not in asked.get("where", ""):
    with pytest.raises(errors.InputError, match="Make room there"):
      refuse(**{**asked, "free": asked["free"] - 0.1, "there": ()})


def test_a_folder_that_is_not_there_yet_is_on_the_disk_above(tmp_path):
  assert disk_space._nearest(tmp_path / "a" / "b") == str(tmp_path)
  assert disk_space._nearest("no such folder/a") == disk_space.os.getcwd()
