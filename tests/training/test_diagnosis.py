"""Training that goes wrong names the step, the images and the cause."""

import math

import numpy as np
import pytest

from deeplax import errors
from deeplax import parallel
from deeplax.data import folder
from deeplax.data import loader
from deeplax.data import views
from deeplax.training import diagnosis
from deeplax.training import state as state_lib
from tests import processes
from tests.commands import command
from tests.data import trees
from tests.inference import toy

GOOD = {"loss": 1.0, "illegal": 0.0}


def refuse(source, *values, first=1, batch_size=2):
  diagnosis.refuse_steps(
    values,
    first=first,
    source=source,
    drawn=lambda step: loader.drawn(
      source, step, seed=0, batch_size=batch_size
    ),
  )


@pytest.fixture
def own(tmp_path):
  """Own data: six images, of which the last two masks are broken."""
  root = trees.folder(tmp_path / "data", images=6)
  for name in ("04", "05"):
    trees.mask(
      root / "labels" / "train" / f"{name}.png", trees.labels(0, 1, 77)
    )
  return root


def step_with(source, name):
  """The first step of batches of one whose image is `name`."""
  return next(
    step
    for step in range(1, 100)
    if source.name(loader.drawn(source, step, seed=0, batch_size=1)[0]) == name
  )


def test_good_steps_pass():
  refuse(toy.Toy(3), GOOD, GOOD)


def test_an_illegal_label_names_step_file_and_fix(own):
  source = folder.source(own, "train")
  step = step_with(source, "04")
  with pytest.raises(errors.InputError) as refused:
    refuse(
      source, GOOD, GOOD | {"illegal": 200.0}, first=step - 1, batch_size=1
    )
  text = str(refused.value)
  assert f"step {step}: 200 pixels" in text and "77" in text
  assert "labels/train/04.png" in text and "05.png" not in text


def test_an_illegal_label_is_found_behind_repeated_examples(own):
  # data.duplicate_classes lists examples, of a part of the data perhaps.
  source = folder.source(own, "train")
  twice = views.Listed(views.Listed(source, np.array([5, 4])), np.array([1, 1]))
  with pytest.raises(errors.InputError, match="labels/train/04.png"):
    refuse(twice, GOOD | {"illegal": 1.0})


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_names_step_images_and_cause(loss):
  source = toy.Toy(6)
  names = [
    source[i]["name"] for i in loader.drawn(source, 7, seed=0, batch_size=2)
  ]
  with pytest.raises(errors.InputError) as refused:
    refuse(source, GOOD, GOOD, {"loss": loss, "illegal": 0.0}, first=5)
  text = str(refused.value)
  assert f"step 7: the loss is {loss}" in text
  assert ", ".join(names) in text and "--config.optim.base_lr" in text


def test_the_first_of_several_processes_looks_for_the_cause(monkeypatch):
  class Counted(toy.Toy):
    def __getitem__(self, index):
      readers.append(parallel.rank())
      return super().__getitem__(index)

  readers, source = [], Counted(6)
  several = processes.Processes(monkeypatch, 3)
  found = several.run(
    lambda _: refuse(source, {"loss": math.nan, "illegal": 0.0}, first=7)
  )
  assert set(readers) == {0}
  for error in found:
    assert isinstance(error, parallel.Told)
    assert str(error) == str(found[0])
    assert str(error).startswith("step 7: the loss is nan, on the images")


def test_at_the_first_step_the_start_is_to_blame():
  with pytest.raises(errors.InputError, match="weights that the run"):
    refuse(toy.Toy(6), {"loss": math.nan, "illegal": 0.0})


def test_pixels_that_are_no_numbers_are_to_blame_before_the_rate():
  class Broken(toy.Toy):
    def __getitem__(self, index):
      example = super().__getitem__(index)
      image = example["image"].astype(np.float32)
      if index == 3:
        image[0, 0, 0] = np.nan
      return example | {"image": image}

  source = Broken(4)
  with pytest.raises(errors.InputError, match="not finite numbers") as refused:
    refuse(source, {"loss": math.nan, "illegal": 0.0}, batch_size=4)
  assert source[3]["name"] in str(refused.value)


def test_parameters_that_are_not_finite_are_not_saved():
  state = state_lib.State(
    step=1,
    params={"a": np.ones(2), "b": np.array([1.0, np.nan])},
    batch_stats={},
    opt_state=(),
    rng=None,
  )
  # Those of all processes: the first one says it.
  with pytest.raises(parallel.Told, match="step 7: some parameters"):
    diagnosis.refuse_lost(state, step=7)


def test_a_first_batch_that_is_mostly_ignored_is_told():
  labels = np.full((2, 10, 10), 255, np.uint8)
  labels[0, 0, :] = 1
  told = diagnosis.ignored_warning(labels)
  assert told is not None and told.startswith("95% of the pixels")
  labels[0, :2, :] = 1
  assert diagnosis.ignored_warning(labels) is None  # 90%


def test_the_advice_finds_what_training_stopped_on(own):
  done = command("check_data", own, "--full")
  assert done.returncode == 2 and "04.png" in done.stdout + done.stderr
