"""Evaluation: the same numbers as a count by hand, however it is spread."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from deeplax import errors
from deeplax import parallel
from deeplax.inference import evaluate
from deeplax.metrics import confusion
from tests import commands
from tests import conftest
from tests import processes
from tests.inference import toy


def test_scores_equal_a_count_by_hand_over_all_images():
  source = toy.Toy()
  result = evaluate.evaluate(
    toy.predictor(), source, progress=toy.silent, step=4, flip=False
  )
  expected = toy.by_hand(source, range(7))
  for key, value in expected.items():
    assert result[key] == value
  assert result["images"] == result["split_images"] == 7
  assert result["step"] == 4 and result["flip"] is False


class Three:
  """Three images whose scores are worked out on paper."""

  spec, split = toy.SPEC, "val"
  # (truth, prediction) by pixel; 255 is ignored.
  PIXELS = (
    ([[0, 0], [1, 1]], [[0, 1], [1, 1]]),
    ([[2, 2, 255]], [[2, 0, 1]]),
    ([[1]], [[1]]),
  )

  def __len__(self):
    return 3

  def __getitem__(self, index):
    truth, predicted = map(np.array, self.PIXELS[index])
    image = np.eye(3, dtype=np.uint8)[predicted] * np.uint8(200)
    return {"image": image, "label": truth.astype(np.uint8), "name": f"{index}"}


def test_three_images_have_the_scores_worked_out_on_paper():
  result = evaluate.evaluate(toy.predictor(), Three(), progress=toy.silent)
  assert result["confusion_matrix"] == [[1, 1, 0], [0, 3, 0], [1, 0, 1]]
  # Right over (truth + predicted - right): 1/(2+2-1), 3/(3+4-3), 1/(2+1-1).
  iou = {"red": 1 / 3, "green": 3 / 4, "blue": 1 / 2}
  assert result["iou"] == pytest.approx(iou)
  assert result["miou"] == pytest.approx(19 / 36)
  assert result["pixel_accuracy"] == pytest.approx(5 / 7)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_any_number_of_threads_gives_the_same_scores(threads):
  result = evaluate.evaluate(
    toy.predictor(), toy.Toy(), progress=toy.silent, threads=threads
  )
  assert result["miou"] == toy.by_hand(toy.Toy(), range(7))["miou"]


def test_some_images_are_spread_evenly_over_the_split():
  source = toy.Toy(9)
  result = evaluate.evaluate(
    toy.predictor(), source, max_images=3, progress=toy.silent
  )
  assert result["miou"] == toy.by_hand(source, [0, 3, 6])["miou"]
  assert (result["images"], result["split_images"]) == (3, 9)
  more = evaluate.evaluate(
    toy.predictor(), source, max_images=99, progress=toy.silent
  )
  assert more["images"] == 9


def test_padding_to_one_size_gives_the_same_scores():
  first, second = (
    evaluate.evaluate(
      toy.predictor(pad_to=pad_to), toy.Toy(), progress=toy.silent
    )
    for pad_to in (None, (97, 97))
  )
  assert first == second


def test_a_collapsed_prediction_is_told():
  lines = []
  source = toy.Toy(2, constant=1)
  evaluate.evaluate(toy.predictor(), source, progress=lines.append, step=2000)
  assert len(lines) == 1
  assert lines[0].startswith("deeplax: eval step 2000: ")
  assert "of predicted pixels are 'green' (truth 3" in lines[0]
  assert "Next: python -m deeplax.overfit_check --config=" in lines[0]


def test_a_data_set_that_is_nearly_all_one_class_is_no_collapse():
  matrix = np.diag([9_980, 10, 10])
  result = confusion.scores(matrix, toy.SPEC.class_names)
  assert evaluate.collapse_warning([result]) is None


def test_rows_that_have_collapsed_are_told_in_one_line():
  names = toy.SPEC.class_names
  matrix = np.array([[10, 0, 0], [10, 0, 0], [10, 0, 0]])
  collapsed = confusion.scores(matrix, names) | {"step": 7}
  sound = confusion.scores(np.diag([10, 10, 10]), names) | {"step": 7}
  told = evaluate.collapse_warning([sound, collapsed, collapsed])
  assert told is not None
  assert told.startswith("eval step 7: 100.0% of predicted pixels are 'red' ")
  assert "(truth 33%), in 2 of 3 rows. Usual causes" in told


class Broken(toy.Toy):
  """One example with something wrong."""

  def __init__(self, label):
    super().__init__(1)
    self._label = label

  def __getitem__(self, index):
    return super().__getitem__(index) | {"label": self._label, "name": "m.png"}


@pytest.mark.parametrize(
  ("label", "words"),
  [
    (np.full((20, 30), 38, np.uint8), r"m\.png: .*\[38\]"),
    (np.zeros((20, 31), np.uint8), r"m\.png: the label is \(20, 31\)"),
    (np.full((20, 30), 255, np.uint8), "every label is the ignore label"),
  ],
)
def test_labels_that_cannot_be_evaluated_are_named(label, words):
  with pytest.raises(errors.InputError, match=words):
    evaluate.evaluate(toy.predictor(), Broken(label), progress=toy.silent)


def _share(several, **keywords):
  """Evaluate in several processes; return results and images of each."""
  seen = [[] for _ in range(4)]

  def one(rank):
    return evaluate.evaluate(
      toy.predictor(pad_to=(40, 40)),
      keywords.get("source") or toy.Toy(),
      progress=toy.silent,
      keep=lambda index, _: seen[rank].append(index),
      stopped=lambda: keywords["stopped"](rank),
    )

  return several.run(one), seen


def test_processes_that_do_not_divide_the_images_see_each_once(monkeypatch):
  expected = evaluate.evaluate(toy.predictor(), toy.Toy(), progress=toy.silent)
  asked = [0] * 4

  def stopped(rank):
    asked[rank] += 1
    return False

  several = processes.Processes(monkeypatch, 4)
  results, seen = _share(several, stopped=stopped)
  assert seen == [[0, 4], [1, 5], [2, 6], [3]]
  assert results == [expected] * 4
  assert asked == [1] * 4  # each image that all of them have


class OneBroken(toy.Toy):
  """Nineteen pictures; the seventh has a label of another size."""

  def __init__(self):
    super().__init__(19)

  def __getitem__(self, index):
    example = super().__getitem__(index)
    if index == 6:
      example["label"] = example["label"][1:]
    return example


def test_what_one_process_finds_wrong_is_told_by_all(monkeypatch):
  asked = [0] * 4

  def stopped(rank):
    asked[rank] += 1
    return False

  several = processes.Processes(monkeypatch, 4)
  found, seen = _share(several, source=OneBroken(), stopped=stopped)
  assert {str(error) for error in found} == {str(found[0])}
  assert isinstance(found[0], parallel.Told)
  assert "process 2 of 4" in str(found[0]) and "6: the label" in str(found[0])
  assert 6 not in seen[2]
  assert asked == [4] * 4  # or they would not agree on later stops


def test_a_split_without_a_labeled_pixel_is_told_by_all(monkeypatch):
  several = processes.Processes(monkeypatch, 4)
  source = Broken(np.full((20, 30), 255, np.uint8))
  found, _ = _share(several, source=source, stopped=lambda rank: False)
  for error in found:
    assert isinstance(error, parallel.Told)
    assert str(error).startswith("evaluating toy: no pixel was counted")


def test_a_stop_that_all_agree_on_wins_over_an_error_of_one(monkeypatch):
  asked = [0] * 4

  def stopped(rank):
    asked[rank] += 1
    return asked[rank] == 3

  several = processes.Processes(monkeypatch, 4)
  with pytest.raises(evaluate.Stopped):
    _share(several, source=OneBroken(), stopped=stopped)
  assert asked == [3] * 4


def _in_processes(processes, devices):
  """Evaluate in so many processes of so many devices; return what each says."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  environment = os.environ | {
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    "JAX_PLATFORMS": "cpu",
  }
  started = [
    subprocess.Popen(
      [
        *(sys.executable, "-m", "tests.several_processes"),
        *(str(process), str(processes), address),
      ],
      cwd=conftest.ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process in range(processes)
  ]
  try:
    said = [process.communicate(timeout=900) for process in started]
  finally:
    for process in started:
      process.kill()
  for process, (_, error) in zip(started, said, strict=True):
    assert process.returncode == 0, error[-3000:]
  return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.mark.slow  # 20 s: four processes start JAX
def test_several_devices_and_processes_give_the_results_of_one():
  (one,) = _in_processes(1, 1)
  assert one["devices"] == 1 and one["seen"] == list(range(7))
  matrix = np.array(one["results"][0]["confusion_matrix"])
  assert matrix.sum() > 10_000
  (eight,) = _in_processes(1, 8)
  assert eight["devices"] == 8 and eight["results"] == one["results"]
  # The seventh image finds the second process without one.
  for rank, found in enumerate(_in_processes(2, 2)):
    assert found["devices"] == 4 and found["seen"] == list(range(rank, 7, 2))
    assert found["results"] == one["results"]


@pytest.fixture(scope="module")
def eight_devices():
  """Return what eight_devices prints."""
  said = commands.on_devices(
    "tests.inference.eight_devices",
    8,
    flags="--xla_backend_optimization_level=0",
  )
  return json.loads(said.splitlines()[-1])


def test_eight_devices_share_the_images_and_score_as_one(eight_devices):
  everyone = list(range(8))
  each_once = [[row, index] for index in range(11) for row in (0, 1)]
  each_has = {"padded": 1, "exact": 1, "windows": 1, "two each": 2}
  for way, images in each_has.items():
    found = eight_devices[way]
    assert found["one"] == found["eight"], way
    assert found["one kept"] == found["eight kept"] == each_once, way
    # Where each run was: all devices, with so many images each.
    assert {str(run) for run in found["one ran"]} == {str([[0], [images]])}
    places = {str(run) for run in found["eight ran"]}
    assert places == {str([everyone, [images]])}, way
  # Nine pictures of one padded size make two groups, the two others one; each
  # runs at four views, of which both modes have one.
  assert len(eight_devices["padded"]["eight ran"]) == 3 * 4
  assert len(eight_devices["padded"]["one ran"]) == 11 * 4


def test_two_images_on_each_of_eight_devices_equal_one(eight_devices):
  assert eight_devices["difference"] < 1e-6


def test_variables_that_all_devices_have_are_used_as_they_are(eight_devices):
  assert eight_devices["same memory"]
